"""`qpa plan`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qpa_hf.checkpoint import to_json
from qpa_hf.plan import plan as plan_costs
from qpa_hf.tuner import QPAConfig

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def plan(
    model: Annotated[str, typer.Argument(help="Directory or Hub id of the base model; only its config is read.")],
    target: Annotated[list[str], typer.Option(help="Module to adapt; repeat for several, or 'all-linear'.")],
    r: Annotated[int, typer.Option(help="LoRA's rank.")] = 8,
    chunk_size: Annotated[list[int] | None, typer.Option(help="Chunk size; repeat to compare several.")] = None,
    paper: Annotated[bool, typer.Option(help="Use the paper's generator.")] = False,
    task_type: Annotated[str, typer.Option(help="Task, as in PEFT's configurations.")] = "CAUSAL_LM",
    shots: Annotated[str | None, typer.Option(help='Measurements of a circuit; "20x": of each basis state.')] = None,
    device: Annotated[str | None, typer.Option(help="That measures: fake_torino, fake_fez, or 'ibm_...'.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of training, for the circuits, shots and jobs of a run.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Say what an adapter costs: qubits, trainable numbers, memory, checkpoint sizes, and what its circuits' shots
    come to. Loads no weights, asks no device.
    """
    if "all-linear" in target and len(target) > 1:
        raise ValueError("`--target` 'all-linear' goes with no other module. Name it alone, or leave it out.")
    targets = "all-linear" if target == ["all-linear"] else target
    lora: dict[str, Any] = {"r": r, "target_modules": targets, "task_type": task_type}
    lora |= {"shots": int(shots) if shots and shots.isdecimal() else shots}
    lora |= {"backend": "ibm", "device": device} if device else {}
    config = QPAConfig.paper(**lora) if paper else QPAConfig(**lora)
    result = plan_costs(config, model, chunk_size, steps)
    print(to_json(result.to_dict()) if as_json else result)


COMMANDS = (plan,)

"""`qpa plan`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from qpa_hf_cli.options import AsJson, Config, Model, Recipe, Set, TaskName


def plan(
    model: Annotated[
        str | None, typer.Argument(help="Directory or Hub id of the base model; only its config is read.")
    ] = None,
    config: Config = None,
    recipe: Recipe = None,
    task: TaskName = None,
    same_model: Model = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Module to adapt; repeat for several, or 'all-linear'.")
    ] = None,
    r: Annotated[int | None, typer.Option(help="LoRA's rank; 16 on gradient bases if none, else 8.")] = None,
    chunk_size: Annotated[list[int] | None, typer.Option(help="Chunk size; repeat to compare several.")] = None,
    basis: Annotated[str | None, typer.Option(help="What the factors stand on: gradient if none, or kaiming.")] = None,
    paper: Annotated[bool, typer.Option(help="Use the paper's generator.")] = False,
    task_type: Annotated[str | None, typer.Option(help="Task, as PEFT names it; CAUSAL_LM if none.")] = None,
    shots: Annotated[str | None, typer.Option(help='Measurements of a circuit; "20x": of each basis state.')] = None,
    device: Annotated[str | None, typer.Option(help="That measures: fake_torino, fake_fez, or 'ibm_...'.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of training, for the circuits, shots and jobs of a run.")
    ] = None,
    overrides: Set = None,
    as_json: AsJson = False,
) -> None:
    """Say what an adapter costs: qubits, trainable numbers, memory, checkpoint sizes, and what its circuits' shots
    come to. Loads no weights, asks no device.

    Takes the settings of `qpa train`, without a text. With the text: `qpa train --dry-run`.
    """
    from qpa_hf import plan as plan_costs
    from qpa_hf.checkpoint import to_json
    from qpa_hf.terminal import say
    from qpa_hf.training.settings import read_settings

    if model and same_model and model != same_model:
        raise ValueError(f"Two base models are named, {model} and {same_model}. Name one.")
    if target and "all-linear" in target and len(target) > 1:
        raise ValueError("`--target` 'all-linear' goes with no other module. Name it alone, or leave it out.")
    targets = "all-linear" if target == ["all-linear"] else target
    adapter: dict[str, Any] = {"r": r, "target_modules": targets, "task_type": task_type, "basis": basis}
    adapter |= {"shots": int(shots) if shots and shots.isdecimal() else shots, "paper": paper or None}
    adapter |= {"backend": "ibm", "device": device} if device else {}
    adapter = {name: value for name, value in adapter.items() if value is not None}
    direct: dict[str, Any] = {"model": model or same_model} if model or same_model else {}
    direct |= {"task": task} if task else {}
    settings = read_settings(config, recipe, overrides or (), does_train=False, **direct, adapter=adapter)
    n_steps = steps or max(1, settings.training.get("max_steps", -1))
    result = plan_costs(settings.adapter_config(), settings.model, chunk_size, n_steps)
    say(to_json(result.to_dict()) if as_json else result)


COMMANDS = (plan,)

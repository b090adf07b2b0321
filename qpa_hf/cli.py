"""The `qpa` command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from qpa_hf.materialize import materialize
from qpa_hf.plan import plan
from qpa_hf.tuner import QPAConfig

app = typer.Typer(help="Quantum parameter adaptation for PEFT.", no_args_is_help=True)


@app.command(name="plan")
def plan_command(
    model: Annotated[str, typer.Argument(help="Directory or Hub id of the base model; only its config is read.")],
    target: Annotated[list[str], typer.Option(help="Module to adapt; repeat for several, or 'all-linear'.")],
    r: Annotated[int, typer.Option(help="LoRA's rank.")] = 8,
    chunk_size: Annotated[list[int] | None, typer.Option(help="Chunk size; repeat to compare several.")] = None,
    paper: Annotated[bool, typer.Option(help="Use the paper's generator.")] = False,
    task_type: Annotated[str, typer.Option(help="Task, as in PEFT's configurations.")] = "CAUSAL_LM",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what an adapter costs: qubits, trainable numbers, memory, checkpoint sizes. Loads no weights."""
    targets = "all-linear" if target == ["all-linear"] else target
    lora: dict[str, Any] = {"r": r, "target_modules": targets, "task_type": task_type}
    sizes = chunk_size or [QPAConfig().chunk_size]
    config = QPAConfig.paper(sizes[0], **lora) if paper else QPAConfig(chunk_size=sizes[0], **lora)
    result = plan(config, model, sizes)
    print(json.dumps(result.to_dict(), indent=2) if as_json else result)


@app.command(name="materialize")
def materialize_command(
    native: Annotated[Path, typer.Argument(help="Directory of a saved QPA adapter.")],
    adapter: Annotated[Path, typer.Argument(help="Directory to write the plain LoRA adapter to.")],
) -> None:
    """Write the adapter that a saved generator generates as a plain LoRA checkpoint. Needs no base model."""
    print(f"Plain LoRA adapter written to {materialize(native, adapter)}")


def main() -> None:
    """Run the command line; a wrong value is one sentence and exit code 2."""
    try:
        app()
    except (ValueError, TypeError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)

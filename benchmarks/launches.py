"""Count what a training step launches on a GPU beyond LoRA's. Traced on the meta device: no GPU is needed."""

from __future__ import annotations

import argparse
import json
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers.utils.logging import set_verbosity_error

from benchmarks import record
from benchmarks.bases import build, sharing_copy
from benchmarks.measure import n_operations
from qpa_hf import QPAConfig
from qpa_hf.circuit import simulators
from qpa_hf.circuit.ansatz import ANSATZE

OUTPUT = record.RESULTS / "launches.json"
GOAL = 12  # beyond LoRA's, forward and backward together
LORA: dict[str, Any] = {"r": 4, "target_modules": ["lm_head"], "task_type": "CAUSAL_LM"}
ON_A_GPU = simulators.Simulator("triton_gates", device="meta", compiler="triton")
Row = dict[str, Any]


def arms() -> dict[str, LoraConfig]:
    """Return the adapters whose steps are counted."""
    found = {"QPA default": QPAConfig(**LORA), "QPA paper": QPAConfig.paper(**LORA)}
    found |= {f"QPA {ansatz}": QPAConfig(ansatz=ansatz, **LORA) for ansatz in ANSATZE if ansatz != "ry_cnot"}
    controls = {f"QPA source {source}": QPAConfig(source=source, **LORA) for source in ("random", "direct")}
    return {"LoRA": LoraConfig(**LORA), **found, **controls}


def count(base: nn.Module, config: LoraConfig) -> Row:
    """Return the operations of one forward and one backward pass that a GPU would launch."""
    model = get_peft_model(sharing_copy(base), config).to("meta").train()
    ids = torch.empty(1, 16, dtype=torch.long, device="meta")
    model(input_ids=ids, labels=ids).loss.backward()  # tables are made here
    losses = []
    forward = n_operations(lambda: losses.append(model(input_ids=ids, labels=ids).loss))
    return {"forward": forward, "backward": n_operations(lambda: losses[0].backward())}


def rows(shape: str) -> list[Row]:
    """Count all arms, with the kernels of a GPU and in torch's own operations."""
    base = build(shape, 2, "cpu")
    counted = []
    for kernels in ("Triton", "torch"):
        first = (ON_A_GPU,) if kernels == "Triton" else ()
        with (
            mock.patch.object(simulators, "SIMULATORS", (*first, *simulators.SIMULATORS)),
            # The meta device knows of no autocast.
            mock.patch.multiple(torch, autocast=lambda *_, **__: nullcontext(), is_autocast_enabled=lambda *_: False),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")  # PEFT's remarks on tied weights
            found = {name: count(base, config) for name, config in arms().items()}
        for name, passes in found.items():
            beyond = {way: n - found["LoRA"][way] for way, n in passes.items()}
            counted.append({"circuits": kernels, "arm": name, **passes, "beyond_lora": beyond | _sum(beyond)})
    return counted


def _sum(beyond: dict[str, int]) -> dict[str, int]:
    return {"both": sum(beyond.values())}


def table(counted: list[Row]) -> Table:
    """Return one line for each arm."""
    shown = Table("circuits in", "arm", "forward", "backward", "both", title="Operations of a step beyond LoRA's")
    for row in counted:
        shown.add_row(row["circuits"], row["arm"], *map(str, row["beyond_lora"].values()))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launches", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small base model; the differences are the same")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON file")
    options = parser.parse_args()
    if simulators.SIMULATORS[0].module is None:
        raise SystemExit("The kernels of a GPU are written in Triton, which is not installed. `pip install triton`.")
    set_verbosity_error()
    counted = rows("tiny" if options.quick else "gpt2")
    default = next(row for row in counted if row["arm"] == "QPA default")["beyond_lora"]["both"]
    result = {"commit": record.commit(), "versions": record.versions(), "goal": GOAL, "rows": counted}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    console = Console(width=100)
    console.print(table(counted))
    console.print(f"The default adds {default} operations to a step; to reach: {GOAL}. Written: {options.output}")


if __name__ == "__main__":
    main()

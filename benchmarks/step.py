"""Time whole training steps with LoRA, with QPA and without an adapter, taking turns in one process."""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from rich.table import Table
from torch import Tensor, nn
from transformers.utils.logging import set_verbosity_error

from benchmarks import record
from benchmarks.bases import SHAPES, build, n_layers_that_fit, sharing_copy
from benchmarks.measure import SEED, Run, medians, paired_ratio, take_turns
from benchmarks.record import Target, worst
from benchmarks.simulators import SIMULATORS, TORCHQUANTUM
from qpa_hf import QPAConfig
from qpa_hf.plots import in_style

TARGETS = ("lm_head", "all-linear")
RANKS = {"lm_head": 4, "all-linear": 16}
CHUNKS = {"lm_head": (384, 2048), "all-linear": (4096, 4096)}  # of the default and of the paper's configuration
N_TOKENS = {"cpu": 16, "cuda": 512}
BOUNDS = {"cpu": 1.03, "cuda": 1.02}  # QPA's step over LoRA's, to reach
CASE_SECONDS = 90  # one shape and target; larger bases get fewer rounds
LEARNING_RATE = 1e-4

BASE, LORA, DEFAULT, PAPER, AUTHORS = "base, one number", "LoRA", "QPA default", "QPA paper", "QPA paper, TorchQuantum"
Row = dict[str, Any]


def adapters(target: str, has_torchquantum: bool) -> dict[str, LoraConfig]:
    """Return the adapters that are compared."""
    lora: dict[str, Any] = {"r": RANKS[target], "task_type": "CAUSAL_LM"}
    lora |= {"target_modules": target if target == "all-linear" else [target], "lora_alpha": 2 * RANKS[target]}
    default, paper = CHUNKS[target]
    found: dict[str, LoraConfig] = {
        LORA: LoraConfig(**lora),
        DEFAULT: QPAConfig(chunk_size=default, **lora),
        PAPER: QPAConfig.paper(paper, **lora),
    }
    if has_torchquantum:
        found[AUTHORS] = QPAConfig.paper(paper, backend="torchquantum", **lora)
    return found


def with_one_number(base: nn.Module, module: str) -> nn.Module:
    """Return the frozen base with one trained number, added to what `module` returns.

    That is the least that makes the backward pass go as far as the adapter's: to the head, or to the first layer.
    """
    model = sharing_copy(base)
    number = model.one_number = nn.Parameter(torch.zeros((), device=base.device))
    model.get_submodule(module).register_forward_hook(lambda _module, _inputs, output: output + number)
    return model


def make_step(model: nn.Module, batch: Tensor) -> Run:
    """Return one whole training step: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)

    def step() -> Tensor:
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def compare(shape: str, target: str, has_torchquantum: bool, options: argparse.Namespace) -> Row:
    """Time all arms on one base model and one choice of adapted layers."""
    n_layers, n_all = n_layers_that_fit(shape, options.device)
    base = build(shape, n_layers, options.device)
    rng = torch.Generator().manual_seed(SEED)
    batch = torch.randint(base.config.vocab_size, (1, options.tokens), generator=rng).to(options.device)
    shifted = "lm_head" if target == "lm_head" else SHAPES[shape].first
    models = {BASE: with_one_number(base, shifted)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's remarks on tied weights and Conv1D, the same for every arm
        for name, config in adapters(target, has_torchquantum).items():
            models[name] = get_peft_model(sharing_copy(base), config)
    steps = {name: make_step(model, batch) for name, model in models.items()}
    for name, step in steps.items():
        if not math.isfinite(step().item()):
            raise RuntimeError(f"The loss of {name} on {shape} is not finite, so its time says nothing.")
    times = take_turns(steps, options.rounds, options.device, CASE_SECONDS)
    return {
        "shape": shape if n_layers == n_all else f"{shape} cut to {n_layers} of {n_all} layers",
        "target_modules": target,
        "dtype": str(SHAPES[shape].dtype).removeprefix("torch."),
        "rank": RANKS[target],
        "chunk_sizes": CHUNKS[target],
        "base_adds_a_number_to": shifted,
        "rounds": len(times[LORA]),
        "trainable": {name: sum(p.numel() for p in m.parameters() if p.requires_grad) for name, m in models.items()},
        "median_ms": medians(times),
        "over_lora": {name: paired_ratio(times[name], times[LORA]) for name in steps},
    }


def targets(rows: list[Row], device: str) -> list[Target]:
    """Judge what was measured, each shape and target for itself."""
    bound, judged = BOUNDS[device], []
    for shape in ("gpt2",) if device == "cpu" else ("gpt2", "gemma-2-2b"):
        for target in TARGETS:
            chosen = [row for row in rows if (row["shape"], row["target_modules"]) == (shape, target)]
            measured = {name: row["over_lora"][name]["ratio"] for row in chosen for name in (DEFAULT, PAPER)}
            judged.append(worst(f"QPA / LoRA, {shape}, {target}", "<=", bound, measured))
    return judged


def table(rows: list[Row]) -> Table:
    """Return one line for each arm."""
    columns = ("base", "target", "arm", "trainable", "rounds", "ms", "over LoRA", "95 % interval")
    result = Table(*columns, title="Training steps: median ms, and paired ratios to LoRA's")
    for row in rows:
        for name, milliseconds in row["median_ms"].items():
            over = row["over_lora"][name]
            interval = f"{over['low']:.3f} - {over['high']:.3f}"
            counts = (f"{row['trainable'][name]:,}", str(row["rounds"]), f"{milliseconds:.4g}")
            result.add_row(row["shape"], row["target_modules"], name, *counts, f"{over['ratio']:.3f}", interval)
        result.add_section()
    return result


@in_style()
def plot(rows: list[Row], bound: float, path: Path) -> None:
    """Write each arm's ratio to LoRA with its interval, one panel a base and target."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1 + 1.6 * len(rows)), layout="constrained")
    panels = figure.subplots(len(rows), 1, squeeze=False, sharex=True)[:, 0]
    for panel, row in zip(panels, rows, strict=True):
        names = [name for name in row["over_lora"] if name != LORA][::-1]
        for i, name in enumerate(names):
            over = row["over_lora"][name]
            spread = [[over["ratio"] - over["low"]], [over["high"] - over["ratio"]]]
            panel.errorbar(over["ratio"], i, xerr=spread, fmt="o", capsize=3)
        panel.axvline(1, color="black", linewidth=0.8)
        limit = panel.axvline(bound, color="black", linewidth=0.8, linestyle="--", label=f"to reach: {bound}")
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(-0.6, len(names) - 0.4)
        panel.set_title(f"{row['shape']}, {row['target_modules']}: LoRA's step takes {row['median_ms'][LORA]:.4g} ms")
        panel.grid(visible=False, axis="y")
    panels[0].legend(handles=[limit])
    panels[-1].set_xlabel("time of a training step over LoRA's (median of paired rounds, 95 % interval)")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = record.arguments(__doc__, "step", "6", 60)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["gpt2", "gemma-2-2b"], help="base models")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS, help="adapted layers")
    parser.add_argument("--tokens", type=int, help="tokens in the batch of one (16 on a CPU, 512 on a GPU)")
    options = parser.parse_args()
    options.tokens = options.tokens or N_TOKENS[options.device]
    if options.quick:
        options.shapes, options.rounds = ["tiny"], 2
    record.prepare(options)
    set_verbosity_error()
    why = SIMULATORS[TORCHQUANTUM].missing()
    missing = {TORCHQUANTUM: why} if why else {}
    rows = [compare(shape, target, not missing, options) for shape in options.shapes for target in options.targets]
    judged = targets(rows, options.device)
    config = {"tokens": options.tokens, "batch": 1, "optimizer": f"AdamW, learning rate {LEARNING_RATE}"}
    record.write(options, config, missing, {"rows": rows}, judged)
    plot(rows, BOUNDS[options.device], options.output.with_suffix(".png"))
    record.show([table(rows)], judged, missing, options.output)


if __name__ == "__main__":
    main()

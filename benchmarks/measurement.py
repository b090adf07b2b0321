"""Time what shots and gradient estimators cost: whole training steps, generators and circuits, taking turns."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from rich.table import Table
from torch import Tensor
from transformers.utils.logging import set_verbosity_error

from benchmarks import record
from benchmarks.bases import build, n_layers_that_fit, sharing_copy
from benchmarks.measure import SEED, Run, check_agreement, medians, paired_ratio, take_turns
from benchmarks.record import Target, worst
from benchmarks.step import make_step
from qpa_hf import QPAConfig
from qpa_hf.circuit import ANSATZE, angles_shape
from qpa_hf.measurement import Measurement, measure
from qpa_hf.plots import in_style

SHOTS = "20x"  # Appendix G of https://huggingface.co/papers/2410.09846
STEP_BOUND, SHIFT_BOUND = 1.2, 25
LORA: dict[str, Any] = {"r": 4, "target_modules": ["lm_head"], "task_type": "CAUSAL_LM"}
# Generators of GPT-2's `lm_head`: the paper's, with 10 to 5 qubits, and the default one, with 8 circuits of 10.
GENERATORS = {f"paper, N = {n}": QPAConfig.paper(2 ** (18 - n), **LORA) for n in range(5, 11)} | {
    "default, N = 10": QPAConfig(**LORA)
}
EXACT = "exact"
ARMS: dict[str, dict[str, Any]] = {
    EXACT: {},
    "shots": {"shots": SHOTS, "gradient": "exact"},
    "shots, SPSA": {"shots": SHOTS, "gradient": "spsa"},
    "shots, parameter shift": {"shots": SHOTS, "gradient": "parameter_shift"},
}
N_TOKENS = {"cpu": 16, "cuda": 512}
DEPTH, SHIFT_QUBITS = 8, (5, 7, 10)
CASE_SECONDS = 60
Row = dict[str, Any]


def _with(config: QPAConfig, **changes: Any) -> QPAConfig:
    fields = {"chunk_size", "n_circuits", "circuit_depth", "features", "use_basis_bits", "mapping_widths", "start"}
    return QPAConfig(**{name: getattr(config, name) for name in fields} | LORA | changes)


def steps(name: str, base: Any, options: argparse.Namespace) -> Row:
    """Time a training step, and the generator's part alone, with exact probabilities and with shots."""
    rng = torch.Generator().manual_seed(SEED)
    batch = torch.randint(base.config.vocab_size, (1, N_TOKENS[options.device]), generator=rng).to(options.device)
    models = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on tied weights and on small bases, the same for every arm
        for arm, changes in ARMS.items():
            models[arm] = get_peft_model(sharing_copy(base), _with(GENERATORS[name], **changes)).train()
    spec = models[EXACT].base_model.lora_qpa["default"].spec
    whole = {arm: make_step(model, batch) for arm, model in models.items()}
    alone = {arm: _generate(model) for arm, model in models.items()}
    times = {
        "training step": take_turns(whole, options.rounds, options.device, CASE_SECONDS),
        "generator alone": take_turns(alone, options.rounds, options.device, CASE_SECONDS),
    }
    return {
        "generator": name,
        "n_qubits": spec.n_qubits,
        "n_circuits": spec.n_circuits,
        "rounds": {part: len(found[EXACT]) for part, found in times.items()},
        "median_ms": {part: medians(found) for part, found in times.items()},
        "over_exact": {
            part: {arm: paired_ratio(found[arm], found[EXACT]) for arm in found} for part, found in times.items()
        },
    }


def _generate(model: Any) -> Run:
    """Return the generator's forward and backward pass, with other shots each time."""
    generator = model.base_model.lora_qpa["default"]
    parameters = list(generator.trained().values())
    weights = torch.randn(generator.spec.n_values, generator=torch.Generator().manual_seed(SEED))
    weights = weights.to(generator.device)

    def run() -> tuple[Tensor, ...]:
        generator.draw_anew()
        (values,) = generator()
        return torch.autograd.grad(values, parameters, weights, allow_unused=True)

    return run


def shifts(ansatz: str, n_qubits: int, options: argparse.Namespace) -> Row:
    """Time the gradient of one circuit by parameter shift against its exact one."""
    rng = torch.Generator().manual_seed(SEED)
    angles = torch.randn(1, *angles_shape(ansatz, DEPTH, n_qubits), generator=rng).to(options.device).requires_grad_()
    weights = torch.randn(1, 2**n_qubits, generator=rng).to(options.device)
    draw = torch.tensor(0, device=options.device)

    def gradient(how: Measurement) -> Run:
        return lambda: torch.autograd.grad(measure(angles, how, draw), angles, weights)[0]

    runs = {
        EXACT: gradient(Measurement(ansatz)),
        "parameter shift": gradient(Measurement(ansatz, gradient="parameter_shift")),
        "parameter shift, shots": gradient(Measurement(ansatz, 20 * 2**n_qubits, "parameter_shift")),
        "SPSA, shots": gradient(Measurement(ansatz, 20 * 2**n_qubits, "spsa")),
    }
    check_agreement("parameter shift", runs["parameter shift"](), runs[EXACT]())
    times = take_turns(runs, options.rounds, options.device, CASE_SECONDS)
    return {
        "ansatz": ansatz,
        "n_qubits": n_qubits,
        "shifted_circuits": 2 * angles.numel(),
        "rounds": len(times[EXACT]),
        "median_ms": medians(times),
        "over_exact": {name: paired_ratio(times[name], times[EXACT]) for name in runs},
    }


def targets(step_rows: list[Row], shift_rows: list[Row]) -> list[Target]:
    """Judge what was measured."""
    over = {row["generator"]: row["over_exact"]["training step"]["shots"]["ratio"] for row in step_rows}
    chosen = [row for row in shift_rows if row["shifted_circuits"] == 112 and row["n_qubits"] == 7]
    found = [
        {row["ansatz"]: row["over_exact"][name]["ratio"] for row in chosen}
        for name in ("parameter shift", "parameter shift, shots")
    ]
    return [
        worst(f"training step with {SHOTS} shots / exact, N <= 10", "<=", STEP_BOUND, over),
        worst("parameter shift, 112 circuits / exact gradient, N = 7", "<=", SHIFT_BOUND, found[0]),
        worst(f"the same with {SHOTS} shots of each", "<=", SHIFT_BOUND, found[1]),
    ]


def tables(step_rows: list[Row], shift_rows: list[Row]) -> list[Table]:
    """Return ratios to the exact arm, with intervals."""
    first = Table("generator", "part", "exact, ms", *list(ARMS)[1:], title=f"{SHOTS} shots over exact probabilities")
    for row in step_rows:
        for part, over in row["over_exact"].items():
            cells = [_cell(over[arm]) for arm in list(ARMS)[1:]]
            first.add_row(row["generator"], part, f"{row['median_ms'][part][EXACT]:.4g}", *cells)
    names = list(shift_rows[0]["over_exact"])[1:]
    second = Table("ansatz", "N", "shifted", "exact, ms", *names, title="One circuit's gradient over the exact one")
    for row in shift_rows:
        cells = [_cell(row["over_exact"][name]) for name in names]
        counts = (str(row["n_qubits"]), str(row["shifted_circuits"]))
        second.add_row(row["ansatz"], *counts, f"{row['median_ms'][EXACT]:.3g}", *cells)
    return [first, second]


def _cell(over: dict[str, float]) -> str:
    return f"{over['ratio']:.3g} ({over['low']:.3g} - {over['high']:.3g})"


@in_style()
def plot(step_rows: list[Row], path: Path) -> None:
    """Write each arm's ratio to the exact one, with its interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, part in zip(panels, ("training step", "generator alone"), strict=True):
        for i, arm in enumerate(list(ARMS)[1:]):
            over = [row["over_exact"][part][arm] for row in step_rows]
            ratios = [o["ratio"] for o in over]
            spread = [[o["ratio"] - o["low"] for o in over], [o["high"] - o["ratio"] for o in over]]
            places = [place + 0.1 * i for place in range(len(over))]
            panel.errorbar(places, ratios, yerr=spread, fmt="osv"[i], capsize=3, label=arm)
        panel.set_xticks(range(len(step_rows)), [row["generator"] for row in step_rows], rotation=30, ha="right")
        panel.set(title=part, ylabel="over exact probabilities", yscale="log")
    panels[0].axhline(STEP_BOUND, color="black", linewidth=0.8, linestyle="--")
    panels[1].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = record.arguments(__doc__, "measurement", "6", 30)
    options = parser.parse_args()
    names, qubits = list(GENERATORS), SHIFT_QUBITS
    if options.quick:
        names, qubits, options.rounds = names[:1], SHIFT_QUBITS[:1], 2
    record.prepare(options)
    set_verbosity_error()
    shape = "tiny" if options.quick else "gpt2"
    base = build(shape, n_layers_that_fit(shape, options.device)[0], options.device)
    step_rows = [steps(name, base, options) for name in names]
    shift_rows = [shifts(ansatz, n_qubits, options) for ansatz in ANSATZE for n_qubits in qubits]
    judged = targets(step_rows, shift_rows)
    config = {"shots": SHOTS, "depth": DEPTH, "tokens": N_TOKENS[options.device], "base": shape}
    record.write(options, config, {}, {"rows": step_rows, "shifts": shift_rows}, judged)
    plot(step_rows, options.output.with_suffix(".png"))
    record.show(tables(step_rows, shift_rows), judged, {}, options.output)


if __name__ == "__main__":
    main()

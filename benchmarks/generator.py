"""Time whole generators, forward and backward: the GPT-2 chunk sizes side by side, and millions of values alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from benchmarks import record
from benchmarks.measure import (
    SEED,
    Run,
    check_agreement,
    free_bytes,
    in_fresh_process,
    medians,
    n_operations,
    paired_ratio,
    peak_bytes,
    take_turns,
)
from benchmarks.record import Target, worst
from benchmarks.simulators import SIMULATORS, TORCHQUANTUM
from qpa_hf import QPAConfig
from qpa_hf.plots import in_style
from qpa_hf.tuners.qpa.slots import Slot, build_bank

CHUNK_SIZES = (256, 512, 1024, 2048, 4096, 8192)
GPT2 = [(768, 50257)]  # lm_head, inputs and outputs
GPT2_RANK = 4
# Llama-3-8B: q, k, v, o, gate, up and down projections of 32 layers.
LLAMA = [(4096, 4096), (4096, 1024), (4096, 1024), (4096, 4096), (4096, 14336), (4096, 14336), (14336, 4096)] * 32
LLAMA_CHUNK = 4096
LLAMA_RANKS = (16, 382)  # 41.9 million values, and the first rank with 10^9
MAX_SECONDS, MAX_MEGABYTES = 0.2, 100  # of a large generator, to reach
SCALE_SECONDS = 60  # all rounds of one generator; more values than this allows get fewer rounds

KINDS = DEFAULT, PAPER = "default", "paper"
OVER = " over TorchQuantum"
Row = dict[str, Any]


def lora_slots(layers: list[tuple[int, int]], rank: int) -> list[Slot]:
    """Return LoRA's tensors for layers given by their numbers of inputs and outputs, in the generator's order."""
    a = [Slot(f"{i}.lora_A.weight", (rank, n_in)) for i, (n_in, _) in enumerate(layers)]
    return a + [Slot(f"{i}.lora_B.weight", (n_out, rank)) for i, (_, n_out) in enumerate(layers)]


def n_values(layers: list[tuple[int, int]], rank: int) -> int:
    """Return how many numbers LoRA has."""
    return rank * sum(n_in + n_out for n_in, n_out in layers)


def settings(kind: str, chunk_size: int, **kwargs: Any) -> QPAConfig:
    """Return the default or the paper's configuration."""
    return QPAConfig.paper(chunk_size, **kwargs) if kind == PAPER else QPAConfig(chunk_size=chunk_size, **kwargs)


def make(config: QPAConfig, slots: list[Slot], device: str) -> Run:
    """Return a call that generates every slot and takes all trainable numbers' gradients from given slot gradients."""
    bank = build_bank(config, slots)
    parameters = list(bank.generator.to(device).trained().values())
    rng = torch.Generator().manual_seed(SEED)
    grads = [torch.empty(slot.shape).uniform_(-1, 1, generator=rng).to(device) for slot in slots]

    def run() -> tuple[Tensor, ...]:
        bank.begin_forward()
        values = [bank.read(i) for i in range(len(slots))]
        bank.end_forward()
        return torch.autograd.grad(values, parameters, grads)

    return run


def arms(chunk_size: int, has_torchquantum: bool) -> dict[str, QPAConfig]:
    """Return what is compared at one chunk size; the control shows what is left without a circuit."""
    found = {}
    for kind in KINDS:
        found[kind] = settings(kind, chunk_size)
        found[f"{kind}, no circuit"] = settings(kind, chunk_size, source="random")
        if has_torchquantum:
            found[kind + OVER] = settings(kind, chunk_size, backend="torchquantum")
    return found


def compare(chunk_size: int, has_torchquantum: bool, rounds: int, device: str) -> Row:
    """Time all generators for GPT-2's lm_head at one chunk size."""
    slots, m = lora_slots(GPT2, GPT2_RANK), n_values(GPT2, GPT2_RANK)
    configs = arms(chunk_size, has_torchquantum)
    runs = {name: make(config, slots, device) for name, config in configs.items()}
    gradients = {name: torch.cat([gradient.flatten() for gradient in run()]) for name, run in runs.items()}
    for kind in KINDS:
        if kind + OVER in runs:
            check_agreement(kind + OVER, gradients[kind + OVER], gradients[kind])
    operations = {name: n_operations(run, device) for name, run in runs.items()}
    times = take_turns(runs, rounds, device)
    return {
        "chunk_size": chunk_size,
        "n_qubits": configs[PAPER].generator_spec(m).n_qubits,
        "rounds": len(times[PAPER]),
        "median_ms": medians(times),
        "over_ours": {name: paired_ratio(times[name], times[PAPER if PAPER in name else DEFAULT]) for name in runs},
        "operations": operations,
    }


def alone(kind: str, rank: int, rounds: int, device: str) -> Row:
    """Time one generator for Llama-3-8B and measure what it adds at its peak; for a fresh process.

    The slots' gradients are there before, as a LoRA's would be; the vector of generated values is not counted.
    """
    m = n_values(LLAMA, rank)
    # Libraries, compiled functions and thread pools, first: from 17 qubits on circuits take the way of many.
    make(settings(kind, 64), lora_slots([(64, 64)], 4), device)()
    make(settings(kind, 1, n_circuits=1), lora_slots([(2**15 + 1, 2**15)], 2), device)()
    run = make(settings(kind, LLAMA_CHUNK), lora_slots(LLAMA, rank), device)
    peak = peak_bytes(run, device)
    times = take_turns({kind: run}, rounds, device, SCALE_SECONDS)[kind]
    return {"median_ms": medians({kind: times})[kind], "rounds": len(times), "added_bytes": peak - 4 * m}


def scale(kind: str, rank: int, rounds: int, device: str) -> Row:
    """Measure one generator for Llama-3-8B in a process of its own, or say why not."""
    m = n_values(LLAMA, rank)
    row = {"kind": kind, "rank": rank, "n_values": m, "chunk_size": LLAMA_CHUNK}
    row["n_qubits"] = settings(kind, LLAMA_CHUNK).generator_spec(m).n_qubits
    needed = 4 * m * 3  # the values, their gradients, frozen numbers below half of them, and some room
    if needed > (there := free_bytes(device)):
        return row | {"left_out": f"needs {needed / 1e9:.3g} GB of memory, and {there / 1e9:.3g} GB are free"}
    found = in_fresh_process(alone, kind, rank, rounds, device)
    return row | (found or {"left_out": "killed for lack of memory"})


def targets(rows: list[Row], scale_rows: list[Row], device: str) -> list[Target]:
    """Judge what was measured."""
    if device != "cpu":
        few = [row for row in rows if row["n_qubits"] <= 12]
        measured = {f"{kind}, chunk {r['chunk_size']}": 1e3 * r["median_ms"][kind] for r in few for kind in KINDS}
        return [worst("one generator, N <= 12", "<=", 150, measured, "us")]
    over = PAPER + OVER
    ratios = {f"chunk {r['chunk_size']}": r["over_ours"][over]["ratio"] for r in rows if over in r["over_ours"]}
    judged = [worst("paper's generator over TorchQuantum's", ">=", 12, ratios)]
    for rank, size in zip(LLAMA_RANKS, ("41.9 M values", "10^9 values"), strict=True):
        chosen = {r["kind"]: r for r in scale_rows if r["rank"] == rank and "left_out" not in r}
        megabytes = {kind: r["added_bytes"] / 1e6 for kind, r in chosen.items()}
        seconds = {kind: r["median_ms"] / 1e3 for kind, r in chosen.items()}
        judged.append(worst(f"{size}: memory added", "<=", MAX_MEGABYTES, megabytes, "MB"))
        judged.append(worst(f"{size}: time added", "<=", MAX_SECONDS, seconds, "s"))
    return judged


def tables(rows: list[Row], scale_rows: list[Row]) -> list[Table]:
    """Return the GPT-2 chunk sizes, a column each, and the large ones."""
    title = f"GPT-2, lm_head, r = {GPT2_RANK}: ours in ms (median), the others as multiples of it"
    table = Table("chunk size", *(str(row["chunk_size"]) for row in rows), title=title)
    table.add_row("qubits", *(str(row["n_qubits"]) for row in rows))
    for name in rows[0]["median_ms"]:
        over = [f"{row['over_ours'][name]['ratio']:.3g}x" for row in rows]
        table.add_row(name, *([f"{row['median_ms'][name]:.3g}" for row in rows] if name in KINDS else over))
        table.add_row("   operations", *(str(row["operations"][name]) for row in rows))
    large = Table(
        "generator", "rank", "values", "qubits", "rounds", "ms", "MB added", title="Llama-3-8B, all linear layers"
    )
    for row in scale_rows:
        found = (row["left_out"],) if "left_out" in row else _numbers(row)
        large.add_row(row["kind"], str(row["rank"]), f"{row['n_values']:,}", str(row["n_qubits"]), *found)
    return [table, large]


def _numbers(row: Row) -> tuple[str, ...]:
    return str(row["rounds"]), f"{row['median_ms']:.4g}", f"{row['added_bytes'] / 1e6:.1f}"


@in_style()
def plot(rows: list[Row], scale_rows: list[Row], path: Path) -> None:
    """Write times against the chunk size, and the large generators' time and memory against their values."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 5), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for i, name in enumerate(rows[0]["median_ms"]):
        points = [(row["chunk_size"], row["median_ms"][name]) for row in rows]
        left.plot(*zip(*points, strict=True), ":" if "no circuit" in name else "-", marker="osv^<>"[i], label=name)
    left.set(title=f"GPT-2, lm_head, r = {GPT2_RANK}", xlabel="chunk size", ylabel="ms", xscale="log", yscale="log")
    left.set_xticks(list(CHUNK_SIZES), [str(size) for size in CHUNK_SIZES])
    left.set_xticks([], minor=True)
    chosen = [row for row in scale_rows if "left_out" not in row]
    panels = ((middle, "median_ms", 1e3, "s", MAX_SECONDS), (right, "added_bytes", 1e6, "MB", MAX_MEGABYTES))
    for panel, key, per_unit, unit, bound in panels:
        for kind, marker in zip(KINDS, "o^", strict=True):
            points = [(row["n_values"], row[key] / per_unit) for row in chosen if row["kind"] == kind]
            panel.plot([x for x, _ in points], [y for _, y in points], marker=marker, label=kind)
        panel.axhline(bound, color="black", linewidth=0.8, linestyle="--", label=f"to reach: {bound:g} {unit}")
        panel.set(xlabel="generated values", ylabel=unit, xscale="log", yscale="log")
    middle.set_title(f"Llama-3-8B, all linear layers, chunk {LLAMA_CHUNK}: time")
    right.set_title("memory beyond the vector and its gradients")
    for panel in (left, middle, right):
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
    figure.suptitle("Generators, forward and backward (dotted: random numbers in the circuits' place)")
    figure.savefig(path, dpi=120)


def main() -> None:
    options = record.arguments(__doc__, "generator", "5", 20).parse_args()
    chunk_sizes, ranks = CHUNK_SIZES, LLAMA_RANKS
    if options.quick:
        chunk_sizes, ranks, options.rounds = (2048, 8192), (1,), 2
    record.prepare(options)
    why = SIMULATORS[TORCHQUANTUM].missing()
    missing = {TORCHQUANTUM: why} if why else {}
    scale_rows = [scale(kind, rank, options.rounds, options.device) for rank in ranks for kind in KINDS]
    rows = [compare(size, not missing, options.rounds, options.device) for size in chunk_sizes]
    judged = targets(rows, scale_rows, options.device)
    config = {"gpt2_rank": GPT2_RANK, "llama_chunk": LLAMA_CHUNK}
    record.write(options, config, missing, {"rows": rows, "scale": scale_rows}, judged)
    plot(rows, scale_rows, options.output.with_suffix(".png"))
    record.show(tables(rows, scale_rows), judged, missing, options.output)


if __name__ == "__main__":
    main()

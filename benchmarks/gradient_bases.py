"""What do sketched gradient bases cost, and are they as good? `python -m benchmarks.gradient_bases`, 15 minutes.

Memory is measured on real decoder layers in the shape of Llama-3-8B and added up for all of them; times on one linear
layer of that model and on the demo's base. `--quality 10 --data DATA` trains adapters on both kinds of bases on the
bench's tasks in ten seeds, which takes an hour on one core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import init_empty_weights
from peft import get_peft_model
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from benchmarks.bases import SHAPES, build
from benchmarks.measure import SEED, in_fresh_process, peak_bytes
from benchmarks.quality.fitting import fit
from benchmarks.quality.tasks import TASKS
from benchmarks.record import RESULTS, Target, worst, write
from qpa_hf import QPAConfig, initialize_basis
from qpa_hf.demo.arms import BASE
from qpa_hf.demo.data import blocks
from qpa_hf.generator import FrozenBases
from qpa_hf.models import bank_of
from qpa_hf.plan import plan
from qpa_hf.tuners.qpa.basis_cost import EXACT_BYTES, basis_cost, layer_sizes
from qpa_hf.tuners.qpa.gradient_basis import _without_adapters
from qpa_hf.tuners.qpa.passes import one_pass

WHOLE = 2**62  # bytes, more than any gradient has: never sketched
KINDS = {"whole": WHOLE, "sketched": 0}
SHAPE, N_LAYERS, RANK = "llama-3-8b", 32, 16
LAYERS = {"whole": (1, 2), "sketched": (2, 8)}  # decoder layers that are built; their difference is what one costs
N_WORDS = 1000  # of a small vocabulary: the output layer is not adapted, and its activations would hide the rest
N_DEMO = 256  # examples; each costs the same
N_TOKENS = 64  # of a batch where memory is measured; its activations are measured alone and taken off
BOUNDS = {"memory of 8B": 0.6, "memory of 70B": 3.0, "time, demo": 1.5, "time, one layer": 0.7, "quality": 0.003}
LLAMA_70B = {"hidden_size": 8192, "intermediate_size": 28_672, "num_hidden_layers": 80}
LAYER = (4096, 14_336)
QUALITY_RANKS, RATE = (20, 32), 1e-2
Row = dict[str, Any]


class _Idle:
    """Sums nothing: what the passes take by themselves."""

    def add(self, x: Tensor, grad: Tensor) -> None:
        pass


def _adapted(base: nn.Module, targets: Any, rank: int = RANK, task_type: str | None = "CAUSAL_LM") -> Any:
    config = QPAConfig(r=rank, basis="gradient", source="direct", target_modules=targets, task_type=task_type)
    return get_peft_model(base, config)


def _pieces(model: Any) -> FrozenBases:
    pieces = bank_of(model).pieces
    assert isinstance(pieces, FrozenBases)
    return pieces


def peak(n_layers: int, kind: str) -> int:
    """Return the peak memory of finding the bases of some decoder layers, activations included; alone for "passes"."""
    small = SHAPES[SHAPE]._replace(config=partial(SHAPES[SHAPE].config, vocab_size=N_WORDS))
    with patch.dict(SHAPES, {SHAPE: small}):
        model = _adapted(build(SHAPE, n_layers, "cpu"), "all-linear")
    ids = torch.randint(0, N_WORDS, (1, N_TOKENS), generator=torch.Generator().manual_seed(SEED))
    batches = [{"input_ids": ids, "labels": ids}] * 2
    torch.linalg.svd(torch.linalg.qr(torch.randn(64, 64))[0])  # libraries are loaded at their first use
    if kind == "passes":
        names = [key.removesuffix(".lora_A.weight") for key, *_ in model.peft_config["default"].layout if "_A." in key]
        with _without_adapters(model):
            return peak_bytes(lambda: one_pass(model, batches, {name: [_Idle()] for name in names}, None))
    return peak_bytes(lambda: initialize_basis(model, batches, exact_bytes=KINDS[kind], progress=False))


def memory() -> Row:
    """Return bytes of finding bases beside the model and its activations, by kind."""
    # glibc keeps what is freed for later, so that its fragments would count; above this size it gives all back.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"
    row: Row = {}
    for kind, (few, more) in LAYERS.items():
        found = {n: in_fresh_process(peak, n, kind) - in_fresh_process(peak, n, "passes") for n in (few, more)}
        one = (found[more] - found[few]) / (more - few)
        sizes = {n: layer_sizes(_pieces(_adapted(_empty(n), "all-linear"))) for n in (few, more, N_LAYERS)}
        planned = {n: basis_cost(each, KINDS[kind]).n_bytes for n, each in sizes.items()}
        row[kind] = {"measured": found, "planned": planned, "added_up": found[more] + (N_LAYERS - more) * one}
    return row


def _empty(n_layers: int) -> nn.Module:
    with init_empty_weights():
        return AutoModelForCausalLM.from_config(SHAPES[SHAPE].config(num_hidden_layers=n_layers))


class OneLayer(nn.Module):
    """A linear layer alone, in the type of the model's weights."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = nn.Linear(*LAYER, bias=False, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def _seconds(model: Any, batches: Any, kind: str, loss: Any = None) -> float:
    start = time.perf_counter()
    initialize_basis(model, batches, n_examples=1024, loss=loss, exact_bytes=KINDS.get(kind, EXACT_BYTES))
    return time.perf_counter() - start


def layer_times(dtype: torch.dtype, n_batches: int) -> Row:
    """Return the seconds of finding the bases of one linear layer from 512 tokens a batch, by kind."""
    weights = torch.linspace(0, 1, LAYER[1])
    rows = [{"x": torch.randn(4, 128, LAYER[0]).to(dtype)} for _ in range(n_batches)]
    return {
        kind: _seconds(
            _adapted(OneLayer(dtype), ["layer"], task_type=None),
            rows,
            kind,
            lambda model, batch: (model(**batch).float() * weights).square().mean(),
        )
        for kind in KINDS
    }


def demo_times(n_examples: int) -> Row:
    """Return the seconds of finding the bases of the demo's base, by kind, and by what is done unasked."""
    ids = blocks(AutoTokenizer.from_pretrained(BASE), held_out=False)
    ids = ids.repeat(-(-n_examples // len(ids)), 1)[:n_examples]
    batches = [{"input_ids": part, "labels": part} for part in ids.split(8)]
    targets = ["c_attn", "c_proj", "c_fc"]
    return {
        kind: _seconds(_adapted(AutoModelForCausalLM.from_pretrained(BASE), targets), batches, kind)
        for kind in ("unasked", *KINDS)
    }


def cosines(data: Path) -> Iterator[Row]:
    """Yield, for each of the bench's tasks and ranks, the cosines of the angles between both kinds of spaces."""
    for name in ("sst2", "wikitext"):
        task = TASKS[name](data, Path("build/quality"), False)
        for rank in QUALITY_RANKS:
            spans = []
            for exact_bytes in KINDS.values():
                torch.manual_seed(0)
                model = _adapted(task.base(), task.targets.modules, rank, task.targets.task_type)
                initialize_basis(model, task.batches(0), n_examples=task.n_basis, exact_bytes=exact_bytes)
                spans.append(list(_pieces(model).views(bank_of(model).generator.basis)))
            found = [
                torch.linalg.svdvals(torch.linalg.qr(one)[0].T @ torch.linalg.qr(other)[0])
                for (a, u), (b, v) in zip(*spans, strict=True)
                for one, other in ((a.T, b.T), (u, v))
            ]
            every = torch.stack(found)
            figures = {"mean_square": every.square().mean(), "median": every.median(), "worst": every.min()}
            yield {"task": name, "rank": rank} | {what: value.item() for what, value in figures.items()}


def quality(data: Path, n_seeds: int) -> Iterator[Row]:
    """Yield, for each task and rank, the test cross-entropies on both kinds of bases, and their paired differences."""
    for name in ("sst2", "wikitext"):
        task = TASKS[name](data, Path("build/quality"), False)
        for rank in QUALITY_RANKS:
            losses: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for seed in range(n_seeds):
                for kind, exact_bytes in KINDS.items():
                    targets: Row = {"target_modules": task.targets.modules, "task_type": task.targets.task_type}
                    config = QPAConfig(r=rank, basis="gradient", init_seed=seed, **targets)
                    fitted = fit(task, config, RATE, seed, "cpu", exact_bytes=exact_bytes)
                    losses[kind].append(task.evaluate(fitted.model, "test").metrics["cross_entropy"])
                    print(f"{name} r={rank} seed {seed} {kind}: {losses[kind][-1]:.4f}", flush=True)
            differences = [b - a for a, b in zip(*losses.values(), strict=True)]
            spread = statistics.stdev(differences) / n_seeds**0.5 if n_seeds > 1 else float("nan")
            half = float(student.ppf(0.975, max(1, n_seeds - 1))) * spread
            yield {
                "task": name,
                "rank": rank,
                **losses,
                "difference": statistics.mean(differences),
                "half_width": half,
            }


def _targets(found: Row) -> list[Target]:
    gb = 1e9
    targets = [
        worst(
            "Llama-3-8B, all linear, r = 16: memory",
            "<=",
            BOUNDS["memory of 8B"],
            {
                "planned": found["memory"]["sketched"]["planned"][N_LAYERS] / gb,
                "measured, added up": found["memory"]["sketched"]["added_up"] / gb,
            },
            "GB",
        ),
        worst("70B: memory", "<=", BOUNDS["memory of 70B"], {"planned": found["planned_70b"] / gb}, "GB"),
        worst(
            "demo's base: time",
            "<=",
            BOUNDS["time, demo"],
            {"unasked": found["demo"]["unasked"] / found["demo"]["whole"]},
        ),
        worst(
            "one layer of 4,096 x 14,336: time",
            "<=",
            BOUNDS["time, one layer"],
            {name: row["sketched"] / row["whole"] for name, row in found["layer"].items()},
        ),
    ]
    if found["quality"]:
        differences = {f"{row['task']}, r = {row['rank']}": abs(row["difference"]) for row in found["quality"]}
        targets.append(worst("quality: mean difference", "<=", BOUNDS["quality"], differences, "nats"))
    return targets


def _tables(found: Row) -> Iterator[Table]:
    memory = Table("gradients", "measured, layers", "planned", "32 layers, added up", "planned", title="Memory, MB")
    for kind, row in found["memory"].items():
        more = LAYERS[kind][1]
        sizes = (row["measured"][more], row["planned"][more], row["added_up"], row["planned"][N_LAYERS])
        cells = [f"{n / 1e6:,.0f}" for n in sizes]
        memory.add_row(kind, f"{more}: {cells[0]}", *cells[1:])
    yield memory
    times = Table("what", "whole", "sketched", "ratio", title="Seconds")
    for name, row in {"demo's base": found["demo"], **found["layer"]}.items():
        times.add_row(name, *(f"{row[kind]:.1f}" for kind in KINDS), f"{row['sketched'] / row['whole']:.2f}")
    yield times
    angles = Table("task", "r", "mean square", "median", "worst", title="Cosines of the angles between the spaces")
    for row in found["cosines"]:
        angles.add_row(row["task"], str(row["rank"]), *(f"{row[n]:.3f}" for n in ("mean_square", "median", "worst")))
    yield angles
    losses = Table("task", "r", "whole", "sketched", "difference", title="Test cross-entropy, nats")
    for row in found["quality"]:
        means = (f"{statistics.mean(row[kind]):.4f}" for kind in KINDS)
        losses.add_row(row["task"], str(row["rank"]), *means, f"{row['difference']:+.4f} ± {row['half_width']:.4f}")
    if found["quality"]:
        yield losses


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradient_bases", description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "gradient_bases.json", help="JSON file to write")
    parser.add_argument("--data", type=Path, help="folder of the bench's data, for angles and quality")
    parser.add_argument("--quality", type=int, default=0, help="seeds of the paired training runs (0: none)")
    parser.add_argument("--quick", action="store_true", help="fewer examples, to see that it runs")
    options = parser.parse_args()
    if options.quality and options.data is None:
        parser.error("`--quality` trains on the bench's tasks. Pass the folder that holds their data with --data.")
    torch.set_num_threads(1)
    config = QPAConfig(r=RANK, basis="gradient", target_modules="all-linear", task_type="CAUSAL_LM")
    shape = LlamaConfig(**LLAMA_70B, num_attention_heads=64, num_key_value_heads=8)
    types = (torch.bfloat16, torch.float32)
    found: Row = {
        "memory": memory(),
        "planned_8b": plan(config, SHAPES[SHAPE].config()).rows[0].basis_bytes,
        "planned_70b": plan(config, shape).rows[0].basis_bytes,
        "layer": {str(dtype).removeprefix("torch."): layer_times(dtype, 1 if options.quick else 4) for dtype in types},
        "demo": demo_times(16 if options.quick else N_DEMO),
        "cosines": list(cosines(options.data)) if options.data else [],
        "quality": list(quality(options.data, options.quality)) if options.quality else [],
    }
    targets = _targets(found)
    console = Console(width=120)
    for table in _tables(found):
        console.print(table)
    for target in targets:
        console.print(
            f"{target.what} {target.sign} {target.bound:g} {target.unit}: {target.measured:.3g}, {target.where}"
        )
    options.rounds, options.device = 1, "cpu"
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write(options, {"rank": RANK, "shape": SHAPE, "n_quality_seeds": options.quality}, {}, found, targets)
    print(f"Written: {options.output}")


if __name__ == "__main__":
    main()

"""The table of what configurations cost, for people, notebooks and programs."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from qpa_hf.plan.budget import Budget


@dataclass(frozen=True)
class PlanRow:
    """One configuration's sizes; counts are numbers, sizes are bytes."""

    chunk_size: int
    n_lora: int  # LoRA's own count at the same rank
    n_values: int  # numbers generated (m): as many, or the cores that stand on frozen bases
    n_chunks: int
    n_qubits: int
    n_circuits: int
    n_angles: int
    n_interpolation: int
    n_hidden: int
    n_output: int
    n_trainable: int  # in all stages together; what stands above is one stage's
    n_beside: int  # trained as they are: modules_to_save, biases, tokens' embeddings; in no other count
    measuring: Budget  # what the configuration's own estimator measures
    estimators: tuple[Budget, ...]  # what each one would; none without shots
    percent_of_target: float  # of the weights of the adapted layers
    percent_of_lora: float
    generator_flops: int  # one forward; the backward takes about twice as many
    generator_bytes: int  # at the peak of a forward and backward pass
    native_bytes: int
    materialized_bytes: int
    basis_bytes: int  # to find gradient bases, beside the model and its activations; 0 without them
    basis_passes: int  # over the examples, to find them


class Plan:
    """A table of `PlanRow`s; `str()` is for people, `to_dict()` for machines."""

    def __init__(self, rows: list[PlanRow]) -> None:
        self.rows = rows

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the same table, whose columns stay under each other."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dictionary for each row."""
        return [asdict(row) for row in self.rows]

    def __str__(self) -> str:
        columns = {
            name: column for name, column in COLUMNS.items() if name not in SELDOM or any(map(column, self.rows))
        }
        table = _aligned([list(columns), *([_cell(column(row)) for column in columns.values()] for row in self.rows)])
        n_values, n_lora = self.rows[0].n_values, self.rows[0].n_lora
        own = "LoRA's own count" if n_values == n_lora else f"LoRA itself: {n_lora:,}"
        n_beside = self.rows[0].n_beside
        beside = [f"Trained as they are beside it, and not counted: {n_beside:,} numbers"] if n_beside else []
        lines = [f"{n_values:,} numbers to generate ({own})", table, *beside, *self._finding(), *self._measuring()]
        return "\n".join(lines)

    def _finding(self) -> list[str]:
        """Return what finding gradient bases takes, in a line; nothing where there are none."""
        row = self.rows[0]
        if not row.basis_passes:
            return []
        n_passes = f"{row.basis_passes} pass{'es' * (row.basis_passes > 1)}"
        return [
            f"Finding the bases: {n_passes} over the examples, {_size(row.basis_bytes)} beside the model's own memory"
        ]

    def _measuring(self) -> list[str]:
        """Return what is measured, a line for each estimator; nothing where no shots are drawn."""
        lines = [
            [f"{row.chunk_size:,}", one.gradient + (" *" if one.gradient == row.measuring.gradient else "")]
            + [f"{getattr(one, name):,}" for name in COST_COLUMNS]
            for row in self.rows
            for one in row.estimators
        ]
        if not lines:
            return []
        n_steps = self.rows[0].measuring.n_steps
        return [
            f"Measured in {n_steps:,} step{'s' * (n_steps != 1)}, by estimator of the angles' gradient (*: this one); "
            "on a device one job more each time the adapter is evaluated or saved:",
            _aligned([["chunk", "estimator", *(name.replace("_per_", "/") for name in COST_COLUMNS)], *lines]),
        ]


# What `str(plan)` shows of a row; the columns in `SELDOM` only where one of them is not zero.
COLUMNS: dict[str, Callable[[PlanRow], Any]] = {
    "chunk": lambda r: r.chunk_size,
    "chunks": lambda r: r.n_chunks,
    "qubits": lambda r: r.n_qubits,
    "angles": lambda r: r.n_angles,
    "interpolation": lambda r: r.n_interpolation,
    "mapping": lambda r: r.n_hidden + r.n_output,
    "trainable": lambda r: r.n_trainable,
    "% target": lambda r: r.percent_of_target,
    "% LoRA": lambda r: r.percent_of_lora,
    "MFLOP": lambda r: r.generator_flops / 1e6,
    "memory": lambda r: _size(r.generator_bytes),
    "native": lambda r: _size(r.native_bytes),
    "materialized": lambda r: _size(r.materialized_bytes),
}
SELDOM = ("interpolation",)
COST_COLUMNS = tuple(f"{what}_per_{span}" for span in ("step", "run") for what in ("circuits", "shots", "jobs"))


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    raise AssertionError("unreachable")

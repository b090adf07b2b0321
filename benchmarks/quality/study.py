"""The quality bench as a study: adapters of a frozen base, trained and measured on one of its tasks."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peft import PeftConfig

from benchmarks.harness.fitting import MAX_NORM
from benchmarks.harness.study import Arm, Measure, Purpose, Row
from benchmarks.quality.arms import ARMS
from benchmarks.quality.fitting import WARMUP, fit
from benchmarks.quality.on_bases import Own
from benchmarks.quality.resampling import RESAMPLED, resampled
from benchmarks.quality.rivals import WITHOUT_ARM
from benchmarks.quality.task import Part, Task

CROSS_ENTROPY = Measure("cross_entropy", "nats")
# The test part chooses no rate; arms are chosen among by the development part of the final runs.
PARTS: dict[Purpose, tuple[Part, ...]] = {"tuning": ("development",), "final": ("development", "test")}
# Of a configuration: where it came from, not what it says.
NOT_SETTINGS = ("auto_mapping", "base_model_name_or_path", "peft_version", "revision", "layout")


@dataclass(frozen=True)
class Adapters:
    """A task and the adapters that are compared on it.

    Args:
        task: see `Task`.
        device: where torch computes.
    """

    task: Task
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.task.name

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that all results depend on."""
        return self.task.settings

    @property
    def measure(self) -> Measure:
        """Cross-entropy in nats."""
        return CROSS_ENTROPY

    @property
    def arms(self) -> Mapping[str, Arm]:
        """All arms; `make` takes the task's targets and a seed, and returns a configuration or None."""
        return ARMS

    def head(self) -> dict[str, Any]:
        """Return why other methods have no arm."""
        self.task.base()
        return {"without_arm": WITHOUT_ARM}

    def config(self, arm: str, seed: int) -> PeftConfig | Own | None:
        """Return a fresh configuration of the adapter, None for the base as it is."""
        return self.arms[arm].make(self.task.targets, seed)

    def identity(self, arm: str, seed: int) -> list[Any]:
        """Return the loop's settings and the adapter's."""
        return [{"warmup": WARMUP, "max_norm": MAX_NORM}, plain(self.config(arm, seed))]

    def about(self, arm: str) -> dict[str, Any]:
        """Return the adapter's configuration."""
        return {"config": plain(self.config(arm, 0))}

    def run(self, arm: str, purpose: Purpose, rate: float, seed: int) -> Row:
        """Train an adapter and measure it."""
        fitted = fit(self.task, self.config(arm, seed), rate, seed, self.device)
        row: Row = {"n_trainable": fitted.n_trainable, "seconds": round(fitted.seconds, 2)}
        row["train_loss"] = _finite(fitted.loss)
        for part in PARTS[purpose]:
            measured = self.task.evaluate(fitted.model, part)
            row[part] = {key: _finite(value) for key, value in measured.metrics.items()}
            if part == "test" and measured.losses.isfinite().all():
                row[RESAMPLED] = resampled(measured.losses)
        return row


def plain(config: PeftConfig | Own | None) -> dict[str, Any]:
    """Return a configuration's settings as JSON has them."""
    settings = {} if config is None else config.to_dict()
    return {key: _plain(value) for key, value in settings.items() if key not in NOT_SETTINGS}


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

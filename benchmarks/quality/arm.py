"""An arm of the comparison: a configuration for the targets of a task, and what it is to the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from peft import PeftConfig

from benchmarks.quality.task import Targets


@dataclass(frozen=True)
class Arm:
    """One method at one size.

    Args:
        family: whom it stands for in verdicts and colours.
        config: returns the adapter's configuration for some targets and a seed, None for the base as it is; raises
            ValueError, with the reason, where the method cannot be applied.
        control_of: the arm whose circuits it replaces.
    """

    family: str
    config: Callable[[Targets, int], PeftConfig | None]
    control_of: str | None = None

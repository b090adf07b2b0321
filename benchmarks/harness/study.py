"""What a study says of itself; everything else is the harness's: which runs, their files, what they come to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Row = dict[str, Any]
Purpose = Literal["tuning", "final"]


@dataclass(frozen=True)
class Arm:
    """One method at one size.

    Args:
        family: whom it stands for in verdicts and colours.
        make: makes what is trained; its arguments are the study's own.
        control_of: the arm that it answers.
        rates: learning rates, or another hyperparameter's values, that it chooses from; None for the protocol's.
        tuned_as: another arm, whose choice it takes; None to choose for itself.
        is_random: whether a seed changes anything; if not, one run is reported.
    """

    family: str
    make: Callable[..., Any]
    control_of: str | None = None
    rates: tuple[float, ...] | None = None
    tuned_as: str | None = None
    is_random: bool = True


@dataclass(frozen=True)
class Measure:
    """What runs are judged by.

    Args:
        name: key of what a run's parts report.
        unit: "%" for a share, or a unit such as "nats".
        is_higher_better: whether more of it is better.
        chosen_by: key by which rates are chosen, lower is better; empty for the measure itself.
    """

    name: str
    unit: str
    is_higher_better: bool = False
    chosen_by: str = ""

    def loss(self, row: Row) -> float:
        """Return a reported run's measure, with a minus where more is better; a diverged run's is infinite."""
        return self._loss(row, "test", self.name)

    def score(self, row: Row) -> float:
        """Return what a run is judged by where rates are chosen: lower is better."""
        return self._loss(row, "development", self.chosen_by or self.name)

    def _loss(self, row: Row, part: str, name: str) -> float:
        if "diverged" in row:
            return math.inf
        value = row.get(part, {}).get(name)
        if value is None:
            return math.nan
        return -value if self.is_higher_better and name == self.name else value


class Study(Protocol):
    """One task and its arms. Implementations are frozen dataclasses: processes build their own copy."""

    @property
    def name(self) -> str:
        """Name of the task."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that all results depend on, without paths of this machine."""

    @property
    def measure(self) -> Measure:
        """What runs are judged by."""

    @property
    def arms(self) -> Mapping[str, Arm]:
        """All arms, in the order of the file."""

    def head(self) -> dict[str, Any]:
        """Return what else the file says. It is asked for before any run, so that bad input stops here."""

    def identity(self, arm: str, seed: int) -> list[Any]:
        """Return what, besides the settings, a run's result depends on, as JSON has it."""

    def about(self, arm: str) -> dict[str, Any]:
        """Return what the file says of an arm."""

    def run(self, arm: str, purpose: Purpose, rate: float, seed: int) -> Row:
        """Train and measure: `n_trainable`, `seconds`, and the measures on "development", "test" or both.

        Raises:
            ArithmeticError: if the run diverges.
        """

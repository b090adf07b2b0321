"""What tasks are measured by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One number that says how good a model is.

    Args:
        name: its identifier, as in cards.
        is_lower_better: whether less of it is better.
        n_digits: the digits after the point that are shown.
    """

    name: str
    is_lower_better: bool
    n_digits: int

    def shown(self, value: float) -> str:
        """Return a value as people read it."""
        return f"{value:.{self.n_digits}f}"

    def exact(self, value: float) -> str:
        """Return a value with one digit more."""
        return f"{value:.{self.n_digits + 1}f}"


PERPLEXITY = Metric("perplexity", True, 2)
ACCURACY = Metric("accuracy", False, 4)
F1 = Metric("f1", False, 4)
LOSS = Metric("loss", True, 4)

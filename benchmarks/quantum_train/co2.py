"""Atmospheric carbon dioxide at Mauna Loa, shipped with statsmodels, and an LSTM that predicts the next month."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.quantum_train.task import Part, batches

YEAR = 12  # months
WINDOW = 2 * YEAR
N_MONTHS = {"development": 84, "test": 84}  # the last ones, seven years each; all before are for training


@lru_cache(maxsize=1)
def changes() -> Tensor:
    """Return the monthly means' change from month to month in ppm, shape (n_months - 1,); five gaps interpolated."""
    from statsmodels.datasets import co2

    monthly = co2.load_pandas().data["co2"].resample("MS").mean().interpolate()
    return torch.tensor(np.diff(monthly.to_numpy()), dtype=torch.float32)


@lru_cache(maxsize=1)
def load() -> dict[str, tuple[Tensor, Tensor]]:
    """Return windows of changes, shape (n, WINDOW), and the change that follows, shape (n,), in order of time."""
    rows = changes().unfold(0, WINDOW + 1, 1)
    n_train = len(rows) - sum(N_MONTHS.values())
    train, development, test = rows.split([n_train, N_MONTHS["development"], N_MONTHS["test"]])
    parts = {"train": train, "development": development, "test": test}
    return {part: (found[:, :-1], found[:, -1]) for part, found in parts.items()}


class Forecaster(nn.Module):
    """An LSTM over a window of changes and a linear layer on its last state; takes and returns ppm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, width, batch_first=True)
        self.head = nn.Linear(width, 1)

    def forward(self, windows: Tensor) -> Tensor:
        """Return the next change, shape (n,), after windows of shape (n, WINDOW)."""
        states, _ = self.lstm(windows.unsqueeze(-1))
        return self.head(states[:, -1]).squeeze(-1)


@dataclass(frozen=True)
class Co2:
    """One month ahead; the measure is the root of the mean squared error in ppm, over the last seven years."""

    n_steps: int = 300
    batch_size: int = 32
    width: int = 32

    name: ClassVar = "co2"
    network: ClassVar = "LSTM and a linear layer"
    measure: ClassVar = "error"
    unit: ClassVar = "ppm"
    is_higher_better: ClassVar = False
    n_tuning: ClassVar = 1

    def build(self, width: int) -> nn.Module:
        """Return a forecaster with `width` hidden states."""
        return Forecaster(width)

    def losses(self, model: nn.Module, seed: int) -> Iterator[Tensor]:
        """Yield the mean squared error of one batch after the other."""
        windows, following = load()["train"]
        for rows in batches(len(following), self.batch_size, self.n_steps, seed):
            yield F.mse_loss(model(windows[rows]), following[rows])

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Part) -> dict[str, float]:
        """Return the mean squared error as `loss`, and its root."""
        windows, following = load()[part]
        return _errors(model(windows), following)

    def references(self) -> dict[str, float]:
        """Return the errors of no change, of last year's change, and of a linear autoregression on the window."""
        windows, following = load()["test"]
        train, target = load()["train"]
        ones = [torch.cat([x, torch.ones(len(x), 1)], dim=1) for x in (train, windows)]
        coefficients = torch.linalg.lstsq(ones[0], target.unsqueeze(1)).solution
        predictions = {
            "persistence": torch.zeros_like(following),
            "same month of last year": windows[:, -YEAR],
            f"linear autoregression ({WINDOW + 1} numbers)": (ones[1] @ coefficients).squeeze(1),
        }
        return {name: _errors(found, following)["error"] for name, found in predictions.items()}


def _errors(predicted: Tensor, following: Tensor) -> dict[str, float]:
    loss = F.mse_loss(predicted, following).item()
    return {"loss": loss, "error": loss**0.5}

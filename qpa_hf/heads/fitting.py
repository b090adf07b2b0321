"""Train a head on embeddings that are already computed."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from qpa_hf.heads.head import QuantumHead
from qpa_hf.reproducible import seeded


def fit_head(
    head: QuantumHead,
    embeddings: Tensor,
    labels: Tensor,
    n_epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: int = 0,
    weights: Tensor | None = None,
) -> None:
    """Minimise the cross-entropy by Adam, with a learning rate that falls to zero along a cosine.

    Args:
        head: the head, which is trained in place and left in evaluation mode.
        embeddings: the embeddings, shape (n_rows, n_features), on the head's device.
        labels: the class indices, shape (n_rows,).
        n_epochs: the number of passes over the rows.
        learning_rate: the learning rate of the first step.
        batch_size: the number of rows in a training step.
        seed: the seed of the order of the rows.
        weights: how much each row counts, shape (n_rows,), with a mean of 1; None for all alike.
    """
    rng = seeded(seed, "order")
    optimizer = optimizer_of(head, learning_rate)
    n_steps = n_epochs * math.ceil(len(labels) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in range(n_epochs):
        for _ in one_pass(head, optimizer, embeddings, labels, batch_size, rng, weights):
            schedule.step()


def optimizer_of(head: QuantumHead, learning_rate: float) -> torch.optim.Optimizer:
    """Return the optimizer of a head's trained parameters."""
    return torch.optim.Adam([p for p in head.parameters() if p.requires_grad], lr=learning_rate)


def one_pass(
    head: QuantumHead,
    optimizer: torch.optim.Optimizer,
    embeddings: Tensor,
    labels: Tensor,
    batch_size: int,
    rng: torch.Generator,
    weights: Tensor | None = None,
) -> Iterator[None]:
    """Train on each row once, and yield after each step.

    Args:
        head: the head, which is left in evaluation mode.
        optimizer: that of its parameters.
        embeddings: the embeddings, shape (n_rows, n_features), on the head's device.
        labels: the class indices, shape (n_rows,).
        batch_size: the number of rows in a training step.
        rng: what draws the order of the rows.
        weights: as for `fit_head`.
    """
    head.train()
    for rows in torch.randperm(len(labels), generator=rng).to(labels.device).split(batch_size):
        if weights is None:
            loss = F.cross_entropy(head(embeddings[rows]), labels[rows])
        else:
            # Divided by the number of rows, not by their weights: a batch of light rows counts for less.
            loss = (weights[rows] * F.cross_entropy(head(embeddings[rows]), labels[rows], reduction="none")).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield
    head.eval()

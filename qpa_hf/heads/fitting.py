"""Train a head on embeddings that are already computed."""

from __future__ import annotations

import math

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
    """
    rng = seeded(seed, "order")
    optimizer = torch.optim.Adam([p for p in head.parameters() if p.requires_grad], lr=learning_rate)
    n_steps = n_epochs * math.ceil(len(labels) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    head.train()
    for _ in range(n_epochs):
        for rows in torch.randperm(len(labels), generator=rng).to(labels.device).split(batch_size):
            loss = F.cross_entropy(head(embeddings[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    head.eval()

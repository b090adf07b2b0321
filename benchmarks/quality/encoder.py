"""The part of an encoder that is run for every arm: its top layers, and sentences as what enters them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import BertModel
from transformers.modeling_outputs import SequenceClassifierOutput

from benchmarks.quality.task import Batch

EVALUATION_BATCH = 128
HEAD_L2 = 1e-3  # weight of the squared norm in the head's loss; of 1e-4 to 1e-2 the best on the development sentences
HEAD_STEPS = 200


class TopEncoder(nn.Module):
    """The top layers of a BERT and a linear classifier on the mean of the tokens."""

    def __init__(self, bert: BertModel, n_top: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(bert.encoder.layer[-n_top:])
        self.classifier = nn.Linear(bert.config.hidden_size, 2)

    def pooled(self, hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean over the tokens of a sentence, shape (n_rows, width)."""
        for layer in self.layers:
            hidden_states = layer(hidden_states, attention_mask[:, None, None, :])
        weights = attention_mask.unsqueeze(-1).to(hidden_states.dtype)
        return (hidden_states * weights).sum(1) / weights.sum(1)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Classify sentences given by what enters the top layers.

        Args:
            hidden_states: shape (n_rows, length, width).
            attention_mask: True at tokens, shape (n_rows, length).
            labels: 0 or 1, shape (n_rows,).
        """
        logits = self.classifier(self.pooled(hidden_states, attention_mask))
        return SequenceClassifierOutput(None if labels is None else F.cross_entropy(logits, labels), logits)


@dataclass(frozen=True)
class Rows:
    """Sentences as what enters the top layers: tokens end to end, without padding.

    Args:
        tokens: shape (n_tokens, width), float16: half the file, and the same rounding for every arm.
        lengths: tokens of each sentence, shape (n_rows,).
        labels: shape (n_rows,).
    """

    tokens: Tensor
    lengths: Tensor
    labels: Tensor

    def batch(self, rows: Tensor) -> Batch:
        """Return some rows, padded to the longest of them."""
        ends = self.lengths.cumsum(0)
        parts = [self.tokens[ends[i] - self.lengths[i] : ends[i]].float() for i in rows]
        mask = torch.arange(int(self.lengths[rows].max())) < self.lengths[rows].unsqueeze(1)
        hidden = pad_sequence(parts, batch_first=True)  # (n_rows, length, width)
        return {"hidden_states": hidden, "attention_mask": mask, "labels": self.labels[rows]}

    def sorted_batches(self, rows: Tensor, size: int) -> list[Tensor]:
        """Cut rows into batches of rows of similar length."""
        return list(rows[self.lengths[rows].argsort(stable=True)].split(size))


def fit_head(base: TopEncoder, rows: Rows) -> None:
    """Fit the classifier on the frozen base, see `fit_linear`."""
    with torch.no_grad():
        order = rows.sorted_batches(torch.arange(len(rows.labels)), EVALUATION_BATCH)
        batches = [rows.batch(some) for some in order]
        features = torch.cat([base.pooled(b["hidden_states"], b["attention_mask"]) for b in batches])
    labels = torch.cat([b["labels"] for b in batches])
    fit_linear(base.classifier, features, labels)


def fit_linear(head: nn.Linear, features: Tensor, labels: Tensor) -> None:
    """Fit a classifier by logistic regression, to convergence, starting from zero.

    Args:
        head: the classifier; it comes out frozen.
        features: shape (n_rows, width).
        labels: shape (n_rows,).
    """
    head.requires_grad_(True)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=HEAD_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(head(features), labels) + HEAD_L2 * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    head.requires_grad_(False)

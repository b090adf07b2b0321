"""Sentences of SST-2 as embeddings of all-MiniLM-L6-v2, computed once and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, BertModel

from benchmarks.quality.sst2 import PACKAGE, encoder_folder, read_rows
from qpa_hf.files import replacing

BATCH = 128
LENGTH = 256  # tokens, the encoder's own limit


@dataclass(frozen=True)
class Sentences:
    """Sentences as a classifier head sees them.

    Args:
        embeddings: unit vectors, shape (n_rows, width).
        labels: 0 or 1, shape (n_rows,).
    """

    embeddings: Tensor
    labels: Tensor

    def __getitem__(self, rows: Tensor) -> Sentences:
        return Sentences(self.embeddings[rows], self.labels[rows])

    def __len__(self) -> int:
        return len(self.labels)


@torch.no_grad()
def embed(texts: list[str], folder: Path) -> Tensor:
    """Return the encoder's sentence embeddings: the mean over the tokens, scaled to length 1.

    Args:
        texts: sentences.
        folder: of the encoder.

    Returns:
        Shape (n_texts, width).
    """
    bert = BertModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
    found = torch.empty(len(texts), bert.config.hidden_size)
    for rows in torch.tensor(order).split(BATCH):
        some = [texts[i] for i in rows]
        batch = tokenizer(some, truncation=True, max_length=LENGTH, padding=True, return_tensors="pt")
        mask = batch["attention_mask"].unsqueeze(-1)
        states = bert(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        found[rows] = F.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    return found


def load(file: Path, cache: Path) -> Sentences:
    """Return a file of SST-2, from the cache if it has been embedded before.

    Args:
        file: `train.tsv` or `dev.tsv`.
        cache: folder for the embeddings.
    """
    rows = read_rows(file)
    path = cache / f"{PACKAGE}-{file.stem}.pt"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            torch.save(embed([text for text, _ in rows], encoder_folder()), partial)
    return Sentences(torch.load(path), torch.tensor([label for _, label in rows]))

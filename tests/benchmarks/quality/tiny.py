"""The tasks of the quality bench in miniature: the same code on random encoders and the demo's base."""

from pathlib import Path

import numpy
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast, ViTConfig, ViTForImageClassification

from benchmarks.quality.mnist import Mnist
from benchmarks.quality.sst2 import Sst2
from benchmarks.quality.wikitext import Wikitext

GOOD, BAD, PLAIN = ("fine", "warm", "bright"), ("dull", "cold", "stale"), ("a", "film", "of", "the", "night")


def sst2(folder: Path) -> Sst2:
    """Write a random encoder and sentences whose label is a word in them; return the task on both."""
    _write_encoder(folder / "encoder")
    rng = torch.Generator().manual_seed(0)
    for name, n_rows in (("train", 60), ("dev", 20)):
        rows = [_sentence(rng) for _ in range(n_rows)]
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n", encoding="utf-8")
    sizes = {"n_train": 40, "n_development": 20, "batch_size": 8, "n_top": 1, "n_basis": 16}
    return Sst2(folder, folder / "cache", folder / "encoder", **sizes)


def _sentence(rng: torch.Generator) -> str:
    def pick(words: tuple[str, ...]) -> str:
        return words[int(torch.randint(len(words), (1,), generator=rng))]

    is_good = bool(torch.randint(2, (1,), generator=rng))
    n_words = int(torch.randint(1, 9, (1,), generator=rng))
    words = [pick(PLAIN) for _ in range(n_words)] + [pick(GOOD if is_good else BAD)]
    return f"{' '.join(words)}\t{int(is_good)}"


def _write_encoder(folder: Path) -> None:
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *PLAIN]
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)


def wikitext(folder: Path, adapted: str) -> Wikitext:
    """Write two texts; return the task on them and on the base that ships with the demo."""
    for name, n_lines in (("valid", 60), ("test", 20)):
        lines = [f"Line {i} of the {name} text says that {i} is a number ." for i in range(n_lines)]
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sizes = {"length": 32, "batch_size": 2, "steps": 2, "test_share": 4, "padded_share": 16, "n_basis": 4}
    return Wikitext("wikitext", folder, adapted, **sizes)


def mnist(folder: Path) -> Mnist:
    """Write a random vision transformer and random images; return the task on both."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(image_size=28, patch_size=14, num_channels=1, num_labels=62, **sizes)
    ViTForImageClassification(config).save_pretrained(folder / "vit")
    images = torch.randint(256, (80, 785), generator=torch.Generator().manual_seed(0))
    images[:, -1] %= 10
    numpy.savetxt(folder / "images.csv.gz", images.numpy(), fmt="%d", delimiter=",")
    parts = {"n_train": 40, "n_development": 16, "n_test": 24, "n_epochs": 1, "batch_size": 8, "n_basis": 16}
    return Mnist(folder / "images.csv.gz", folder / "vit", **parts)

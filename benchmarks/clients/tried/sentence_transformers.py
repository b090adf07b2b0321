"""sentence-transformers: an encoder with an adapter is trained, kept in checkpoints, loaded, and used plain."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.losses import MultipleNegativesRankingLoss
from torch import Tensor
from transformers import BertConfig, BertModel

from benchmarks.clients import tiny
from benchmarks.clients.arms import Arm
from benchmarks.clients.figures import Figure, difference, expect_moved, trained
from benchmarks.clients.plain import without_us
from benchmarks.clients.tried.transformers import arguments
from qpa_hf import QPAConfig, initialize_basis, materialize

TARGETS = ["query", "value"]
ALONE = """
from sentence_transformers import SentenceTransformer
base, adapter, texts = asked
model = SentenceTransformer(base, device="cpu")
if adapter: model.load_adapter(adapter)
answer = model.encode(texts, convert_to_tensor=True).cpu()
"""


def save_encoder(folder: Path) -> Path:
    """Save a small BERT with its pooling, as sentence-transformers has it."""
    words = tiny.tokenizer()
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
    torch.manual_seed(7)
    bert = BertModel(BertConfig(**sizes, vocab_size=len(words), initializer_range=0.2, pad_token_id=2))
    bert.save_pretrained(folder / "bert")
    words.save_pretrained(folder / "bert")
    SentenceTransformer(str(folder / "bert"), device="cpu").save_pretrained(str(folder / "encoder"))
    return folder / "encoder"


def embedded(model: SentenceTransformer) -> Tensor:
    """Return the sentences' embeddings."""
    return model.encode(list(tiny.SENTENCES), convert_to_tensor=True).cpu()


def adapted(arm: Arm, base: Path) -> SentenceTransformer:
    """Return the encoder with an adapter in it."""
    torch.manual_seed(1)
    model = SentenceTransformer(str(base), device="cpu")
    model.add_adapter(arm.config(target_modules=TARGETS, task_type="FEATURE_EXTRACTION"))
    if arm.has_gradient_bases:
        batches = [{k: v for k, v in batch.items() if k != "labels"} for batch in tiny.batches()]
        initialize_basis(model[0].model, batches, loss=contrast)
    return model


def contrast(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Return a loss that sets sentences apart."""
    vectors = torch.nn.functional.normalize(model(**batch).last_hidden_state.mean(1), dim=-1)
    return torch.nn.functional.cross_entropy(10 * vectors @ vectors.T, torch.arange(len(vectors)))


def trainer(arm: Arm, base: Path, folder: Path) -> SentenceTransformerTrainer:
    """Return the trainer of an encoder on pairs of sentences."""
    model = adapted(arm, base)
    pairs = Dataset.from_list([{"anchor": text, "positive": text[::-1]} for text in tiny.SENTENCES])
    settings = arguments(folder).to_dict() | {"report_to": "none"}
    kept = ("max_steps", "save_steps", "per_device_train_batch_size", "learning_rate", "use_cpu", "disable_tqdm")
    asked = SentenceTransformerTrainingArguments(
        output_dir=str(folder), report_to="none", **{name: settings[name] for name in kept}
    )
    return SentenceTransformerTrainer(
        model=model, args=asked, train_dataset=pairs, loss=MultipleNegativesRankingLoss(model)
    )


def checkpoint(arm: Arm, folder: Path) -> list[Figure]:
    """Train, load the last checkpoint by `SentenceTransformer(checkpoint)`, save, and load again."""
    base = save_encoder(folder)
    run = trainer(arm, base, folder / "run")
    start = trained(run.model)
    run.train()
    expect_moved(run.model, start)
    expected = embedded(run.model)
    again = SentenceTransformer(str(folder / "run" / "checkpoint-4"), device="cpu")
    figures = [difference("embeddings of the checkpoint", embedded(again), expected)]
    run.model.save_pretrained(str(folder / "saved"))
    saved = SentenceTransformer(str(folder / "saved"), device="cpu")
    return [*figures, difference("embeddings of what was saved", embedded(saved), expected)]


def plain(arm: Arm, folder: Path) -> list[Figure]:
    """Train, and use the plain, portable adapter without qpa_hf."""
    base = save_encoder(folder)
    run = trainer(arm, base, folder / "run")
    run.train()
    target = folder / "plain"
    if arm.kind is QPAConfig:
        materialize(run.model, target, portable=True)
    else:
        run.model[0].model.save_pretrained(target)
    alone = without_us(ALONE, [str(base), str(target), list(tiny.SENTENCES)], folder / "answer.pt")
    return [difference("embeddings of the plain adapter", alone, embedded(run.model))]


def resume(arm: Arm, folder: Path) -> list[Figure]:
    """Train four steps, and two and two with a checkpoint between."""
    base = save_encoder(folder)
    straight, resumed = (trainer(arm, base, folder / name) for name in ("run", "again"))
    straight.train()
    resumed.train(resume_from_checkpoint=str(folder / "run" / "checkpoint-2"))
    return [difference("parameters after resuming", trained(resumed.model), trained(straight.model))]


CASES: dict[str, Callable[..., list[Figure]]] = {
    "add_adapter, train, SentenceTransformer(checkpoint)": checkpoint,
    "portable adapter": plain,
    "resume": resume,
}

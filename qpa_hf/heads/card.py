"""The card of a saved head."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from qpa_hf._version import __version__
from qpa_hf.heads.settings import HeadSettings
from qpa_hf.model_cards import MARKER, RunRecord

TEMPLATE = Path(__file__).parent / "card.md"


def head_card(settings: HeadSettings, n_trained: dict[str, int], record: RunRecord | None = None) -> ModelCard:
    """Return the card of a head: how to load it, what was trained, what the run recorded.

    Args:
        settings: of the head.
        n_trained: trained numbers by part.
        record: what the run recorded; nothing is said where it is silent.
    """
    record = record or RunRecord()
    data = ModelCardData(
        datasets=record.datasets or None,
        language=record.language or None,
        library_name="qpa_hf",
        license=record.license,
        pipeline_tag="text-classification",
        tags=["quantum-head", "model_hub_mixin"],
    )
    return ModelCard.from_template(
        data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        version=__version__,
        marker=MARKER,
        repo_id=record.repo_id or "path/to/this/folder",
        settings=asdict(settings),
        n_trained={name: f"{n:,}" for name, n in n_trained.items()} | {"all": f"{sum(n_trained.values()):,}"},
        run=record,
    )

"""The card of a saved head."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from qpa_hf._version import __version__
from qpa_hf.heads.settings import HeadSettings
from qpa_hf.messages import one_line
from qpa_hf.model_cards import MARKER, RunRecord
from qpa_hf.model_cards.markdown import Markdown, in_code, render

TEMPLATE = Path(__file__).parent / "card.md"


def head_card(settings: HeadSettings, n_trained: dict[str, int], record: RunRecord | None = None) -> ModelCard:
    """Return the card of a head: how to load it, what was trained, what the run recorded.

    Args:
        settings: the settings of the head.
        n_trained: the number of trained parameters of each part.
        record: the record of the run; the card says nothing where it is silent.
    """
    record = record or RunRecord()
    data = ModelCardData(
        datasets=[one_line(name) for name in record.datasets] or None,
        language=[one_line(code) for code in record.language] or None,
        library_name="qpa_hf",
        license=None if record.license is None else one_line(record.license),
        pipeline_tag="text-classification",
        tags=["quantum-head", "model_hub_mixin"],
    )
    return render(
        data,
        TEMPLATE.read_text(encoding="utf-8"),
        version=__version__,
        marker=Markdown(MARKER),
        repo_id=in_code(record.repo_id or "path/to/this/folder"),
        settings=asdict(settings),
        n_trained={name: f"{n:,}" for name, n in n_trained.items()} | {"all": f"{sum(n_trained.values()):,}"},
        run=record,
    )

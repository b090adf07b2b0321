"""Fill the card of a native, a materialized or a folded adapter."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from peft import PeftConfig

from qpa_hf._version import __version__
from qpa_hf.checkpoint import write_text
from qpa_hf.messages import one_line
from qpa_hf.model_cards.facts import generator_facts
from qpa_hf.model_cards.markdown import Markdown, render, render_part, rounded
from qpa_hf.model_cards.program import base_of, program, task_of
from qpa_hf.model_cards.record import RECORD_NAME, RunRecord
from qpa_hf.tuners.qpa.config import QPAConfig
from qpa_hf.tuners.registration import after_saving

FOLDER = Path(__file__).parent
CARD_NAME = "README.md"
TEMPLATES = {
    "native": ("native.md", "loading.md", "generator.md", "run.md", "citation.md"),
    "materialized": ("materialized.md", "generator.md", "run.md", "citation.md"),
    "portable": ("materialized.md", "generator.md", "run.md", "citation.md"),
    "folded": ("folded.md", "run.md"),
}
NAMES = {"LORA": "LoRA", "IA3": "IA3"}  # methods whose names are no common words
UNFILLED = "[More Information Needed]"  # in the template of PEFT's own card, which it writes before ours
# What PEFT adds to that template: its version, and how the base is quantised.
ADDED_BY_PEFT = re.compile(
    r"### Framework versions|- PEFT [\d.]+\S*|## Training procedure|The following `.*` quantization config was used.*"
    r"|- _?(quant_method|load_in_\dbit|llm_int8_\w+|bnb_4bit_\w+): .*"
)
MARKER = (
    f"<!-- Written by qpa_hf {__version__}. Remove this line to keep your changes when the adapter is saved again. -->"
)
OUR_MARK = re.compile(rf"^{re.escape(MARKER.partition(f' {__version__}')[0])}", re.MULTILINE)  # of any version

OWN_METHODS = ("BOTTLENECK",)  # which peft knows only after `import qpa_hf`


def make_card(kind: str, config: PeftConfig, record: RunRecord | None = None, method: str = "LORA") -> ModelCard:
    """Return the card of an adapter: how to load it, what was trained, what the run recorded.

    Args:
        kind: a key of `TEMPLATES`: "native" (a generator), "materialized" (the plain adapter that it generates),
            "portable" (the same with all scales in B), or "folded" (a feed-forward adapter that is a LoRA and had no
            generator).
        config: configuration of the generator, with the layout that training wrote; of the LoRA if "folded".
        record: what the run recorded; nothing is said where it is silent.
        method: PEFT's name for the method whose tensors are generated.

    Example:
        >>> layout = [["0.lora_A.weight", [8, 64], None]]  # what training writes: the generated tensors
        >>> config = QPAConfig(target_modules=["0"], base_model_name_or_path="me/base", layout=layout)
        >>> card = make_card("native", config, RunRecord(license="cc0-1.0"))
        >>> card.data.base_model, card.data.license
        ('me/base', 'cc0-1.0')
    """
    record = record or RunRecord()
    base, is_on_hub = base_of(config, record.base_model)
    tags = [method.lower().replace("_", "-")]
    is_own = method in OWN_METHODS
    generated: dict[str, Any] = {}
    if isinstance(config, QPAConfig):
        tags.append("qpa")
        generated = generator_facts(config, record, method)
    return render(
        _metadata(config, record, base if is_on_hub else "", tags),
        "".join((FOLDER / name).read_text(encoding="utf-8") for name in TEMPLATES[kind]),
        marker=Markdown(MARKER),
        base=base,
        method=NAMES.get(method, method.replace("_", " ").lower()),
        is_own=is_own,
        is_portable=kind == "portable",
        load=program(
            config, kind == "native" or is_own, record.repo_id, record.labels, record.task, record.base_model
        ),
        run=record,
        training=_training(record),
        **generated,
    )


def loading(config: QPAConfig, folder: str) -> str:
    """Return the part of a native adapter's card that says how to load it, for a card that is not ours.

    Args:
        config: the generator's configuration.
        folder: where the adapter lies.
    """
    values = generator_facts(config, RunRecord(), "LORA") | {"load": program(config, True, folder)}
    return render_part((FOLDER / "loading.md").read_text(encoding="utf-8"), values)


def write_card(
    kind: str,
    folder: str | os.PathLike[str],
    config: PeftConfig,
    record: RunRecord | None = None,
    method: str = "LORA",
) -> None:
    """Write an adapter's card and its record beside it.

    A card that a person has written is kept. Without a record, that of an earlier adapter in the folder is removed.

    Raises:
        IsADirectoryError: if one of the two is a directory; nothing is written then.

    Example:
        >>> import tempfile
        >>> layout = [["0.lora_A.weight", [8, 64], None]]  # what training writes: the generated tensors
        >>> config = QPAConfig(target_modules=["0"], base_model_name_or_path="me/base", layout=layout)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_card("native", folder, config, RunRecord(license="cc0-1.0"))
        ...     sorted(path.name for path in Path(folder).iterdir()), is_ours(Path(folder) / "README.md")
        (['README.md', 'qpa_run.json'], True)
    """
    path = Path(folder) / CARD_NAME
    for taken in (path, Path(folder) / RECORD_NAME):
        if taken.is_dir():
            raise IsADirectoryError(f"{taken} is a directory, where a file belongs. Move it away.")
    if not path.is_file() or is_ours(path):
        write_text(path, str(make_card(kind, config, record, method)))
    if record is None:
        (Path(folder) / RECORD_NAME).unlink(missing_ok=True)
    else:
        write_text(Path(folder) / RECORD_NAME, record.to_json())


def is_ours(card: Path) -> bool:
    """Whether no person has taken over a card: it has our mark, or is PEFT's empty one.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     card = Path(folder) / "README.md"
        ...     _ = card.write_text("# My adapter")
        ...     is_ours(card)
        False
    """
    text = card.read_text(encoding="utf-8", errors="replace")
    return bool(OUR_MARK.search(text)) or (UNFILLED in text and _is_empty(text))


def _is_empty(text: str) -> bool:
    """Whether a card says nothing beyond the template that PEFT fills."""
    template = set(ModelCard.from_template(ModelCardData()).text.splitlines())
    body = re.sub(r"\A---\r?\n.*?^---\r?$", "", text, count=1, flags=re.DOTALL | re.MULTILINE)
    return all(line in template or not line or ADDED_BY_PEFT.fullmatch(line) for line in body.splitlines())


def add_record(folder: str | os.PathLike[str], record: RunRecord) -> None:
    """Put what a run recorded into the card of a saved native adapter, and beside it.

    Raises:
        ValueError: if `folder` holds no native adapter.

    Example:
        >>> import tempfile
        >>> from peft import get_peft_model
        >>> from torch import nn
        >>> model = get_peft_model(nn.Sequential(nn.Linear(512, 512)), QPAConfig(r=8, target_modules=["0"]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_pretrained(folder)
        ...     add_record(folder, RunRecord(license="cc0-1.0"))
        ...     RunRecord.load(folder).license
        'cc0-1.0'
    """
    config = QPAConfig.from_pretrained(str(folder))
    if not isinstance(config, QPAConfig):
        raise ValueError(f"{folder} holds no native QPA adapter. Give the record to `materialize` instead.")
    write_card("native", folder, config, record)


def _metadata(config: PeftConfig, record: RunRecord, base: str, tags: list[str]) -> ModelCardData:
    task = task_of(config, record.task)
    # The Hub refuses results without a task, a data set and a number; these stay in the card's table.
    results = [
        EvalResult(
            task_type=task,
            dataset_type=one_line(r.dataset),
            dataset_name=one_line(r.dataset),
            dataset_split=_optional(r.split),
            metric_type=one_line(r.metric),
            metric_name=_optional(r.name),
            metric_value=float(rounded(r.value)),
        )
        for r in record.results
        if task and r.dataset and math.isfinite(r.value)
    ]
    name = one_line(record.repo_id or f"{base or 'adapter'}-{tags[-1]}").rpartition("/")[2]
    return ModelCardData(
        base_model=base or None,
        datasets=[one_line(name) for name in record.datasets] or None,
        eval_results=results or None,
        language=[one_line(code) for code in record.language] or None,
        library_name="peft",
        license=_optional(record.license),
        model_name=name or "adapter" if results else None,
        pipeline_tag=task,
        tags=[*tags, *([f"base_model:adapter:{base}"] if base else [])],
    )


def _optional(value: str | None) -> str | None:
    return None if value is None else one_line(value)


def _training(record: RunRecord) -> dict[str, Any]:
    rows = record.hyperparameters | {
        "steps": record.steps,
        "epochs": record.epochs,
        "training loss since the last start": record.train_loss,
        "seconds since the last start": record.train_seconds,
        "commit": record.commit,
    }
    return {name: value for name, value in (rows | record.versions).items() if value is not None}


def _write_native_card(folder: str, config: PeftConfig) -> None:
    """Write the card of a trained adapter that PEFT has saved, in the place of PEFT's unfilled one."""
    if isinstance(config, QPAConfig) and config.layout:
        write_card("native", folder, config)


after_saving(_write_native_card)

"""The program in a card that loads an adapter onto its base model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from huggingface_hub.utils import HFValidationError, validate_repo_id
from peft import PeftConfig

from qpa_hf.messages import one_line
from qpa_hf.model_cards.markdown import Markdown, in_code

# PEFT's task: the Hub's task, and the class that loads the base model.
TASKS = {
    "CAUSAL_LM": ("text-generation", "AutoModelForCausalLM"),
    "SEQ_2_SEQ_LM": ("text2text-generation", "AutoModelForSeq2SeqLM"),
    "SEQ_CLS": ("text-classification", "AutoModelForSequenceClassification"),
    "TOKEN_CLS": ("token-classification", "AutoModelForTokenClassification"),
    "QUESTION_ANS": ("question-answering", "AutoModelForQuestionAnswering"),
    "FEATURE_EXTRACTION": ("feature-extraction", "AutoModel"),
}

# How huggingface_hub lays out what it has downloaded: .../models--owner--name/snapshots/commit.
CACHED = re.compile(r"[\\/]models--([^\\/]+)[\\/]snapshots[\\/][0-9a-f]{40}[\\/]?$")


# The Hub's name of a task without a type of PEFT's: the class that loads the base model.
WITHOUT_TYPE = {"image-classification": "AutoModelForImageClassification"}


def task_of(config: PeftConfig, recorded: str | None = None) -> str | None:
    """Return the Hub's name for an adapter's task, None if it has none.

    Args:
        config: the adapter's configuration.
        recorded: what its run recorded, which counts if it is a key of `WITHOUT_TYPE`.
    """
    return TASKS.get(config.task_type or "", (recorded if recorded in WITHOUT_TYPE else None,))[0]


def auto_class(config: PeftConfig) -> str:
    """Return the name of the class of transformers that makes the base model of an adapter's task."""
    return TASKS.get(config.task_type or "", (None, "AutoModel"))[1]


def base_of(config: PeftConfig, recorded: str | None = None) -> tuple[str, bool]:
    """Return the base model's name, without the folders above it, and whether it is a Hub id.

    Args:
        config: the adapter's configuration.
        recorded: the base model's Hub id, as the run recorded it.
    """
    if recorded is not None:
        return recorded, True
    name = one_line(config.base_model_name_or_path or "")
    if cached := CACHED.search(name):
        name = cached[1].replace("--", "/", 1)
    if is_hub_id(name) and (cached or not Path(name).exists()):
        return name, True
    return PureWindowsPath(name).name, False  # which takes both kinds of separators


def is_hub_id(name: str) -> bool:
    """Return whether a text has the form of a Hub id."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return bool(name)


def program(
    config: PeftConfig,
    needs_us: bool,
    repo_id: str | None,
    labels: Sequence[str] = (),
    task: str | None = None,
    recorded_base: str | None = None,
) -> Markdown:
    """Return the program that loads an adapter onto its base model.

    Args:
        config: the adapter's configuration.
        needs_us: whether PEFT knows the method only after `import qpa_hf`.
        repo_id: where the adapter is published, if that is known.
        labels: names of the classes, in the order of a classifier's outputs.
        task: what the run recorded as its task.
        recorded_base: the base model's Hub id, as the run recorded it.
    """
    base, is_on_hub = base_of(config, recorded_base)
    where = in_code(base if is_on_hub else f"path/to/{base or 'the/base/model'}")
    imports = ["import qpa_hf"] if needs_us else []
    imports.append("from peft import PeftModel")
    first = "base = ...  # the base model, made as for the training"
    if task_of(config, task):
        name = WITHOUT_TYPE.get(task or "", "") if config.task_type is None else auto_class(config)
        imports.append(f"from transformers import {name}")
        revision = f", revision={in_code(config.revision)}" if config.revision else ""
        named = ", ".join(f"{i}: {in_code(one_line(label))}" for i, label in enumerate(labels))
        names = f", id2label={{{named}}}" if labels else ""
        is_unknown = not labels and config.task_type in ("SEQ_CLS", "TOKEN_CLS")
        remark = "  # and the `num_labels` of the training" if is_unknown else ""
        first = f"base = {name}.from_pretrained({where}{revision}{names}){remark}"
    last = f"model = PeftModel.from_pretrained(base, {in_code(repo_id or 'path/to/this/folder')})"
    return Markdown("\n".join([*imports, "", first, last]))

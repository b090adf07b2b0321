"""Base models with a classifier of a run's classes, and what their checkpoints lack."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig, PretrainedConfig

from qpa_hf.checkpoint import check_folder
from qpa_hf.messages import first_sentence
from qpa_hf.training.data import Examples

HEADS = ("classifier", "score")  # what PEFT keeps beside a classifier's adapter by itself


def base_config(model: str) -> PretrainedConfig:
    """Return the base model's configuration.

    Raises:
        FileNotFoundError: if `model` is a path that leads to no directory.
        ValueError: if there is none.
    """
    check_folder(model, "base model")
    try:
        return AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"No configuration can be loaded from {model} ({first_sentence(error)}). Name a directory or Hub id that "
            "holds a model."
        ) from error


def base_labels(model: str) -> list[str]:
    """Return the names of the classes that the base model's configuration has; transformers' own where it has none."""
    return [str(name) for name in (base_config(model).id2label or {}).values()]


def config_for(model: str, labels: tuple[str, ...]) -> PretrainedConfig:
    """Return the base model's configuration with the names of these classes."""
    config = base_config(model)
    config.id2label = dict(enumerate(labels))
    config.label2id = {name: i for i, name in enumerate(labels)}
    return config


def check_kind(auto: Any, config: PretrainedConfig, model: str, task: str) -> None:
    """Raise ValueError if transformers has no model of this kind for the task."""
    if type(config) not in auto._model_mapping:
        raise ValueError(
            f"{model} is a {config.model_type}, which transformers has no model for `--task {task}` of. Name a base "
            "model of that kind, or the task that this one is for."
        )


def empty_model(auto: Any, config: PretrainedConfig) -> Any:
    """Return a model without numbers, on the meta device."""
    return auto.from_config(config)


def load_with_head(auto: Any, model: str, config: PretrainedConfig, adapter: Any) -> Any:
    """Return a base model with a classifier, the checkpoint's own where it has one of these classes.

    Args:
        auto: the class of transformers.
        model: its directory or Hub id.
        config: its configuration, with the names of the classes.
        adapter: the adapter's `PeftConfig`, or None; modules that the checkpoint lacks, and that are drawn at random,
            are added to its `modules_to_save`.
    """
    with _without_report():
        loaded, info = auto.from_pretrained(
            model, config=config, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True
        )
    if adapter is not None:
        saved = list(adapter.modules_to_save or [])
        mismatched = [name if isinstance(name, str) else name[0] for name in info["mismatched_keys"]]
        adapter.modules_to_save = saved + new_modules([*info["missing_keys"], *mismatched], [*saved, *HEADS])
    return loaded


@contextmanager
def _without_report() -> Iterator[None]:
    """Within this block, transformers does not advise to train what such a run is about to train."""
    logger = logging.getLogger("transformers.modeling_utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def new_modules(keys: Iterable[str], kept: Iterable[str]) -> list[str]:
    """Return the modules of some parameters that are not within modules that are kept anyway, in order.

    Example:
        >>> new_modules(["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight"], ["classifier"])
        ['bert.pooler.dense']
    """
    kept = set(kept)
    names = dict.fromkeys(key.rpartition(".")[0] for key in sorted(keys))
    return [name for name in names if name and kept.isdisjoint(name.split("."))]


def with_padding(loaded: Any, data: Examples) -> Any:
    """Tell a model that classifies by the last token which token pads, if its configuration does not say it."""
    if loaded.config.get_text_config().pad_token_id is None:
        loaded.config.get_text_config().pad_token_id = data.reader.pad_token_id
    return loaded

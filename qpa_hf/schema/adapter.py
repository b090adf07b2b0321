"""`adapter_config.json` of any method."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from peft import PeftConfig, TaskType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import CONFIG_NAME

from qpa_hf.checkpoint import tensors_in
from qpa_hf.messages import one_line, shown
from qpa_hf.schema.kinds import check_kinds
from qpa_hf.schema.layout import check_sizes
from qpa_hf.schema.text import naming, read_object


def adapter_settings(folder: str | os.PathLike[str], name: str = CONFIG_NAME) -> dict[str, Any]:
    """Return what an adapter's configuration file holds, with values of the kinds that its method declares.

    Raises:
        ValueError: if there is none, or it is damaged.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise ValueError(f"There is no {name} in {one_line(folder)}. Pass the folder of a saved adapter.")
    settings = read_object(path, "Save or download the adapter again.")
    method = settings.get("peft_type")
    if not isinstance(method, str):
        raise ValueError(
            f"{path} names no method (`peft_type`={shown(method)}), so it belongs to no adapter. Save or download it "
            "again."
        )
    if method in PEFT_TYPE_TO_CONFIG_MAPPING:
        with naming(path):
            check_kinds(settings, PEFT_TYPE_TO_CONFIG_MAPPING[method])  # type: ignore[index]
    return settings


def check_task(config: PeftConfig) -> None:
    """Refuse a task that PEFT does not know.

    Raises:
        ValueError: with those that it knows.
    """
    if config.task_type is not None and config.task_type not in list(TaskType):
        known = ", ".join(repr(task.value) for task in TaskType)
        raise ValueError(f"`task_type`={shown(config.task_type)} is not known. Choose one of {known}, or None.")


def check_method(method: str, path: str | os.PathLike[str]) -> None:
    """Refuse a method that PEFT does not know.

    Raises:
        ValueError: naming it, and the file that names it.
    """
    if method not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise ValueError(
            f"{path} names the method {shown(method)}, which this version of peft does not know. Upgrade it."
        )


def read_config(folder: str | os.PathLike[str]) -> PeftConfig:
    """Return the configuration of a saved adapter, of a method that PEFT knows.

    Raises:
        ValueError: if there is none, or it is damaged, or has sizes that are not those of the weights beside it.
    """
    method = adapter_settings(folder)["peft_type"]
    path = Path(folder) / CONFIG_NAME
    check_method(method, path)
    with naming(path):
        config = PEFT_TYPE_TO_CONFIG_MAPPING[method].from_pretrained(str(folder))
        # A QPA adapter's weights are its generator's, whose sizes say nothing of a rank; its layout is checked
        # instead.
        if method != "QPA" and (there := tensors_in(folder)):
            check_sizes(config, [shape for _, shape in there.values()])
    return config

"""Load an adapter of any form onto its base model."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from peft.utils.peft_types import PeftType

from qpa_hf.checkpoint import check_complete
from qpa_hf.hub.folder import kind_of, no_such_adapter
from qpa_hf.messages import one_line
from qpa_hf.networks import load_generated
from qpa_hf.networks.native import KIND
from qpa_hf.schema import read_config
from qpa_hf.training.tasks import TASKS, Task

MISFITS = ("size mismatch", "Found missing adapter keys")  # torch's error, PEFT's warning


def local_folder(adapter: str) -> Path:
    """Return the folder that holds an adapter, downloaded where it is a Hub id."""
    folder = Path(adapter)
    if not folder.is_dir():
        from qpa_hf.hub import download

        with no_such_adapter(adapter):
            folder = Path(download(adapter))
    return folder


def with_adapter(network: Any, folder: Path, adapter: str, model: str, task: Task) -> PeftModel:
    """Return a base model with an adapter of any form.

    Args:
        network: the base model.
        folder: the folder of the adapter.
        adapter: what the user called it, for messages.
        model: the name of the base model, for messages.
        task: what the model is for.

    Raises:
        ValueError: if the adapter is of another base model or for another task.
    """
    kind = kind_of(folder)
    if not any((folder / name).is_file() for name in (SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME)):
        raise FileNotFoundError(f"There is no {SAFETENSORS_WEIGHTS_NAME} in {folder}. Save the adapter again.")
    check_complete(folder)
    if kind == KIND:
        return load_generated(network, folder)
    if kind not in PeftType.__members__:
        raise ValueError(
            f"{adapter} holds a {one_line(kind)} adapter, which peft {peft.__version__} does not know. Upgrade it."
        )
    config = read_config(folder)
    wanted = task.adapter.get("task_type")
    if config.task_type not in (None, wanted):  # its head, which another model lacks, would not fit
        tasks = [one.name for one in TASKS.values() if one.adapter.get("task_type") == config.task_type]
        advice = f"Set `--task {tasks[0]}`, or name" if tasks else "Name"
        raise ValueError(
            f"{adapter} is an adapter for {one_line(config.task_type)}, and `--task {task.name}` means {task.trains}."
            f" {advice} another one."
        )
    other = (
        f"The tensors of {adapter} do not fit {model}. Name the base model that it was trained with "
        f"(`base_model_name_or_path`={config.base_model_name_or_path!r})."
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", MISFITS[1])
            adapted = PeftModel.from_pretrained(network, folder)
    except (RuntimeError, UserWarning) as error:
        if not any(words in str(error) for words in MISFITS):
            raise
        raise ValueError(other) from error
    # Loaded again for the answer: PEFT drops tensors without a place. A prompt's are loaded apart from all others.
    if not config.is_prompt_learning and adapted.load_adapter(folder, "default").unexpected_keys:
        raise ValueError(other)
    return adapted

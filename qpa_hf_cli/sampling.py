"""Let a base model or an adapted one write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qpa_hf.checkpoint import check_folder
from qpa_hf.evaluation.generation import beside_base, generate_text
from qpa_hf.messages import one_of
from qpa_hf.training.base import load_tokenizer
from qpa_hf.training.data import Examples
from qpa_hf.training.folder import SETTINGS_NAME
from qpa_hf.training.settings import read_settings
from qpa_hf.training.tasks import TASKS
from qpa_hf_cli.loading import local_folder, with_adapter


def sample_text(model: str, adapter: str | None, task: str | None, prompt: str, **how: Any) -> dict[str, str]:
    """Return a prompt, and what is written after it without and, if there is an adapter, with it.

    Args:
        model: the folder of a run, or the base model's directory or Hub id.
        adapter: the adapter's directory or Hub id; a run has its own.
        task: the task, a key of `TASKS`; that of the run, or text, if None.
        prompt: the text to go on from.
        how: what else `generate_text` takes.

    Raises:
        FileNotFoundError: if the run has not written its adapter yet.
        ValueError: for a task that writes no text, or a prompt or an adapter that will not do.
    """
    settings_file = Path(model) / SETTINGS_NAME
    if settings_file.is_file():
        settings = read_settings(settings_file, does_train=False)
        if adapter is None and not (Path(model) / "adapter").is_dir():
            raise FileNotFoundError(f"{model} holds no adapter yet. Let its `qpa train` come to an end.")
        adapter, task, model = adapter or str(Path(model) / "adapter"), task or settings.task, settings.model
    what = TASKS[one_of("--task", task or "text", TASKS)]
    if not what.is_language:
        raise ValueError(f"A model for `--task {what.name}` writes no text. Measure it by `qpa evaluate`.")
    if adapter is not None:
        check_folder(adapter, "adapter")
    tokenizer = load_tokenizer(model)
    ids = what.prompt(tokenizer, prompt)
    network = what.load(model, Examples([], [], None, "", reader=tokenizer))
    if adapter is None:
        return {"prompt": prompt, "base": generate_text(network, tokenizer, ids, **how)}
    network = with_adapter(network, local_folder(adapter), adapter, model, what)
    return beside_base(network, tokenizer, ids, **how) | {"prompt": prompt}

"""Evaluate a model on files, with an adapter of any form and beside the base model alone."""

from __future__ import annotations

from typing import Any

from qpa_hf.checkpoint import check_folder
from qpa_hf.evaluation.documents import read_texts
from qpa_hf.evaluation.perplexity import padded_perplexity
from qpa_hf.model_cards import RunRecord
from qpa_hf.training.data import DataSettings, Naming
from qpa_hf.training.tasks import Task
from qpa_hf_cli.loading import local_folder, with_adapter

NAMING = Naming("--data", "--text-column", "--label-column", "block_length")


def evaluate_files(
    model: str, adapter: str | None, task: Task, settings: DataSettings, padded: bool = False
) -> dict[str, Any]:
    """Return a task's metrics on files, with the adapter and without it; of text, the paper's, too, if asked for.

    Args:
        model: the base model's directory or Hub id.
        adapter: that of the adapter, if there is one.
        task: what the model is for.
        settings: the files, in `validation`, and how they are read.
        padded: whether to measure the paper's perplexity, too.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file will not do, or the adapter is of another base model or for another task.
    """
    if padded and task.name != "text":
        raise ValueError(f"`--padded` is the paper's perplexity of texts. Leave it out with `--task {task.name}`.")
    if adapter is not None:
        check_folder(adapter, "adapter")
    folder = None if adapter is None else local_folder(adapter)
    record = None if folder is None else RunRecord.load(folder)
    data = task.read_held_out(settings, model, task.labels_of(model, record.labels if record else ()), NAMING)
    network: Any = task.load(model, data)
    task.check(network, model, data, "block_length")
    found: dict[str, Any] = {"model": model, "adapter": adapter, "task": task.name}
    found |= {"block_length": settings.block_length}
    found |= {"adapter_trained_with": None, "n_examples": len(data.validation)}
    if folder is not None:
        network = with_adapter(network, folder, str(adapter), model, task)
        found["adapter_trained_with"] = network.active_peft_config.base_model_name_or_path
    if task.name == "text":
        found["predicted_tokens"] = data.validation[:, 1:].numel()
    if padded:  # first: it has more to refuse
        texts = read_texts(settings.validation, NAMING.files, settings.text_column, NAMING.text)
        lines = [line for text in texts for line in text.splitlines()]
        length = settings.block_length
        found["padded_perplexity"] = padded_perplexity(network, data.reader, lines, length, progress=True)
    found |= task.evaluate(network, data.validation, data, progress=True)
    if folder is not None:
        name, metrics = task.baseline(network, model, data)
        found["baseline"] = {"name": name} | metrics
    return found

"""Evaluate a model on text files, with an adapter of any form."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME, WEIGHTS_NAME
from peft.utils.peft_types import PeftType
from transformers import AutoModelForCausalLM

from qpa_hf.checkpoint import check_complete, check_folder
from qpa_hf.evaluation.documents import COLUMN, read_texts
from qpa_hf.evaluation.perplexity import padded_perplexity, perplexity
from qpa_hf.evaluation.text import text_blocks
from qpa_hf.hub.folder import kind_of, no_such_adapter
from qpa_hf.messages import one_line, whole_number
from qpa_hf.networks import load_generated
from qpa_hf.networks.native import KIND
from qpa_hf.schema import read_config
from qpa_hf.training.base import check_fit, load_tokenizer

MISFITS = ("size mismatch", "Found missing adapter keys")  # torch's error, PEFT's warning


def evaluate_files(
    model: str, files: Sequence[Path], adapter: str | None, block_length: int, padded: bool, column: str = COLUMN
) -> dict[str, Any]:
    """Return the standard perplexity on text files and tables, and the paper's padded one if asked for.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is not text or lacks the column, the text does not fill one block, or the adapter is of
            another base model or for another task.
    """
    texts = read_texts(files, "--text", column, "--text-column")
    if adapter is not None:
        check_folder(adapter, "adapter")
    block_length = whole_number("block_length", block_length, least=2)
    tokenizer = load_tokenizer(model)
    blocks = text_blocks(tokenizer, texts, block_length)
    network: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    check_fit(network, model, int(blocks.max()), block_length, "block_length")
    if adapter is not None:
        network = _adapted(network, adapter, model)
    paper = {}
    if padded:  # first: it has more to refuse
        lines = [line for text in texts for line in text.splitlines()]
        paper["padded_perplexity"] = padded_perplexity(network, tokenizer, lines, block_length, progress=True)
    return {
        "model": model,
        "adapter": adapter,
        "adapter_trained_with": network.active_peft_config.base_model_name_or_path if adapter is not None else None,
        "block_length": block_length,
        "predicted_tokens": blocks.shape[0] * (blocks.shape[1] - 1),
        "perplexity": perplexity(network, blocks, progress=True),
    } | paper


def _adapted(network: Any, adapter: str, model: str) -> PeftModel:
    folder = Path(adapter)
    if not folder.is_dir():
        from qpa_hf.hub import download

        with no_such_adapter(adapter):
            folder = download(adapter)
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
    if config.task_type not in (None, "CAUSAL_LM"):  # its head, which a language model lacks, would not fit
        raise ValueError(
            f"{adapter} is an adapter for {config.task_type}, and what is evaluated is the perplexity of language "
            "models. Name an adapter for CAUSAL_LM."
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

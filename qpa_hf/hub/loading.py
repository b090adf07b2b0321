"""Load an adapter from the Hub onto its base model."""

from __future__ import annotations

import os
from typing import Any

from huggingface_hub import get_token
from peft import (
    AutoPeftModel,
    AutoPeftModelForCausalLM,
    AutoPeftModelForFeatureExtraction,
    AutoPeftModelForQuestionAnswering,
    AutoPeftModelForSeq2SeqLM,
    AutoPeftModelForSequenceClassification,
    AutoPeftModelForTokenClassification,
    PeftConfig,
    PeftModel,
)
from torch import nn

from qpa_hf.hub.download import download
from qpa_hf.hub.errors import explain, hide
from qpa_hf.hub.retry import RetryPolicy

AUTO_MODELS: dict[str | None, Any] = {
    None: AutoPeftModel,
    "CAUSAL_LM": AutoPeftModelForCausalLM,
    "FEATURE_EXTRACTION": AutoPeftModelForFeatureExtraction,
    "QUESTION_ANS": AutoPeftModelForQuestionAnswering,
    "SEQ_2_SEQ_LM": AutoPeftModelForSeq2SeqLM,
    "SEQ_CLS": AutoPeftModelForSequenceClassification,
    "TOKEN_CLS": AutoPeftModelForTokenClassification,
}


def load(
    repo_id: str,
    base: nn.Module | None = None,
    *,
    revision: str | None = None,
    is_trainable: bool = False,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    policy: RetryPolicy | None = None,
) -> PeftModel:
    """Load a native or materialized adapter from the Hub onto its base model.

    Args:
        repo_id: "owner/name".
        base: the base model; by default the one that the adapter's configuration names is loaded.
        revision: branch, tag or commit.
        is_trainable: load it for further training.
        token: access token; by default the one of `hf auth login`.
        cache_dir: the cache; by default huggingface_hub's.
        policy: how patient to be.

    Returns:
        The model with the adapter.

    Raises:
        HubError: the true cause of what went wrong, and what to do.
        ValueError: if `repo_id` is no Hub id, or the adapter does not fit the base model.
    """
    folder = download(repo_id, revision=revision, token=token, cache_dir=cache_dir, policy=policy)
    if base is not None:
        return PeftModel.from_pretrained(base, str(folder), is_trainable=is_trainable)
    config = PeftConfig.from_pretrained(str(folder))
    task = config.task_type and str(getattr(config.task_type, "value", config.task_type))
    options = {"token": token} if token else {}
    try:
        return AUTO_MODELS[task].from_pretrained(str(folder), is_trainable=is_trainable, **options)
    except OSError as error:
        hide(error, token or get_token())
        meaning = explain(error, str(config.base_model_name_or_path), config.revision)
        if meaning is None:
            raise
        raise meaning from error

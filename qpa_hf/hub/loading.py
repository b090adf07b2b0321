"""Load an adapter from the Hub onto its base model."""

from __future__ import annotations

import os
from typing import Any

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

from qpa_hf.hub.local import local_error, token_to_send
from qpa_hf.hub.meaning import explain, hide
from qpa_hf.hub.retry import RetryPolicy
from qpa_hf.hub.snapshot import download
from qpa_hf.messages import one_line
from qpa_hf.schema import read_config

MISFIT = "size mismatch"  # in torch's error
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
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    policy: RetryPolicy | None = None,
) -> PeftModel:
    """Load a native or materialized adapter from the Hub onto its base model.

    Args:
        repo_id: the repository, as "owner/name".
        base: the base model; by default the one that the adapter's configuration names is loaded.
        revision: the branch, tag or commit; by default the main branch.
        is_trainable: whether the adapter is to be trained further.
        token: the access token; by default the one of `hf auth login`. True insists on that one, False sends none.
        cache_dir: the cache folder; by default huggingface_hub's.
        policy: the retry policy, which says how patient to be.

    Returns:
        The model with the adapter.

    Raises:
        HubError: if something went wrong on the way, with the true cause and what to do.
        ValueError: if `repo_id` is no Hub id, the adapter does not fit the base model, or it names a base model of
            another library, which would be imported.

    Example:
        >>> from qpa_hf import hub
        >>> model = hub.load("me/my-adapter")  # doctest: +SKIP
    """
    folder = download(repo_id, revision=revision, token=token, cache_dir=cache_dir, policy=policy)
    # The folder is a stranger's. Its configuration is checked before PEFT acts on it.
    config = read_config(folder)
    _check_mapping(config)
    sent = token_to_send(token)
    try:
        if base is not None:
            return PeftModel.from_pretrained(base, str(folder), is_trainable=is_trainable)
        task = config.task_type and str(getattr(config.task_type, "value", config.task_type))
        options = {} if token is None else {"token": sent or False}
        return AUTO_MODELS[task].from_pretrained(str(folder), is_trainable=is_trainable, **options)
    except RuntimeError as error:
        if MISFIT not in str(error):
            raise
        raise ValueError(
            f"The tensors in {folder} do not fit the base model ({one_line(error)}). Load the adapter onto the "
            f"one that it was trained with ({one_line(config.base_model_name_or_path)})."
        ) from error
    except OSError as error:
        if base is not None:
            raise
        hide(error, sent)
        meaning = explain(error, one_line(config.base_model_name_or_path), config.revision) or local_error(error)
        if meaning is None:
            raise
        raise meaning from error


def _check_mapping(config: PeftConfig) -> None:
    """Raise ValueError if the adapter's file names a module to import that is not one of transformers."""
    library = str((config.auto_mapping or {}).get("parent_library", "transformers"))
    if library.partition(".")[0] != "transformers":  # older versions of PEFT import whatever it is
        raise ValueError(
            f"The adapter names a base model from {library!r}, and no file chooses what is imported here. Load that "
            "model yourself, and pass it as `base`."
        )

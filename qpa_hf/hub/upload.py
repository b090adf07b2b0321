"""Push an adapter to the Hub: weights, configuration and card in one commit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from torch import nn

from qpa_hf._version import __version__
from qpa_hf.hub.folder import CARD, FORMS, check_secrets, files_of, form_of, require
from qpa_hf.hub.repository import Repository
from qpa_hf.hub.retry import RetryPolicy
from qpa_hf.materialize import materialize

NO_NAME = {"adapter", "native", "plain"}  # folder names that say nothing about the run


def push(
    model_or_path: nn.Module | str | os.PathLike[str],
    repo_id: str,
    *,
    form: str | None = None,
    adapter_name: str = "default",
    revision: str | None = None,
    tag: str | None = None,
    create_pr: bool = False,
    private: bool | None = None,
    commit_message: str | None = None,
    token: str | None = None,
    policy: RetryPolicy | None = None,
) -> CommitInfo:
    """Push a native or materialized adapter, with its card, in one commit.

    What is on the Hub already is not pushed again, so an interrupted push is finished by the same call. Afterwards the
    Hub's files have been compared with the local ones. An earlier adapter's record goes if this one has none.

    Args:
        model_or_path: a `PeftModel` with a QPA adapter, or the folder of a saved adapter. Of a folder, the adapter's
            own files go: weights, configurations, tokenizer, card and pictures; no subfolders, no optimizer state.
        repo_id: "owner/name"; it is made if it does not exist.
        form: `"materialized"` (plain LoRA, for which nobody needs qpa_hf) or `"native"` (the generator). By default a
            model is materialized and a folder goes as it is.
        adapter_name: which adapter of a model.
        revision: branch; it is made if it does not exist. `None` is the main one.
        tag: name for the commit.
        create_pr: open a pull request instead of changing the main branch.
        private: make a new repository private; an existing public one is then refused.
        commit_message: title of the commit. By default it names the run: the folder, or the base model.
        token: access token; by default the one of `hf auth login`.
        policy: how patient to be.

    Returns:
        The commit that holds the files; with `create_pr`, `pr_url` is the pull request.

    Raises:
        ValueError: if the adapter is incomplete or none that can be pushed, `repo_id` is no Hub id, a file contains
            the token, or two arguments exclude each other.
        TypeError: if `model_or_path` is neither a PEFT model nor a path.
        HubError: what went wrong on the way, and what to do.
    """
    if form not in (None, *FORMS.values()):
        raise ValueError(f"`form`={form!r} is not known. Use one of {sorted(FORMS.values())}.")
    if create_pr and (revision or tag):
        raise ValueError("`create_pr` excludes `revision` and `tag`: a pull request is for main. Tag it when merged.")
    repository = Repository(repo_id, token, policy)
    with _folder(model_or_path, form, adapter_name) as folder:
        kind, files = form_of(folder), files_of(folder)
        require(folder, CARD)
        message = commit_message or f"Upload the {kind} adapter of {_run_name(model_or_path, adapter_name)}"
        check_secrets(files, message, repository.token)
        description = f"Pushed by qpa_hf {__version__}."
        repository.create(private)
        if create_pr:
            return repository.propose(files, message, description)
        if tag:
            repository.check_tag(tag, files)
        info = repository.commit(files, revision or "main", message, description)
        if tag:
            repository.tag(tag, info.oid, files)
        return info


@contextmanager
def _folder(source: Any, form: str | None, adapter_name: str) -> Iterator[Path]:
    """Yield a folder that holds the adapter in the form that is to be pushed."""
    is_path = isinstance(source, (str, os.PathLike))
    if is_path and form in (None, form_of(Path(source))):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="qpa_hf_push_") as place:
        folder = Path(place) / "adapter"
        if form == "native":
            if is_path:
                raise ValueError(
                    f"{source} holds a materialized adapter; its generator is not in it. Push it as it is."
                )
            source.save_pretrained(str(folder), selected_adapters=[adapter_name])
            folder = folder if adapter_name == "default" else folder / adapter_name
        else:
            materialize(source, folder, adapter_name)
        yield folder


def _run_name(source: Any, adapter_name: str) -> str:
    if isinstance(source, (str, os.PathLike)):
        parts = [part for part in Path(source).resolve().parts if part not in NO_NAME]
        n_names = 2 if parts[-1].startswith("checkpoint-") else 1  # a checkpoint is named with its run
        return "/".join(parts[-n_names:])  # what lies above is nobody else's business
    base = source.peft_config[adapter_name].base_model_name_or_path
    return f"{base or type(source).__name__} ({adapter_name})"

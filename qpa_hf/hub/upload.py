"""Push an adapter to the Hub: weights, configuration and card in one commit."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from torch import nn

from qpa_hf._version import __version__
from qpa_hf.files import naming_full_disk
from qpa_hf.hub.folder import CARD, FORMS, check_secrets, form_of, require
from qpa_hf.hub.local import check_revision
from qpa_hf.hub.parcel import pack
from qpa_hf.hub.repository import Repository
from qpa_hf.hub.retry import RetryPolicy
from qpa_hf.materialize import materialize
from qpa_hf.model_cards import RunRecord
from qpa_hf.schema import read_config

NO_NAME = {"adapter", "native", "plain"}  # folder names that say nothing about the run


def push(
    model_or_path: nn.Module | str | os.PathLike[str],
    repo_id: str,
    *,
    form: str | None = None,
    portable: bool = False,
    adapter_name: str = "default",
    revision: str | None = None,
    tag: str | None = None,
    create_pr: bool = False,
    private: bool | None = None,
    commit_message: str | None = None,
    token: str | bool | None = None,
    policy: RetryPolicy | None = None,
) -> CommitInfo:
    """Push a native or materialized adapter, with its card, in one commit.

    What is on the Hub already is not pushed again, so an interrupted push is finished by the same call. Afterwards the
    Hub's files have been compared with the local ones. An earlier adapter's record goes if this one has none.

    Args:
        model_or_path: the `PeftModel` with a QPA adapter, or the folder of a saved adapter. Of a folder, the adapter's
            own files go, by a list of names: weights, configurations, tokenizer, card, record and the pictures that
            `qpa train` draws. No subfolders go and no optimizer state; anything else is left out and named in a
            warning of the logger.
        repo_id: the repository, as "owner/name"; it is made if it does not exist.
        form: the form to push, `"materialized"` (plain LoRA, for which nobody needs qpa_hf) or `"native"` (the
            generator). By default a model is materialized and a folder goes as it is.
        portable: whether to materialize with every scale in `lora_B`, for readers other than PEFT (see `materialize`);
            for a model or a native folder.
        adapter_name: the name of the model's adapter to push.
        revision: the branch, which is made if it does not exist; by default the main branch.
        tag: the tag that the commit gets; None for no tag.
        create_pr: whether to open a pull request instead of changing the main branch.
        private: whether to make a new repository private; an existing public one is then refused.
        commit_message: the title of the commit. By default it names the run: the folder, or the base model.
        token: the access token; by default the one of `hf auth login`. True insists on that one, False sends none.
        policy: the retry policy, which says how patient to be.

    Returns:
        The commit that holds the files; with `create_pr`, `pr_url` is the pull request.

    Raises:
        ValueError: if the adapter is incomplete or none that can be pushed, `repo_id` is no Hub id, a file contains
            the token or is a link that leads anywhere but into the Hub's cache, or two arguments exclude each other.
        TypeError: if `model_or_path` is neither a PEFT model nor a path.
        HubError: if something went wrong on the way, with the cause and what to do.

    Example:
        >>> from qpa_hf import hub
        >>> hub.push("run/adapter", "me/my-adapter", tag="v1").commit_url  # doctest: +SKIP
        >>> hub.push("run/adapter", "me/my-adapter", private=True, create_pr=True).pr_url  # doctest: +SKIP
    """
    if form not in (None, *FORMS.values()):
        raise ValueError(f"`form`={form!r} is not known. Use one of {sorted(FORMS.values())}.")
    if portable and form == "native":
        raise ValueError("`portable` is about a materialized adapter. Leave it out, or leave out form='native'.")
    if create_pr and (revision or tag):
        raise ValueError("`create_pr` excludes `revision` and `tag`: a pull request is for main. Tag it when merged.")
    check_revision("revision", revision)
    check_revision("tag", tag)
    repository = Repository(repo_id, token, policy)
    with _folder(model_or_path, form, adapter_name, portable) as folder, ExitStack() as held:
        kind = form_of(folder)
        require(folder, CARD)
        with naming_full_disk(tempfile.gettempdir()):
            files = pack(folder, held)
        message = commit_message or f"Upload the {kind} adapter of {_run_name(model_or_path, adapter_name)}"
        check_secrets(files, message, repository.token)
        # Read for their checks alone: nobody should push what the next reader refuses.
        read_config(folder)
        RunRecord.load(folder)
        description = f"Pushed by qpa_hf {__version__}."
        repository.create(private)
        if create_pr:
            return repository.propose(files, message, description)
        # A tag that is taken is found out before anything is committed, which could not be undone.
        if tag:
            repository.check_tag(tag, files)
        info = repository.commit(files, revision or "main", message, description)
        if tag:
            repository.tag(tag, info.oid, files)
        return info


@contextmanager
def _folder(source: Any, form: str | None, adapter_name: str, portable: bool) -> Iterator[Path]:
    """Yield a folder that holds the adapter in the form that is to be pushed."""
    is_path = isinstance(source, (str, os.PathLike))
    if is_path and portable and form_of(Path(source)) == "materialized":
        raise ValueError(
            f"{source} holds a materialized adapter already. Pass the native one to have it made portable, or push "
            "this as it is."
        )
    if is_path and not portable and form in (None, form_of(Path(source))):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="qpa_hf_push_") as place:
        folder = Path(place) / "adapter"
        if form == "native" and is_path:
            raise ValueError(f"{source} holds a materialized adapter; its generator is not in it. Push it as it is.")
        with naming_full_disk(place):
            if form == "native":
                source.save_pretrained(str(folder), selected_adapters=[adapter_name])
                folder = folder if adapter_name == "default" else folder / adapter_name
            else:
                materialize(source, folder, adapter_name, portable=portable)
        yield folder


def _run_name(source: Any, adapter_name: str) -> str:
    if isinstance(source, (str, os.PathLike)):
        parts = [part for part in Path(source).resolve().parts if part not in NO_NAME]
        n_names = 2 if parts[-1].startswith("checkpoint-") else 1  # a checkpoint is named with its run
        return "/".join(parts[-n_names:])  # what lies above is nobody else's business
    base = source.peft_config[adapter_name].base_model_name_or_path
    return f"{base or type(source).__name__} ({adapter_name})"

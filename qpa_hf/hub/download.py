"""Download an adapter from the Hub: one commit, every file checked against the Hub's hashes, then loaded from disk."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_cached_repo_tree, get_token, is_offline_mode
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError, RevisionResolutionError
from huggingface_hub.hf_api import RepoFile
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
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from torch import nn

from qpa_hf._version import __version__
from qpa_hf.hub.errors import Damaged, FileMissing, HubUnavailable, NotCached, explain, hide
from qpa_hf.hub.folder import is_same
from qpa_hf.hub.retry import Limit, RetryPolicy

logger = logging.getLogger(__name__)
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


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    policy: RetryPolicy | None = None,
) -> Path:
    """Download an adapter: all files of exactly one commit, each with the size and hash that the Hub lists for it.

    Without a connection, or with `HF_HUB_OFFLINE=1`, a complete and undamaged earlier download serves.

    Args:
        repo_id: "owner/name".
        revision: branch, tag or commit; it is looked up once.
        token: access token; by default the one of `hf auth login`.
        cache_dir: the cache; by default huggingface_hub's.
        policy: how patient to be.

    Returns:
        The folder, inside the cache; treat it as read-only.

    Raises:
        HubError: what went wrong, and what to do.
    """
    token = token or get_token()
    api = HfApi(token=token, library_name="qpa_hf", library_version=__version__)
    snapshot = _Snapshot(api, repo_id, revision, cache_dir, Limit(policy or RetryPolicy(), repo_id, token))
    return snapshot.local(snapshot.resolve()) or snapshot.fetch()


class _Snapshot:
    """One revision of a repository, here and there."""

    def __init__(
        self, api: HfApi, repo_id: str, revision: str | None, cache_dir: str | os.PathLike[str] | None, limit: Limit
    ) -> None:
        self.api, self.repo_id, self.revision, self.limit = api, repo_id, revision, limit
        self.cache_dir = None if cache_dir is None else str(cache_dir)
        self.commit = ""

    def resolve(self) -> str:
        """Return the commit that the revision means, and remember it; ask the Hub if that is possible."""
        cached = self._cached_commit()
        usable = cached is not None and self.local(cached) is not None
        if is_offline_mode():
            if not usable:
                advice = "Unset HF_HUB_OFFLINE and load it once with a connection"
                raise NotCached(f"There is no complete copy of {self.repo_id} on this machine. {advice}.")
            self.commit = str(cached)
            return self.commit
        try:
            # With a good copy at hand, one attempt is enough: nobody should wait for a Hub that is down.
            self.commit = self.limit.run(
                lambda: (
                    self.api.resolve_revision(self.repo_id, revision=self.revision, cache_dir=self.cache_dir).resolved
                ),
                self.revision,
                attempts=1 if usable else None,
            )
        except HubUnavailable as error:
            if not usable:
                raise
            self.commit = str(cached)
            logger.warning("%s Using the copy of commit %s on this machine.", error, self.commit)
        return self.commit

    def _cached_commit(self) -> str | None:
        try:
            found = self.api.resolve_revision(
                self.repo_id, revision=self.revision, local_files_only=True, cache_dir=self.cache_dir
            )
        except RevisionResolutionError:
            return None
        return found.resolved

    def local(self, commit: str) -> Path | None:
        """Return the folder of a commit in the cache, or None unless all its files are there and whole."""
        try:
            tree = get_cached_repo_tree(self.repo_id, revision=commit, cache_dir=self.cache_dir)
            folder = Path(
                self.api.snapshot_download(
                    self.repo_id, revision=commit, local_files_only=True, cache_dir=self.cache_dir
                )
            )
        except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
            return None
        return folder if all(is_same(folder / file.path, file) for file in tree) else None

    def fetch(self) -> Path:
        """Download what is missing or damaged in the cache, and return the folder."""
        tree = self.limit.run(self._tree, self.revision)
        self._check_adapter(file.path for file in tree)
        for file in tree:
            self.limit.run(partial(self._fetch, file), self.revision)
        # Everything is there now: this only writes down the list of files, for times without a connection.
        return Path(
            self.limit.run(
                lambda: self.api.snapshot_download(self.repo_id, revision=self.commit, cache_dir=self.cache_dir)
            )
        )

    def _tree(self) -> list[RepoFile]:
        found = self.api.list_repo_tree(self.repo_id, recursive=True, revision=self.commit)
        return [file for file in found if isinstance(file, RepoFile)]

    def _check_adapter(self, names: Iterable[str]) -> None:
        missing = {CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME} - set(names)
        if missing:
            name = f"{self.repo_id} at {self.revision or 'main'}"
            raise FileMissing(f"{name} has no {min(missing)}, so it is no adapter. Check the name and the revision.")

    def _fetch(self, file: RepoFile) -> None:
        path = Path(self.api.hf_hub_download(self.repo_id, file.path, revision=self.commit, cache_dir=self.cache_dir))
        if not is_same(path, file):
            _remove(path)
            raise Damaged(f"{file.path} differs from what the Hub lists")


def _remove(path: Path) -> None:
    """Remove a file from the cache with all the links that lead to it."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)

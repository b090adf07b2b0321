"""Download an adapter from the Hub: one commit, every file checked against the Hub's hashes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from huggingface_hub import get_cached_repo_tree, is_offline_mode
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError, RevisionResolutionError
from huggingface_hub.hf_api import RepoFile
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from qpa_hf.hub.errors import Damaged, FileMissing, HubUnavailable, NotCached
from qpa_hf.hub.folder import is_same
from qpa_hf.hub.repository import Repository
from qpa_hf.hub.retry import RetryPolicy

logger = logging.getLogger(__name__)


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
    snapshot = _Snapshot(Repository(repo_id, token, policy), revision, cache_dir)
    commit = snapshot.resolve()
    return snapshot.local(commit) or snapshot.fetch(commit)


class _Snapshot:
    """One revision of a repository, here and there."""

    def __init__(self, repository: Repository, revision: str | None, cache_dir: str | os.PathLike[str] | None) -> None:
        self.repository, self.revision = repository, revision
        self.api, self.name, self.limit = repository.api, repository.name, repository.limit
        self.cache_dir = None if cache_dir is None else str(cache_dir)

    def resolve(self) -> str:
        """Return the commit that the revision means; ask the Hub if that is possible."""
        cached = self._cached_commit()
        usable = cached is not None and self.local(cached) is not None
        if is_offline_mode():
            if not usable:
                advice = "Unset HF_HUB_OFFLINE and load it once with a connection"
                raise NotCached(f"There is no complete copy of {self.name} on this machine. {advice}.")
            return str(cached)
        try:
            # With a good copy at hand, one attempt is enough: nobody should wait for a Hub that is down.
            return self.limit.run(self._asked_commit, self.revision, attempts=1 if usable else None)
        except HubUnavailable as error:
            if not usable:
                raise
            logger.warning("%s Using the copy of commit %s on this machine.", error, cached)
            return str(cached)

    def _asked_commit(self) -> str:
        return self.api.resolve_revision(self.name, revision=self.revision, cache_dir=self.cache_dir).resolved

    def _cached_commit(self) -> str | None:
        try:
            found = self.api.resolve_revision(
                self.name, revision=self.revision, local_files_only=True, cache_dir=self.cache_dir
            )
        except RevisionResolutionError:
            return None
        return found.resolved

    def local(self, commit: str) -> Path | None:
        """Return the folder of a commit in the cache, or None unless all its files are there and whole."""
        try:
            tree = get_cached_repo_tree(self.name, revision=commit, cache_dir=self.cache_dir)
            folder = Path(
                self.api.snapshot_download(self.name, revision=commit, local_files_only=True, cache_dir=self.cache_dir)
            )
        except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
            return None
        return folder if all(is_same(folder / file.path, file) for file in tree) else None

    def fetch(self, commit: str) -> Path:
        """Download what is missing or damaged in the cache, and return the folder."""
        tree = self.limit.run(lambda: self.repository.tree(commit), self.revision)
        self._check_adapter(tree)
        for file in tree.values():  # one by one, because for several huggingface_hub starts threads without limits
            self.limit.run(partial(self._fetch, commit, file), self.revision)
        # Everything is there now: this only writes down the list of files, for times without a connection.
        note = partial(self.api.snapshot_download, self.name, revision=commit, cache_dir=self.cache_dir)
        return Path(self.limit.run(note))

    def _check_adapter(self, names: Iterable[str]) -> None:
        missing = {CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME} - set(names)
        if missing:
            name = f"{self.name} at {self.revision or 'main'}"
            raise FileMissing(f"{name} has no {min(missing)}, so it is no adapter. Check the name and the revision.")

    def _fetch(self, commit: str, file: RepoFile) -> None:
        path = Path(self.api.hf_hub_download(self.name, file.path, revision=commit, cache_dir=self.cache_dir))
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

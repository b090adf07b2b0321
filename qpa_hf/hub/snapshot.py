"""Download an adapter from the Hub: one commit, every file checked against the Hub's hashes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.hf_api import RepoFile
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from qpa_hf.files import naming_full_disk
from qpa_hf.hub import client
from qpa_hf.hub.errors import Damaged, FileMissing, HubUnavailable, Interrupted, LocalError, NotCached
from qpa_hf.hub.local import check_revision
from qpa_hf.hub.repository import Repository, is_same
from qpa_hf.hub.retry import RetryPolicy
from qpa_hf.messages import one_line

logger = logging.getLogger(__name__)


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    policy: RetryPolicy | None = None,
) -> Path:
    """Download an adapter: all files of exactly one commit, each with the size and hash that the Hub lists for it.

    Without a connection, or with `HF_HUB_OFFLINE=1`, a complete and undamaged earlier download serves, if
    huggingface_hub is at least 1.26.

    Args:
        repo_id: the repository, as "owner/name".
        revision: the branch, tag or commit, which is looked up once; by default the main branch.
        token: the access token; by default the one of `hf auth login`. True insists on that one, False sends none.
        cache_dir: the cache folder; by default huggingface_hub's.
        policy: the retry policy, which says how patient to be.

    Returns:
        The folder, inside the cache; treat it as read-only.

    Raises:
        HubError: if something went wrong on the way, with the cause and what to do.
        DiskFullError: if the cache's disk has no room for it.
        ValueError: if `repo_id`, `revision`, `token` or the Hub's address is malformed.
        TypeError: if one of them is not text.

    Example:
        >>> from qpa_hf import hub
        >>> folder = hub.download("me/my-adapter", revision="v1")  # doctest: +SKIP
    """
    check_revision("revision", revision)
    snapshot = _Snapshot(Repository(repo_id, token, policy), revision, cache_dir)
    commit = snapshot.resolve()
    return snapshot.local(commit) or snapshot.fetch(commit)


class _Snapshot:
    """One revision of a repository, here and there."""

    def __init__(self, repository: Repository, revision: str | None, cache_dir: str | os.PathLike[str] | None) -> None:
        self.repository = repository
        self.revision = revision
        self.api = repository.api
        self.name = repository.name
        self.limit = repository.limit
        self.cache_dir = None if cache_dir is None else str(cache_dir)
        self.cache = self.cache_dir or constants.HF_HUB_CACHE

    def resolve(self) -> str:
        """Return the commit that the revision means; ask the Hub if that is possible."""
        cached = client.cached_commit(self.api, self.name, self.revision, self.cache_dir)
        usable = cached is not None and self.local(cached) is not None
        if constants.HF_HUB_OFFLINE:
            if not usable:
                raise NotCached(self._why_not_cached())
            return str(cached)
        try:
            # With a good copy at hand, one attempt is enough: nobody should wait for a Hub that is down.
            return self.limit.run(self._asked_commit, self.revision, attempts=1 if usable else None)
        except (HubUnavailable, LocalError) as error:
            if not usable:
                raise
            logger.warning("%s Using the copy of commit %s on this machine.", error, cached)
            return str(cached)

    def _asked_commit(self) -> str:
        commit = client.commit_of(self.api, self.name, self.revision, self.cache_dir)
        if commit is None:
            raise Interrupted("an answer without a commit")
        return commit

    def _why_not_cached(self) -> str:
        if client.KEEPS_LISTS:
            advice = "Unset HF_HUB_OFFLINE and load it once with a connection"
            return f"There is no complete copy of {self.name} on this machine. {advice}."
        found = f"huggingface_hub {huggingface_hub.__version__} keeps no list of an adapter's files"
        advice = f"Unset HF_HUB_OFFLINE, or install huggingface_hub>={client.LISTS_SINCE} (and transformers>=5)"
        return f"{found}, so {self.name} cannot be loaded without a connection. {advice}."

    def local(self, commit: str) -> Path | None:
        """Return the folder of a commit in the cache, or None unless all its files are there and whole."""
        tree = client.cached_tree(self.name, commit, self.cache_dir)
        if tree is None:
            return None
        try:
            folder = Path(
                self.api.snapshot_download(self.name, revision=commit, local_files_only=True, cache_dir=self.cache_dir)
            )
        except LocalEntryNotFoundError:
            return None
        return folder if all(is_same(folder / file.path, file) for file in tree) else None

    def fetch(self, commit: str) -> Path:
        """Download what is missing or damaged in the cache, and return the folder.

        Raises:
            DiskFullError: if the cache's disk has no room for a file.
        """
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
            raise FileMissing(
                f"{name} has no {min(missing)}, so it is not an adapter. Check the name and the revision."
            )

    def _fetch(self, commit: str, file: RepoFile) -> None:
        with naming_full_disk(self.cache):
            path = Path(self.api.hf_hub_download(self.name, file.path, revision=commit, cache_dir=self.cache_dir))
        # A damaged file that stays in the cache would be taken for good by the next attempt, and by every other
        # program.
        if not is_same(path, file):
            _remove(path)
            raise Damaged(f"{one_line(file.path)} differs from what the Hub lists")


def _remove(path: Path) -> None:
    """Remove a file from the cache with all the links that lead to it."""
    while path.is_symlink():
        target = path.parent / path.readlink()
        path.unlink()
        path = target
    path.unlink(missing_ok=True)

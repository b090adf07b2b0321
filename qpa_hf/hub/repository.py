"""A repository on the Hub, asked and changed so that no lost answer doubles or loses anything.

Each change looks at what is there first. An attempt whose answer was lost has then been done, and is not done again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash

from qpa_hf._version import __version__
from qpa_hf.hub.client import endpoint_of
from qpa_hf.hub.errors import AccessDenied, DamagedFile, Interrupted, TagTaken
from qpa_hf.hub.folder import stale
from qpa_hf.hub.local import check_endpoint, check_text, token_to_send
from qpa_hf.hub.retry import Limit, RetryPolicy
from qpa_hf.messages import check_kind, shown

OVERTAKEN = {409, 412}  # statuses: somebody else, or our own attempt whose answer was lost, was there first


def is_same(path: Path, remote: RepoFile) -> bool:
    """Return whether a file has the size and the hash that the Hub lists."""
    if not path.is_file() or path.stat().st_size != remote.size:
        return False
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if remote.lfs is not None:
        return sha256 == remote.lfs.sha256
    # A list from the cache has git's hash only: of the file, or of the pointer that stands in git for a large file.
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n"
    return remote.blob_id in (git_hash(content), git_hash(pointer.encode()))


@contextmanager
def _looking_again() -> Iterator[None]:
    """Let the policy start over when somebody was faster: the next attempt looks at what is there now."""
    try:
        yield
    except HfHubHTTPError as error:
        if error.response.status_code not in OVERTAKEN:
            raise
        raise Interrupted("another change came first") from None


class Repository:
    """One repository, and the policy whose clock starts here.

    Args:
        name: the name, as "owner/name".
        token: the access token; by default the one of `hf auth login`. True insists on that one, False sends none.
        policy: the retry policy, which says how patient to be.

    Raises:
        ValueError: if the name, the token or the Hub's address is malformed.
        TypeError: if one of them has the wrong type.
    """

    def __init__(self, name: str, token: str | bool | None = None, policy: RetryPolicy | None = None) -> None:
        check_text("repo_id", name)
        self.name = name
        self.token = token_to_send(token)
        # False: that there is no token is decided, and not for each request again.
        self.api = HfApi(token=self.token or False, library_name="qpa_hf", library_version=__version__)
        if not constants.HF_HUB_OFFLINE:  # `is_offline_mode` is a name of 1.0
            check_endpoint(self.api.endpoint)
        check_kind("policy", policy, (RetryPolicy, type(None)), "a RetryPolicy or None")
        self.limit = Limit(policy or RetryPolicy(), name, self.token)
        self._trees: dict[str, dict[str, RepoFile]] = {}  # by commit; a commit never changes

    def create(self, private: bool | None) -> None:
        """Make the repository if it is not there.

        Args:
            private: whether to hide it; None for the owner's default.

        Raises:
            ValueError: if the name has no owner.
            AccessDenied: if it is there and public, although `private` is asked.
        """
        if "/" not in self.name:
            raise ValueError(f"The repository's name {shown(self.name)} has no owner. Write it as owner/name.")

        def attempt() -> None:
            # Of a repository that exists already, this call leaves the visibility as it is, and says nothing of it.
            self.api.create_repo(self.name, private=private, exist_ok=True)
            if private and not self.api.repo_info(self.name).private:
                advice = "Make it private in its settings first, or push without asking for a private one"
                raise AccessDenied(f"{self.name} exists and is public; nothing was pushed. {advice}.")

        self.limit.run(attempt)

    def tree(self, commit: str) -> dict[str, RepoFile]:
        """Return the files of a commit by path."""
        if commit not in self._trees:
            found = self.api.list_repo_tree(self.name, recursive=True, revision=commit)
            self._trees[commit] = {file.path: file for file in found if isinstance(file, RepoFile)}
        return self._trees[commit]

    def holds(self, commit: str, files: dict[str, Path]) -> bool:
        """Return whether a commit has all these files, byte for byte, and none of an earlier adapter."""
        # Files of others may stand beside ours (a person's notes, a training log); only those of an adapter must be
        # gone.
        tree = self.tree(commit)
        return not stale(tree, files) and all(
            name in tree and is_same(path, tree[name]) for name, path in files.items()
        )

    def commit(self, files: dict[str, Path], branch: str, message: str, description: str) -> CommitInfo:
        """Put files on a branch in one commit, unless they are there already; a missing branch is made.

        Returns:
            The commit: ours, or the one that already holds the files.

        Raises:
            DamagedFile: if the Hub's files differ from the local ones afterwards.
        """
        # The tip before our first attempt. If an attempt's answer is lost, its commit lies between this tip and the
        # current one, even where somebody else has pushed since.
        first_seen: list[str] = []

        def attempt() -> CommitInfo:
            tip = self._tip(branch)
            for commit in self._since(first_seen, tip, branch):
                if self.holds(commit, files):
                    return self._info(commit, message, description)
            first_seen[:] = first_seen or [tip]
            return self._write(files, branch, message, description, parent=tip)

        return self.limit.run(attempt, branch)

    def propose(self, files: dict[str, Path], message: str, description: str) -> CommitInfo:
        """Open a pull request with one commit of these files, unless an open one of that title holds them already."""

        def attempt() -> CommitInfo:
            tip = self._tip("main")
            if self.holds(tip, files):
                return self._info(tip, message, description)
            found = self.api.get_repo_discussions(self.name, discussion_type="pull_request", discussion_status="open")
            for pull in [pull for pull in found if pull.title == message]:
                commit = self._tip(f"refs/pr/{pull.num}")
                if self.holds(commit, files):
                    return self._info(commit, message, description, pull.url)
            return self._write(files, "main", message, description, parent=tip, create_pr=True)

        return self.limit.run(attempt)

    def check_tag(self, tag: str, files: dict[str, Path]) -> None:
        """Raise if a tag names a commit without these files, before anything is written.

        Raises:
            TagTaken: with what to do.
        """
        self.limit.run(lambda: self._is_tagged(tag, files))

    def tag(self, tag: str, commit: str, files: dict[str, Path]) -> None:
        """Name a commit, unless the tag names one with the same files already.

        Raises:
            TagTaken: if it names another one.
        """

        def attempt() -> None:
            if not self._is_tagged(tag, files):
                with _looking_again():
                    self.api.create_tag(self.name, tag=tag, revision=commit)

        self.limit.run(attempt, commit)

    def _is_tagged(self, tag: str, files: dict[str, Path]) -> bool:
        # A tag that holds the same files is ours from a lost answer, or as good as ours.
        tags = {ref.name: ref.target_commit for ref in self.api.list_repo_refs(self.name).tags}
        if tag in tags and not self.holds(tags[tag], files):
            other = f"names commit {tags[tag][:8]}, which has other files"
            raise TagTaken(f"The tag {tag!r} of {self.name} {other}. Choose another tag, or delete that one.")
        return tag in tags

    def _tip(self, branch: str) -> str:
        try:
            tip = self.api.repo_info(self.name, revision=branch).sha
        except RevisionNotFoundError:
            self.api.create_branch(self.name, branch=branch, exist_ok=True)
            tip = self.api.repo_info(self.name, revision=branch).sha
        if tip is None:
            raise Interrupted("an answer without a commit")
        return tip

    def _since(self, first_seen: list[str], tip: str, branch: str) -> Iterator[str]:
        """Yield the tip, then what lies between it and the tip that was first seen."""
        yield tip
        if first_seen and tip != first_seen[0]:
            for commit in self.api.list_repo_commits(self.name, revision=branch)[1:]:
                if commit.commit_id == first_seen[0]:
                    return
                yield commit.commit_id

    def _write(
        self, files: dict[str, Path], branch: str, message: str, description: str, parent: str, **options: Any
    ) -> CommitInfo:
        # New operations for each attempt: huggingface_hub keeps in them what it knew of an older tip.
        additions = [CommitOperationAdd(name, path) for name, path in files.items()]
        deletions = [CommitOperationDelete(name) for name in sorted(stale(self.tree(parent), files))]
        for operation in additions:  # one by one, because for several it starts threads that know no time limit
            self.api.preupload_lfs_files(self.name, [operation], revision=branch, **options)
        with _looking_again():
            info = self.api.create_commit(
                self.name,
                [*additions, *deletions],
                commit_message=message,
                commit_description=description,
                revision=branch,
                parent_commit=parent,
                **options,
            )
        if not self.holds(info.oid, files):
            raise DamagedFile(f"The files of {self.name} at {info.oid[:8]} differ from the local ones. Push again.")
        return info

    def _info(self, commit: str, message: str, description: str, pr_url: str | None = None) -> CommitInfo:
        return CommitInfo(
            commit_url=f"{self.api.endpoint}/{self.name}/commit/{commit}",
            commit_message=message,
            commit_description=description,
            oid=commit,
            pr_url=pr_url,
            **endpoint_of(self.api),
        )

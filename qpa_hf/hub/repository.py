"""A repository on the Hub, asked and changed so that no lost answer doubles or loses anything.

Each change looks at what is there first. An attempt whose answer was lost has then been done, and is not done again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from qpa_hf._version import __version__
from qpa_hf.hub.errors import AccessDenied, DamagedFile, Interrupted, TagTaken
from qpa_hf.hub.folder import is_same, stale
from qpa_hf.hub.retry import Limit, RetryPolicy

OVERTAKEN = {409, 412}  # statuses: somebody else, or our own attempt whose answer was lost, was there first


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
        name: "owner/name".
        token: access token; by default the one of `hf auth login`.
        policy: how patient to be.
    """

    def __init__(self, name: str, token: str | None = None, policy: RetryPolicy | None = None) -> None:
        self.name, self.token = name, token or get_token()
        self.api = HfApi(token=self.token, library_name="qpa_hf", library_version=__version__)
        self.limit = Limit(policy or RetryPolicy(), name, self.token)
        self._trees: dict[str, dict[str, RepoFile]] = {}  # by commit; a commit never changes

    def create(self, private: bool | None) -> None:
        """Make the repository if it is not there.

        Args:
            private: hide it; None is the owner's default.

        Raises:
            ValueError: if the name has no owner.
            AccessDenied: if it is there and public, although `private` is asked.
        """
        if "/" not in self.name:
            raise ValueError(f"The repository's name {self.name!r} has no owner. Write it as owner/name.")

        def attempt() -> None:
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
        first_seen: list[str] = []  # the tip before our first attempt

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
            _endpoint=self.api.endpoint,
        )

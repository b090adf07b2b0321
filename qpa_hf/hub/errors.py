"""What can go wrong between here and the Hub, each with what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

XET_REFUSAL = re.compile(r"HTTP status client error \((401|403) ")


class HubError(RuntimeError):
    """Something went wrong on the way to the Hub or there. The message says what to do."""


class HubUnavailable(HubError):
    """The Hub could not be reached, or did not do its work, for as long as the policy allows."""


class NotCached(HubError):
    """There is no connection, and no complete copy on this machine."""


class AccessDenied(HubError):
    """The token is wrong, or does not allow this."""


class GatedRepository(AccessDenied):
    """The repository's owner asks for something before its files may be read."""


class RepositoryMissing(HubError):
    """There is no such repository, or it is hidden from this token."""


class RevisionMissing(HubError):
    """The repository has no such branch, tag or commit."""


class FileMissing(HubError):
    """The commit does not have a file that an adapter needs."""


class DamagedFile(HubError):
    """What arrived differs from what the Hub says it sent."""


class TagTaken(HubError):
    """The tag names another commit."""


class Interrupted(Exception):
    """A request that failed in a way that may pass; the retry policy decides what follows.

    Args:
        reason: what happened.
        wait: seconds the Hub asks to wait before the next attempt.
    """

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Damaged(Interrupted):
    """A file that did not arrive as it was sent."""


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and everything it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def hide(error: BaseException, token: str | None) -> None:
    """Take the token out of an error's texts and of all it came from: servers like to repeat what they were sent."""
    for one in chain(error) if token else ():
        one.args = tuple(arg.replace(str(token), "<token>") if isinstance(arg, str) else arg for arg in one.args)
        if isinstance(one, HfHubHTTPError) and one.server_message:
            one.server_message = one.server_message.replace(str(token), "<token>")


def explain(error: Exception, repo_id: str, revision: str | None = None) -> HubError | None:
    """Return what an error of the client means, or None if it has nothing to do with the Hub.

    The true cause may be far down: PEFT turns every refusal into "Can't find 'adapter_config.json'".

    Args:
        error: what was raised.
        repo_id: the repository it was about.
        revision: the branch, tag or commit it was about.
    """
    for one in chain(error):
        if isinstance(one, HubError):
            return one
        if isinstance(one, OfflineModeIsEnabled):
            return NotCached(f"{repo_id} needs the Hub, but HF_HUB_OFFLINE is set. Unset it and try again.")
        if is_refused_by_xet(one):
            return AccessDenied(f"The content store of {repo_id} refused. Pass a `token` with the access it needs.")
        if isinstance(one, HfHubHTTPError):
            return _refusal(one, repo_id, revision or "main")
    return None


def is_refused_by_xet(error: BaseException) -> bool:
    """Return whether hf_xet, which has no types for it, says that its server refuses the token."""
    return isinstance(error, (ConnectionError, RuntimeError)) and bool(XET_REFUSAL.search(str(error)))


def _refusal(error: HfHubHTTPError, repo_id: str, revision: str) -> HubError:
    if isinstance(error, GatedRepoError):
        ask = "Open its page on the Hub with the account of your token and accept its conditions, then try again."
        return GatedRepository(f"{repo_id} is gated. {ask}")
    if isinstance(error, RepositoryNotFoundError):
        hidden = "if it is private, pass a `token` that may read it, or log in with `hf auth login`"
        return RepositoryMissing(f"The Hub shows no repository {repo_id} to you. Check the name; {hidden}.")
    if isinstance(error, RevisionNotFoundError):
        return RevisionMissing(f"{repo_id} has no revision {revision!r}. Pass a branch, tag or commit that it has.")
    if isinstance(error, RemoteEntryNotFoundError):
        return FileMissing(f"{repo_id} at {revision} lacks a file. Check that it is an adapter, or push it again.")
    status = error.response.status_code
    if status == 401:
        return AccessDenied("The Hub does not know this token. Log in with `hf auth login`, or pass another `token`.")
    if status == 403:
        needs = "a push needs write access, a download read access"
        return AccessDenied(f"This token may not do that to {repo_id}: {needs}. Pass a `token` that has it.")
    said = error.server_message or "no reason given"
    return HubError(f"The Hub refused with status {status}: {said}. Change what it names and try again.")

"""What can go wrong between here and the Hub. Whoever catches these needs no huggingface_hub that works."""

from __future__ import annotations

from collections.abc import Iterator


class HubError(RuntimeError):
    """Something went wrong on the way to the Hub or there. The message says what to do."""


class HubUnavailable(HubError):
    """The Hub could not be reached, or did not do its work, for as long as the policy allows."""


class LocalError(HubError):
    """Something on this machine is in the way: a certificate, a proxy, the cache. Trying again changes nothing."""


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
        reason: the words for what happened.
        wait: the seconds that the Hub asks to wait before the next attempt.
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

"""What can go wrong between here and the Hub. Whoever catches these needs no huggingface_hub that works."""

from __future__ import annotations

from collections.abc import Iterator


class HubError(RuntimeError):
    """Something went wrong on the way to the Hub or there. The message says what to do.

    Example:
        >>> try:
        ...     raise NotCached("There is no copy of me/my-adapter on this machine.")
        ... except HubError as error:  # every error of the way to the Hub and back
        ...     print(error)
        There is no copy of me/my-adapter on this machine.
    """


class HubUnavailable(HubError):
    """The Hub could not be reached, or did not do its work, for as long as the policy allows.

    Example:
        >>> issubclass(HubUnavailable, HubError)
        True
    """


class LocalError(HubError):
    """Something on this machine is in the way: a certificate, a proxy, the cache. Trying again changes nothing.

    Example:
        >>> issubclass(LocalError, HubError)
        True
    """


class NotCached(HubError):
    """There is no connection, and no complete copy on this machine.

    Example:
        >>> issubclass(NotCached, HubError)
        True
    """


class AccessDenied(HubError):
    """The token is wrong, or does not allow this.

    Example:
        >>> issubclass(AccessDenied, HubError)
        True
    """


class GatedRepository(AccessDenied):
    """The repository's owner asks for something before its files may be read.

    Example:
        >>> issubclass(GatedRepository, AccessDenied)  # whoever catches this catches both
        True
    """


class RepositoryMissing(HubError):
    """There is no such repository, or it is hidden from this token.

    Example:
        >>> issubclass(RepositoryMissing, HubError)
        True
    """


class RevisionMissing(HubError):
    """The repository has no such branch, tag or commit.

    Example:
        >>> issubclass(RevisionMissing, HubError)
        True
    """


class FileMissing(HubError):
    """The commit does not have a file that an adapter needs.

    Example:
        >>> issubclass(FileMissing, HubError)
        True
    """


class DamagedFile(HubError):
    """What arrived differs from what the Hub says it sent.

    Example:
        >>> issubclass(DamagedFile, HubError)
        True
    """


class TagTaken(HubError):
    """The tag names another commit.

    Example:
        >>> issubclass(TagTaken, HubError)
        True
    """


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

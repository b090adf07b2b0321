"""What goes wrong with a job and at IBM's service: what is worth another try, and what is refused for good."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

Answer = TypeVar("Answer")

# Of the statuses of HTTP that name a mistake of ours, those that another try may mend: too early, too many.
PASSING = (408, 409, 423, 425, 429)


class JobFailed(RuntimeError):
    """A job that failed, or came back short; or a service that could not be asked."""


class JobLost(JobFailed):
    """A job that will never have the counts: another one must be submitted, under another tag."""


class JobRefused(RuntimeError):
    """What IBM's service will not do, however often it is asked: a wrong account, a job it does not take."""


def reason(error: BaseException) -> str:
    """Return the first line of another library's message, without its quotes and its full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip("'\"").rstrip(".")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it came from: IBM's client hides the status of an answer behind one or two."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def is_refusal(error: BaseException) -> bool:
    """Whether IBM's service, or its client here, has refused something for good."""
    from qiskit_ibm_runtime.exceptions import IBMAccountError, IBMNotAuthorizedError
    from requests import RequestException

    # A status of HTTP decides first, because the client's own classes do not tell a passing failure from a refusal.
    errors = list(_chain(error))
    statuses = [status for one in errors if (status := getattr(one, "status_code", None) or 0) > 0]
    if statuses:
        return 400 <= statuses[0] < 500 and statuses[0] not in PASSING
    if any(isinstance(one, IBMNotAuthorizedError) for one in errors):
        return True
    # The client calls a broken connection a wrong token.
    is_of_network = any(isinstance(one, (OSError, RequestException)) for one in errors)
    return isinstance(error, (IBMAccountError, TypeError, ValueError)) and not is_of_network


def ask(what: str, question: Callable[..., Answer], *args: Any, **kwargs: Any) -> Answer:
    """Call a device or its service.

    Args:
        what: the beginning of a sentence that says what has not been done if the call fails.
        question: the function to call.
        args: the positional arguments of the call.
        kwargs: the keyword arguments of the call.

    Raises:
        JobRefused: if another try is of no use.
        JobFailed: if it may be.
    """
    try:
        return question(*args, **kwargs)
    except (JobFailed, JobRefused):
        raise
    except Exception as error:  # Aer, IBM's service and the network each raise their own
        kind = JobRefused if is_refusal(error) else JobFailed
        raise kind(f"{what} ({reason(error)}).") from error

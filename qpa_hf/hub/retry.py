"""The one retry policy: how often, how long between attempts, and how long altogether."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from json import JSONDecodeError
from typing import TypeVar

from huggingface_hub.errors import FileMetadataError, OfflineModeIsEnabled
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from qpa_hf.files import DiskFullError
from qpa_hf.hub.client import TRANSPORT_ERRORS, is_answer
from qpa_hf.hub.errors import Damaged, DamagedFile, HubError, HubUnavailable, Interrupted, chain
from qpa_hf.hub.local import local_error
from qpa_hf.hub.meaning import explain, hide, is_refused_by_xet
from qpa_hf.hub.session import Clock, limited
from qpa_hf.messages import one_line

logger = logging.getLogger(__name__)
T = TypeVar("T")
DEFINITE = (HubError, OfflineModeIsEnabled, DiskFullError)
UNREADABLE = (JSONDecodeError, UnicodeDecodeError)  # an answer that was cut, damaged or is a proxy's
XET = (ConnectionError, TimeoutError)  # what hf_xet raises in uploads; in downloads it is a bare RuntimeError
PASSING: tuple[type[BaseException], ...] = (Interrupted, *TRANSPORT_ERRORS, FileMetadataError, *XET, *UNREADABLE)


@dataclass(frozen=True)
class RetryPolicy:
    """How patient to be. It holds for everything one push or one download asks of the Hub.

    Args:
        attempts (`int`, defaults to `8`): the number of attempts at one step (create, commit, tag, download a file).
        total_seconds (`float`, defaults to `900`): the limit for the whole push or download, waiting included.
        attempt_seconds (`float`, defaults to `300`): the limit for one attempt.
        silence_seconds (`float`, defaults to `60`): the time that the Hub may stay silent within one request. hf_xet
            has settings of its own for that (`HF_XET_CLIENT_READ_TIMEOUT`), but the limit for an attempt ends it too.
        first_wait (`float`, defaults to `1`): the seconds before the second attempt; they double, with jitter.
        longest_wait (`float`, defaults to `30`): the longest wait between attempts in seconds, unless the Hub asks for
            more.

    Example:
        >>> RetryPolicy(attempts=3, total_seconds=120).longest_wait
        30.0
    """

    attempts: int = 8
    total_seconds: float = 900.0
    attempt_seconds: float = 300.0
    silence_seconds: float = 60.0
    first_wait: float = 1.0
    longest_wait: float = 30.0


class Limit:
    """A policy whose clock is running.

    Args:
        policy: the policy.
        repo_id: the repository that errors name.
        token: the token that no error may repeat.
    """

    def __init__(self, policy: RetryPolicy, repo_id: str, token: str | None) -> None:
        self.policy = policy
        self.repo_id = repo_id
        self.token = token
        self.clock = Clock(policy.total_seconds, policy.silence_seconds)

    def run(self, step: Callable[[], T], revision: str | None = None, attempts: int | None = None) -> T:
        """Do a step, again if it fails in a way that may pass.

        Args:
            step: the function to run. It must look at what is there before it writes anything, since the answer to an
                earlier attempt may have been lost after the work was done.
            revision: the revision that errors name.
            attempts: the number of attempts, if other than the policy's.

        Raises:
            HubError: if it failed for good, with the cause and what to do.
        """
        most = attempts or self.policy.attempts
        retrying = Retrying(
            retry=retry_if_exception(is_passing),
            wait=self._wait,
            stop=lambda state: state.attempt_number >= most or state.upcoming_sleep >= self.clock.left,
            before_sleep=self._report,
            reraise=True,
        )
        try:
            return retrying(self._attempt, step)
        except HubError:
            raise
        except Exception as error:
            # What may pass has been tried as often as the policy allows; anything else is named at its first attempt.
            hide(error, self.token)
            if is_passing(error):
                raise self._gave_up(reason_of(error)) from error
            if meaning := explain(error, self.repo_id, revision) or local_error(error):
                raise meaning from error
            raise

    def _attempt(self, step: Callable[[], T]) -> T:
        clock = Clock(min(self.clock.left, self.policy.attempt_seconds), self.policy.silence_seconds)
        try:
            with limited(clock):
                return step()
        except (RuntimeError, KeyboardInterrupt) as error:
            # hf_xet calls a transfer that was ended cancelled, and one that begins after it a keyboard's interrupt,
            # but with a text, which Python's own has not.
            is_persons = isinstance(error, KeyboardInterrupt) and not error.args
            if clock.left > 0 or isinstance(error, HubError) or is_persons:
                raise
            raise Interrupted("an attempt took longer than allowed") from error

    def _wait(self, state: RetryCallState) -> float:
        # Random waits keep many processes, which one outage stopped together, from coming back together.
        growing = wait_random_exponential(self.policy.first_wait, self.policy.longest_wait)
        return max(growing(state), reason_of(state_error(state)).wait)

    def _report(self, state: RetryCallState) -> None:
        error = state_error(state)
        hide(error, self.token)
        logger.warning("%s: %s. Trying again in %.1f s.", self.repo_id, reason_of(error), state.upcoming_sleep)

    def _gave_up(self, reason: Interrupted) -> HubError:
        if isinstance(reason, Damaged):
            advice = "It was removed from the cache. Try again later, or over another network or proxy."
            return DamagedFile(f"A file of {self.repo_id} keeps arriving damaged: {reason}. {advice}")
        advice = "Nothing is half-written; run the same command again later, or allow more time with a `RetryPolicy`."
        return HubUnavailable(f"The Hub could not serve {self.repo_id}: {reason}. {advice}")


def state_error(state: RetryCallState) -> BaseException:
    """Return the error of the attempt that has just failed."""
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error


def is_passing(error: BaseException) -> bool:
    """Return whether an error may pass by itself: the outermost one that says so or says otherwise decides."""
    for one in chain(error):
        if isinstance(one, DEFINITE) or is_answer(one) or is_refused_by_xet(one):
            return False
        # huggingface_hub raises a bare OSError when fewer or more bytes arrived than were announced.
        is_size = type(one) is OSError and one.errno is None
        is_xet = type(one) is RuntimeError and one.__cause__ is None
        if isinstance(one, PASSING) or is_size or is_xet:
            return True
    return False


def reason_of(error: BaseException) -> Interrupted:
    """Return what happened, in a few words."""
    for one in chain(error):
        if isinstance(one, Interrupted):
            return one
    return Interrupted(one_line(f"{type(error).__name__}: {error}".splitlines()[0]).rstrip("."))

"""What bad input may cost: one sentence, some seconds, little memory, no file."""

import re
import signal
import warnings
from contextlib import contextmanager
from pathlib import Path

# What a reader may raise. Others are somebody's mistake, ours or a library's that a file has got into.
DOCUMENTED = (ValueError, TypeError, OSError, RuntimeError, ImportError, MemoryError)
MISTAKES = (RecursionError, NotImplementedError)
SECONDS = 20
LONGEST = 600
MOST_BYTES = 200 * 2**20


class Hang(BaseException):
    """A case took too long; no reader catches this."""


def outcome(call, names=("",)):
    """Return whether a call takes its input, and what is wrong with the way in which it refuses it; None if nothing.

    Args:
        call: without arguments.
        names: of which the refusal must have one.
    """
    try:
        with _bounded(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except DOCUMENTED as error:
        if isinstance(error, MISTAKES):
            return False, f"{type(error).__name__}: {error}"
        return False, _fault_of_words(str(error).strip(), names)
    except (Exception, Hang) as error:
        return False, f"{type(error).__name__}: {error}"
    return True, None


def _fault_of_words(words, names):
    if not 15 <= len(words) <= LONGEST or "\n" in words or "Traceback" in words:
        return f"no sentence ({len(words)} characters): {words[:300]!r}"
    if not re.search(r"[.)'?]$", words) or " " not in words:
        return f"no sentence: {words!r}"
    return None if any(name in words for name in names) else f"names no file: {words!r}"


@contextmanager
def _bounded():
    def stop(*_):
        raise Hang(f"more than {SECONDS} seconds")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def small_memory():
    """Assert that the peak of this process' memory grows little; where Linux does not tell, nothing is asserted."""
    status, forget = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        forget.write_text("5", encoding="ascii")  # the peak becomes what is used now
        before = _peak(status)
    except OSError:
        yield
        return
    yield
    assert _peak(status) - before < MOST_BYTES


def _peak(status):
    return int(re.search(r"VmHWM:\s+(\d+)", status.read_text(encoding="ascii"))[1]) * 1024


def listing(folder):
    """Return what there is below a folder, and how large; a pipe is not opened."""
    return sorted((str(path.relative_to(folder)), path.lstat().st_size) for path in folder.rglob("*"))

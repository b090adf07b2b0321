"""What is wrong with the way in which a bad input ended."""

from __future__ import annotations

import faulthandler
import linecache
import os
import re
import resource
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.faults.children import is_change

DOCUMENTED = (ValueError, TypeError, ImportError, RuntimeError, OSError)
BAD_INPUT, FAILED = 2, 1  # exit codes
EXIT_CODES = {
    ValueError: BAD_INPUT,
    TypeError: BAD_INPUT,
    OSError: BAD_INPUT,
    ImportError: FAILED,
    RuntimeError: FAILED,
}
# Whose sentences may reach a user; elsewhere an exception is somebody's accident, however well it reads.
SPEAKERS = re.compile(r"/(qpa_hf|model_cards|trainer_callbacks|peft|transformers|huggingface_hub)/")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202e]")
ESCAPES = re.compile(r"[\x00\x07\x1b\x7f-\x9f\u202e]")
LONGEST = 1200  # characters of a sentence
SECONDS, MEGABYTES = 20, 200
ROOM = 3 * 2**30  # bytes of address space beyond what there is, so that a leak does not end the machine
OUTSIDE = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system")
OUT = "out"  # where a case may write if it succeeds


class Hung(BaseException):
    """A case took too long."""


class _Watch:
    """Notes what this process does beyond computing, while it is on."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.allowed: tuple[str, ...] = ()
        self.is_on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event in OUTSIDE:
            self.notes.append(f"{event}{args[1:2]}")
        if is_change(event, args) and isinstance(args[0], (str, os.PathLike)):
            path = os.path.abspath(os.fspath(args[0]))
            is_elsewhere = event in ("os.remove", "os.rmdir") and args[1] != -1  # by the folder's handle, of `rmtree`
            if not is_elsewhere and not f"{path}{os.sep}".startswith(self.allowed):
                self.notes.append(f"{event} {path}")


@contextmanager
def judging(allowed: tuple[str, ...]) -> Iterator[Callable[..., str | None]]:
    """Yield a judge of cases, for the rest of this process.

    Args:
        allowed: where libraries may write what they like.
    """
    soft = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * os.sysconf("SC_PAGE_SIZE") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch = _Watch()

    def service(*args: Any, **kwargs: Any) -> Any:
        watch.notes.append("the account's service")
        raise RuntimeError("The service was touched.")

    def hang(*_: Any) -> None:
        raise Hung

    signal.signal(signal.SIGALRM, hang)
    with patch("qiskit_ibm_runtime.QiskitRuntimeService", service):
        yield lambda make, folder: _judge(watch, allowed, make, folder)


def _judge(
    watch: _Watch, allowed: tuple[str, ...], make: Callable[[Path], tuple[str, Callable[[], Any]]], folder: Path
) -> str | None:
    """Return what is wrong with the end of a case, None if nothing is."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / OUT).mkdir(parents=True)
    os.chdir(folder / OUT)  # where relative names lead
    (what, action), out, err = make(folder), StringIO(), StringIO()
    before, error = _snapshot(folder), None
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak of memory starts anew
    start = _status("VmHWM")
    watch.notes, watch.allowed, watch.is_on = [], (*allowed, f"{folder}{os.sep}", f"{os.devnull}{os.sep}"), True
    signal.alarm(SECONDS)
    faulthandler.dump_traceback_later(SECONDS + 5, exit=True)  # where no Python runs that could notice the alarm
    try:
        with patch("sys.stdout", out), patch("sys.stderr", err):
            action()
    except BaseException as caught:  # to be judged
        error = caught
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        watch.is_on = False
    more = (_status("VmHWM") - start) // 1024
    after = _snapshot(folder)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    has_failed = error is not None and not (isinstance(error, SystemExit) and not error.code)
    written = [name for name in changed if has_failed or name.split(os.sep)[0] != OUT]
    found = [_of_error(error, err.getvalue())] if error else []
    found.append("prints control characters" if ESCAPES.search(out.getvalue() + err.getvalue()) else None)
    found.append(f"uses {more} MB" if more > MEGABYTES else None)
    found.append(f"writes {', '.join(written[:3])}" if written else None)
    found.append(f"touches {watch.notes[0]}" if watch.notes else None)
    wrong = "; ".join(filter(None, found))
    return f"{what}: {wrong}".removeprefix(": ") if wrong else None


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = os.lstat(os.path.join(top, name))
            known = (status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else (0, 0)
            found[os.path.relpath(os.path.join(top, name), folder)] = known
    return found


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _of_error(error: BaseException, printed: str) -> str | None:
    if isinstance(error, Hung):
        return f"hangs for {SECONDS} s"
    if not isinstance(error, SystemExit):
        return _of_exception(error)
    cause = error.__context__
    names = {kind.__name__ for kind in type(cause).__mro__}
    if not error.code or "ClickException" in names and error.code == BAD_INPUT:  # Typer's own words
        return None
    if cause is None:
        return f"exit code {error.code} without an error"
    if wrong := _of_exception(cause):
        return wrong
    expected = next(code for kind, code in EXIT_CODES.items() if isinstance(cause, kind))
    if error.code != expected:
        return f"exit code {error.code} instead of {expected}: {cause}"
    n_lines = sum(line.startswith("Error: ") for line in printed.splitlines())
    is_one = n_lines == 1 and "Traceback" not in printed
    return None if is_one else f"prints {n_lines} sentences: {printed[-200:]!r}"


def _of_exception(error: BaseException) -> str | None:
    shown = f"{type(error).__name__}: {str(error)[:200]!r}"
    if not isinstance(error, DOCUMENTED):
        return f"is no documented exception: {shown}"
    if CONTROL.search(str(error)):
        return f"is more than one line, or prints control characters: {shown}"
    if not str(error).strip() or len(str(error)) > LONGEST:
        return f"is no sentence ({len(str(error))} characters): {shown}"
    file, line = _origin(error)
    # The operating system's own sentences, and those that a `raise` statement of somebody who speaks to users makes.
    is_said = SPEAKERS.search(file) and linecache.getline(file, line).strip().startswith("raise")
    if is_said or type(error).__str__ is OSError.__str__:
        return None
    return f"is an accident: {shown} ({'/'.join(Path(file).parts[-2:])}:{line})"


def _origin(error: BaseException) -> tuple[str, int]:
    """Return the file and line that raised an exception."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace else ("", 0)

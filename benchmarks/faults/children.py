"""A child of this process for each run: everything is imported once, and the run can be interrupted anywhere."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Act = Callable[[Path], Any]
LIMIT = 150.0  # seconds after which a run hangs
# What Python tells its audit hooks of before it changes a file; an opening counts if it is for writing.
CHANGES = {
    *(f"os.{name}" for name in ("chmod", "link", "mkdir", "remove", "rename", "rmdir", "symlink", "truncate")),
    *("shutil.copyfile", "shutil.copytree", "shutil.rmtree", "sqlite3.connect"),
}
FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Interruption:
    """When a child gets which signal.

    Args:
        sent: the signal.
        seconds: after its start; None for `change`.
        change: right before it makes its n-th change in the folder, counted from 0.
    """

    sent: signal.Signals
    seconds: float | None = None
    change: int | None = None


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Args:
        code: its exit code, or minus the signal that ended it.
        seconds: how long it ran.
        text: what it printed to standard output and to standard error.
        is_hung: whether it had to be ended.
    """

    code: int
    seconds: float
    text: str
    is_hung: bool = False

    @property
    def last_line(self) -> str:
        """The last line that it printed."""
        return (self.text.strip().splitlines() or [""])[-1]


class Child:
    """A forked child that acts in a folder; what it prints goes to a file beside the folder.

    Args:
        act: what it does.
        folder: where.
        interruption: when it gets a signal, if it does.
        environment: variables for the child.
    """

    def __init__(
        self,
        act: Act,
        folder: Path,
        interruption: Interruption | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.interruption = folder, interruption
        self.log = folder.with_name(f"{folder.name}.{time.monotonic_ns()}.log")
        self.log.touch()  # a child that is killed at once has not opened it yet
        self.start = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            os.environ.update(environment or {})
            _run(act, folder, self.log, interruption)
        self.handle = os.pidfd_open(self.pid)

    def wait(self, limit: float = LIMIT) -> Ended:
        """Wait for the end."""
        moment = self.interruption
        if moment and moment.seconds is not None and not self._is_over(moment.seconds):
            os.kill(self.pid, moment.sent)
        is_hung = not self._is_over(limit)
        if is_hung:
            os.killpg(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        seconds = time.monotonic() - self.start
        os.close(self.handle)
        text = self.log.read_text(encoding="utf-8", errors="replace")
        self.log.unlink()
        return Ended(os.waitstatus_to_exitcode(status), seconds, text, is_hung)

    def _is_over(self, seconds: float) -> bool:
        return bool(select.select([self.handle], [], [], seconds)[0])


def run(act: Act, folder: Path, interruption: Interruption | None = None, **environment: str) -> Ended:
    """Let a child act in a folder and wait for its end."""
    return Child(act, folder, interruption, environment).wait()


def count_changes(act: Act, folder: Path) -> tuple[Ended, int]:
    """Let a child act undisturbed, and return how it ended and how many changes it made in the folder."""
    kept = folder.with_name(f"{folder.name}.changes")

    def counted(folder: Path) -> None:
        found = [0]
        on_change(folder, lambda: found.__setitem__(0, found[0] + 1))
        try:
            act(folder)
        finally:
            kept.write_text(str(found[0]), encoding="utf-8")

    ended = run(counted, folder)
    n_changes = int(kept.read_text(encoding="utf-8"))
    kept.unlink()
    return ended, n_changes


def is_change(event: str, args: tuple[Any, ...]) -> bool:
    """Whether what Python tells its audit hooks is a change of files."""
    return event in CHANGES or event == "open" and isinstance(args[2], int) and bool(args[2] & FOR_WRITING)


def on_change(folder: Path, call: Callable[[], Any]) -> None:
    """Call before each change of a file below a folder, for the rest of this process."""
    inside = f"{folder}{os.sep}"

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if is_change(event, args) and any(
            isinstance(arg, (str, os.PathLike)) and os.path.abspath(os.fspath(arg)).startswith(inside) for arg in args
        ):
            call()

    sys.addaudithook(hook)


def _run(act: Act, folder: Path, log: Path, interruption: Interruption | None) -> None:
    """Act, and end this process."""
    os.setpgid(0, 0)
    # A forked process has lost torch's threads. Its first operation makes a pool anew, and fails with "Invalid thread
    # pool!" where two threads come first at the same time, as when transformers loads weights.
    torch.set_num_threads(torch.get_num_threads())
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's `&` ignores the first
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
    to = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(to, number)
        setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if interruption and interruption.change is not None:
        left = iter(range(interruption.change, -1, -1))
        on_change(folder, lambda: os.kill(os.getpid(), interruption.sent) if next(left, None) == 0 else None)
    code = 0
    try:
        act(folder)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 1
    os._exit(code)

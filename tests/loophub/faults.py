"""What goes wrong: which request, how, and how often."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, fields
from typing import Any

ALWAYS = 10**9


class Dropped(Exception):
    """The connection ends without an answer."""


@dataclass
class Fault:
    """One thing that goes wrong.

    Args:
        request: regular expression searched in "METHOD /path?query".
        what: one of these.
            Before the work is done: "status", "html" (an error page, or with status 200 a page in place of an answer),
            "echo" (an error that repeats the client's credentials), "drop", "cut_upload" (after `at` bytes of the
            request), "hang" (silence), "exit" (the Hub dies), "other_commit" (somebody else commits first).
            After the work is done: "lost" (the answer never comes), "hang_after", "exit_after".
            To the answer of a GET: "cut" (after `at` bytes), "stall" (silence after `at` bytes), "trickle"
            (a byte now and then), "short" (`at` bytes,
            said to be all), "flip" (the byte `at` is changed), "no_range" (the asked range is ignored).
        times: how often it happens.
        skip: how many matching requests go well first.
        status: for "status", "html" and "echo".
        code: `X-Error-Code` for "status".
        headers: further headers for "status".
        at: bytes, for "cut_upload", "cut", "stall", "short"; index of the byte, for "flip".
        clean: end the connection in order (FIN) instead of resetting it (RST).
        files: for "other_commit": {path: text}.
        branch: for "other_commit".
        happened: how often it has happened.
    """

    request: str
    what: str
    times: int = 1
    skip: int = 0
    status: int = 503
    code: str | None = None
    headers: dict[str, str] | None = None
    at: int = 0
    clean: bool = False
    files: dict[str, str] | None = None
    branch: str = "main"
    happened: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Faults:
    """The faults that are still to happen; the first that fits a request happens to it."""

    def __init__(self) -> None:
        self.waiting: list[Fault] = []
        self.lock = threading.Lock()

    def pick(self, line: str) -> Fault | None:
        """Return the fault for this request, and count it."""
        with self.lock:
            for fault in self.waiting:
                if fault.times > 0 and re.search(fault.request, line):
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    fault.happened += 1
                    return fault
        return None

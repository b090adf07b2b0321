"""The Hub as a process that a test starts, kills and starts again, and the control over it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from loophub.faults import Fault

TESTS = Path(__file__).parents[1]
TIMEOUT = 90  # seconds; only a broken Hub takes so long


class LoopHub:
    """A Hub in a process of its own; a context manager.

    Args:
        root: directory of its store.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.port = root, 0
        self.start()

    def __enter__(self) -> LoopHub:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def start(self) -> None:
        """Start listening: on the port it had before, if it ran before."""
        command = [sys.executable, "-m", "loophub.server", str(self.root), str(self.port)]
        self.process = subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def await_death(self) -> None:
        """Wait until a fault has killed it."""
        self.process.wait(TIMEOUT)
        self.process.stdout.close()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def fault(self, request: str, what: str, **about: Any) -> None:
        """Let something go wrong; see `loophub.faults.Fault`."""
        self._ask("fault", Fault(request, what, **about).to_dict())

    def clear(self) -> None:
        """Forget all faults and the log."""
        self._ask("clear", {})

    def change(self, repo: str, **fields: Any) -> None:
        """Change a repository's fields, such as `gated` or `private`."""
        self._ask(f"repos/{repo}", fields)

    def await_hang(self) -> None:
        """Wait until a request hangs on a "hang", "hang_after" or "stall" fault.

        Raises:
            TimeoutError: if none does.
        """
        if not self._ask("hang"):
            raise TimeoutError("No request hung. Look whether the fault's expression fits the request.")

    @property
    def log(self) -> list[dict[str, Any]]:
        """What was asked, in order."""
        return self._ask("log")

    @property
    def unused(self) -> list[str]:
        """The expressions of faults that have not happened."""
        return self._ask("unused")

    @property
    def repos(self) -> dict[str, Any]:
        """All repositories, as the store keeps them."""
        return self._ask("repos")

    def repo(self, name: str) -> dict[str, Any] | None:
        """Return one repository, or None."""
        return self._ask(f"repos/{name}")

    def problems(self, name: str) -> list[str]:
        """Return the files of any commit of a repository that are missing or damaged."""
        return self._ask(f"problems/{name}")

    def _ask(self, path: str, data: Any = None) -> Any:
        request = Request(f"{self.url}/_control/{path}", None if data is None else json.dumps(data).encode())
        with build_opener(ProxyHandler({})).open(request, timeout=TIMEOUT) as answer:
            return json.load(answer)

"""The listening part: endpoints by address, a log of what was asked, and the control that tests use.

Run as `python -m loophub.server ROOT PORT`.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from loophub import reading, writing, xet
from loophub.exchange import Exchange
from loophub.faults import Dropped, Fault, Faults
from loophub.store import HubError, Store

Endpoint = tuple[str, str, Callable[..., Any]]  # method, address, function of the exchange and the address's parts
PAUSE = 0.02  # seconds between the bytes of a trickle
LONGEST_WAIT = 60.0  # seconds a test waits for a request to hang


class Server(ThreadingHTTPServer):
    """The Hub.

    Args:
        root: directory of the store.
        port: port to listen on, on this machine only; 0 picks a free one.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, root: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Exchange)
        self.store, self.faults, self.log = Store(root), Faults(), []
        self.parts: dict[tuple[str, int], bytes] = {}  # of multipart uploads, lost when the Hub dies
        self.hanging = threading.Semaphore(0)
        self.endpoints: list[Endpoint] = CONTROL + reading.ENDPOINTS + writing.ENDPOINTS + xet.ENDPOINTS

    @property
    def storage_address(self) -> str:
        """Where files' contents lie: another origin than the Hub's own, as on the real one."""
        return f"http://localhost:{self.server_address[1]}"

    def handle_error(self, *args: Any) -> None:
        """Write nothing when a client goes away."""

    def dispatch(self, exchange: Exchange) -> None:
        """Call the endpoint that fits the request.

        Raises:
            HubError: 404 if there is none.
        """
        for method, address, function in self.endpoints:
            found = re.fullmatch(address, exchange.route)
            if found and exchange.command in method.split():
                function(exchange, *found.groups())
                exchange.body()
                return
        raise HubError(404, f"Not found: {exchange.route}")

    def note(self, exchange: Exchange) -> None:
        """Write a request into the log."""
        authorization = exchange.headers.get("Authorization", "")
        entry = {"line": exchange.line, "host": exchange.headers.get("Host"), "status": exchange.status}
        entry |= {"authorization": authorization, "range": exchange.headers.get("Range")}
        self.log.append(entry | {"fault": exchange.fault.what if exchange.fault else None})

    # Faults.

    def misbehave(self, exchange: Exchange) -> None:
        """Do what the exchange's fault says about the time before the work.

        Raises:
            HubError: if the fault is an answer.
            Dropped: if the fault ends the connection.
        """
        fault = exchange.fault
        what = fault.what if fault else ""
        if what == "status":
            raise HubError(fault.status, "injected", fault.code, fault.headers)
        if what == "html":
            raise HubError(fault.status, "sorry", headers={"Content-Type": "text/html"})
        if what == "echo":
            raise HubError(fault.status, f"Refused: {exchange.headers.get('Authorization')}")
        if what == "drop":
            raise Dropped
        if what == "cut_upload":
            exchange.body(limit=fault.at)
            raise Dropped
        if what == "hang":
            self.hang()
        if what == "exit":
            os._exit(9)
        if what == "other_commit":
            self._other_commit(fault, _repo_of(exchange.route))

    def _other_commit(self, fault: Fault, name: str) -> None:
        with self.store.lock:
            repo = self.store.repos[name]
            tree = dict(repo["commits"][repo["branches"][fault.branch]]["tree"])
            tree |= {path: self.store.git_entry(text.encode()) for path, text in (fault.files or {}).items()}
            self.store.commit(repo, fault.branch, tree, "somebody else's commit", "carol")

    def lose(self, fault: Fault) -> None:
        """The work is done; the answer stays away."""
        if fault.what == "exit_after":
            os._exit(9)
        if fault.what == "hang_after":
            self.hang()
        raise Dropped

    def trickle(self, exchange: Exchange, data: bytes) -> None:
        """Send a byte now and then until the client goes away."""
        for byte in data:
            exchange.wfile.write(bytes([byte]))
            threading.Event().wait(PAUSE)

    def hang(self) -> None:
        """Say nothing any more; the thread ends with the process."""
        self.hanging.release()
        threading.Event().wait()


def _repo_of(route: str) -> str:
    parts = route.removeprefix("/api/models").strip("/").split("/")
    return "/".join(parts[:2]).removesuffix(".git")


def _add_fault(exchange: Exchange) -> None:
    exchange.server.faults.waiting.append(Fault(**exchange.json()))
    exchange.reply(200, {})


def _clear(exchange: Exchange) -> None:
    exchange.server.faults.waiting.clear()
    exchange.server.log.clear()
    exchange.server.hanging = threading.Semaphore(0)
    exchange.reply(200, {})


def _unused(exchange: Exchange) -> None:
    exchange.reply(200, [fault.request for fault in exchange.server.faults.waiting if not fault.happened])


def _log(exchange: Exchange) -> None:
    exchange.reply(200, [entry for entry in exchange.server.log if "/_control" not in entry["line"]])


def _await_hang(exchange: Exchange) -> None:
    exchange.reply(200, exchange.server.hanging.acquire(timeout=LONGEST_WAIT))


def _repos(exchange: Exchange) -> None:
    exchange.reply(200, exchange.server.store.repos)


def _repo(exchange: Exchange, name: str) -> None:
    exchange.reply(200, exchange.server.store.repos.get(name))


def _problems(exchange: Exchange, name: str) -> None:
    exchange.reply(200, exchange.server.store.problems(name))


def _change(exchange: Exchange, name: str) -> None:
    exchange.server.store.repos[name].update(exchange.json())
    exchange.server.store.save()
    exchange.reply(200, {})


CONTROL: list[Endpoint] = [
    ("POST", "/_control/fault", _add_fault),
    ("POST", "/_control/clear", _clear),
    ("GET", "/_control/log", _log),
    ("GET", "/_control/unused", _unused),
    ("GET", "/_control/hang", _await_hang),
    ("GET", "/_control/repos", _repos),
    ("GET", "/_control/repos/(.+)", _repo),
    ("GET", "/_control/problems/(.+)", _problems),
    ("POST", "/_control/repos/(.+)", _change),
]


if __name__ == "__main__":
    hub = Server(Path(sys.argv[1]), int(sys.argv[2]))
    print(hub.server_address[1], flush=True)
    hub.serve_forever()

"""One request and its answer, with the faults that happen on the wire."""

from __future__ import annotations

import json
import re
import socket
import struct
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from loophub.faults import Dropped
from loophub.store import HubError, Repo

if TYPE_CHECKING:
    from loophub.server import Server

TOKENS = {"hf_writes": ("alice", "write"), "hf_reads": ("alice", "read"), "hf_bob": ("bob", "write")}
AFTER_WORK = ("lost", "hang_after", "exit_after")
DAMAGES_ANSWER = ("cut", "stall", "trickle", "short", "flip")


class Exchange(BaseHTTPRequestHandler):
    """A request being answered."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # 40 ms for each answer otherwise
    server: Server

    def log_message(self, *args: Any) -> None:
        """Write nothing to the terminal; the server keeps a log of its own."""

    def answer_request(self) -> None:
        """Answer one request, or do what the next fault says."""
        parts = urlsplit(self.path)
        self.route, self.query, self.content = parts.path, parse_qs(parts.query), None
        self.fault = None if self.route.startswith("/_control") else self.server.faults.pick(self.line)
        self.status = 0
        try:
            self.server.misbehave(self)
            self.server.dispatch(self)
        except HubError as error:
            self.refuse(error)
        except (Dropped, ConnectionError, TimeoutError):
            self.hang_up()
        finally:
            self.server.note(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer_request

    @property
    def line(self) -> str:
        """The request's first line, without the version."""
        return f"{self.command} {self.path}"

    @property
    def address(self) -> str:
        """The address under which the client reached the Hub."""
        return f"http://{self.headers['Host']}"

    # What came in.

    def body(self, limit: int | None = None) -> bytes:
        """Return the request's body.

        Args:
            limit: give up after this many bytes.

        Raises:
            Dropped: at the limit, or if the client went away.
        """
        if self.content is None:
            if self.headers.get("Expect", "").lower() == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
            self.content = self._chunks(limit) if chunked else self._bytes(limit)
        return self.content

    def _bytes(self, limit: int | None) -> bytes:
        size = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(size if limit is None else min(size, limit))
        if len(content) < size:
            raise Dropped
        return content

    def _chunks(self, limit: int | None) -> bytes:
        content = b""
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            content += self.rfile.read(size)
            self.rfile.readline()
            if limit is not None and len(content) >= limit:
                raise Dropped
        self.rfile.readline()
        return content

    def json(self) -> Any:
        """Return the request's body as JSON."""
        try:
            return json.loads(self.body() or b"{}")
        except ValueError as error:
            raise HubError(400, "Invalid JSON") from error

    def parameter(self, name: str) -> str | None:
        """Return a parameter of the query."""
        return self.query.get(name, [None])[0]

    # What goes out.

    def reply(self, status: int, content: Any = b"", headers: dict[str, str] | None = None) -> None:
        """Answer; anything but bytes goes out as JSON."""
        fault = self.fault
        if fault and fault.what in AFTER_WORK and status < 400:
            self.server.lose(fault)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        damaged = fault and fault.what in DAMAGES_ANSWER and self.command == "GET"
        if damaged and fault.what == "flip" and data:
            data = data[: fault.at] + bytes([data[fault.at] ^ 0xFF]) + data[fault.at + 1 :]
        if damaged and fault.what == "short":
            data = data[: fault.at]
        self._head(status, len(data), headers or {})
        if self.command == "HEAD":
            return
        if damaged and fault.what in ("cut", "stall", "trickle"):
            self.wfile.write(data[: fault.at])
            if fault.what == "stall":
                self.server.hang()
            if fault.what == "trickle":
                self.server.trickle(self, data)
            raise Dropped
        self.wfile.write(data)

    def _head(self, status: int, size: int, headers: dict[str, str]) -> None:
        self.status = status
        self.send_response(status)
        plain = {"Content-Type": "application/json", "Content-Length": str(size), "X-Request-Id": "loophub"}
        for name, value in (plain | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def refuse(self, error: HubError) -> None:
        """Answer with an error, as the Hub words it."""
        headers = dict(error.headers)
        content: Any = b"<html><h1>Sorry</h1></html>"
        if headers.get("Content-Type") != "text/html":
            content = {"error": error.message}
            headers["X-Error-Message"] = error.message.splitlines()[0]
        if error.code:
            headers["X-Error-Code"] = error.code
        try:
            self.body()
            self.reply(error.status, content, headers)
        except (Dropped, ConnectionError, TimeoutError):
            self.hang_up()

    def send_file(self, path: Path, etag: str, headers: dict[str, str] | None = None) -> None:
        """Send a file, or the part of it that the client asks for."""
        if not path.exists():
            raise HubError(404, "no such object")
        data = path.read_bytes()
        out = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        status = 200
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if wanted and not (self.fault and self.fault.what == "no_range"):
            first = int(wanted[1]) if wanted[1] else max(0, len(data) - int(wanted[2]))
            end = min(int(wanted[2]) + 1, len(data)) if wanted[1] and wanted[2] else len(data)
            if first >= len(data):
                return self.reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            out["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
            status, data = 206, data[first:end]
        return self.reply(status, data, out | (headers or {}))

    def hang_up(self) -> None:
        """End the connection: reset it, or in order if the fault says so."""
        self.close_connection = True
        self.status = self.status or -1
        try:
            if self.fault and self.fault.clean:
                self.connection.shutdown(socket.SHUT_RDWR)
            else:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.rfile.close()
                self.connection.close()
        except OSError:
            pass

    # Who asks.

    def user(self, must_write: bool = False) -> str | None:
        """Return who asks.

        Raises:
            HubError: if the token is unknown, or if something is to be written and it does not allow that.
        """
        header = self.headers.get("Authorization")
        if not header:
            if must_write:
                raise HubError(401, "Invalid username or password.")
            return None
        if header.removeprefix("Bearer ") not in TOKENS:
            raise HubError(401, "Invalid credentials in Authorization header")
        name, role = TOKENS[header.removeprefix("Bearer ")]
        if must_write and role != "write":
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        return name

    def repo(self, name: str, write: bool = False, files: bool = False) -> Repo:
        """Return a repository that the asker may see.

        Args:
            name: "owner/name".
            write: the asker wants to write.
            files: the asker wants the files' contents, which a gate may keep back.

        Raises:
            HubError: as the Hub does: it does not say whether a hidden repository exists.
        """
        user, owner = self.user(must_write=write), name.partition("/")[0]
        repo = self.server.store.repos.get(name)
        if repo is None or (repo["private"] and user != owner):
            raise HubError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and user != owner:
            raise HubError(403, f"You don't have the rights to modify {name}")
        if files and repo["gated"] and user != owner:
            text = f"Access to model {name} is restricted. Visit the page to ask for access."
            raise HubError(403 if user else 401, text, "GatedRepo")
        return repo

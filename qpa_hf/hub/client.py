"""What differs between versions of huggingface_hub: the HTTP library it speaks through, and names that some lack.

Up to 0.36 that library is requests, in 1.x httpx, and from 2.0 on httpx2, which has httpx's names. No other module
asks which version is installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from os import PathLike
from typing import Any, Protocol
from urllib.parse import urlsplit

from huggingface_hub import CommitInfo, HfApi, errors
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id

from qpa_hf.hub.errors import Interrupted

HTTP: Any = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])
IS_REQUESTS = HTTP.__name__ == "requests"
TRANSPORT_ERRORS: tuple[type[Exception], ...] = (
    (HTTP.ConnectionError, HTTP.Timeout, HTTP.exceptions.ChunkedEncodingError)
    if IS_REQUESTS
    else (HTTP.TransportError,)
)
BODY: Any = object if IS_REQUESTS else HTTP.SyncByteStream  # httpx takes no other kind of body
LISTS_SINCE = "1.26"  # the first huggingface_hub that keeps a commit's list of files beside its cached files
KEEPS_LISTS = hasattr(HfApi, "resolve_revision")

# Older versions have one class for what the Hub lacks and for what the cache lacks; `is_answer` tells these apart.
RemoteEntryNotFoundError: Any = getattr(errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError)


def is_answer(error: BaseException) -> bool:
    """Return whether an error is the Hub's answer. Before 1.0, a file that the cache lacks is of the same class."""
    return isinstance(error, HfHubHTTPError) and error.response is not None


class Clock(Protocol):
    """Time that is running out."""

    @property
    def left(self) -> float: ...

    @property
    def silence(self) -> float: ...


class _Timed(BODY):
    """A body that ends with the clock, so that a trickle of bytes is no way around it.

    httpx iterates over bodies; requests reads the ones it sends, and asks the ones it receives for a `stream`.
    """

    def __init__(self, body: Any, clock: Clock) -> None:
        self.body = body
        self.clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self.body, name)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts(self.body)

    def stream(self, *args: Any, **options: Any) -> Iterator[bytes]:
        yield from self._parts(self.body.stream(*args, **options))

    def read(self, *args: Any) -> bytes:
        self._check()
        return self.body.read(*args)

    def close(self) -> None:
        self.body.close()

    def _parts(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        for part in parts:
            self._check()
            yield part

    def _check(self) -> None:
        if self.clock.left <= 0:
            raise Interrupted("the allowed time is over")


def limit_request(request: Any, options: dict[str, Any], clock: Clock) -> None:
    """Let a request stay silent only as long as the clock allows, and what it sends end with the clock."""
    # A limit on silence alone would let a server send one byte a minute for ever: the clock is asked at each part,
    # too.
    if not IS_REQUESTS:
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), clock.silence)
        request.stream = _Timed(request.stream, clock)
        return
    options["timeout"] = clock.silence
    if hasattr(request.body, "read"):
        request.body = _Timed(request.body, clock)


def limit_response(response: Any, clock: Clock) -> None:
    """Let what is received end with the clock."""
    name = "raw" if IS_REQUESTS else "stream"
    setattr(response, name, _Timed(getattr(response, name), clock))


def read(response: Any) -> None:
    """Receive an answer's body."""
    _ = response.content if IS_REQUESTS else response.read()


def path_of(request: Any) -> str:
    """Return the path of a request's address."""
    return urlsplit(str(request.url)).path


def abort_transfers() -> None:
    """End all Xet transfers; before 1.20, huggingface_hub cannot, and hf_xet's own time limits hold."""
    if abort := _name("utils._xet", "abort_xet_session"):
        abort()


def rate_limit(headers: Mapping[str, str]) -> Any:
    """Return what the Hub's headers say of its rate limit, None if nothing or before huggingface_hub 1.3."""
    parse = _name("utils._http", "parse_ratelimit_headers")
    return parse(headers) if parse else None


def endpoint_of(api: HfApi) -> dict[str, str]:
    """Return what a CommitInfo is told of the Hub's address; in older versions it finds that in its own."""
    return {"_endpoint": api.endpoint} if "_endpoint" in {field.name for field in fields(CommitInfo)} else {}


def commit_of(api: HfApi, name: str, revision: str | None, cache_dir: str | None) -> str | None:
    """Ask the Hub which commit a revision means."""
    if KEEPS_LISTS:
        return api.resolve_revision(name, revision=revision, cache_dir=cache_dir).resolved
    return api.repo_info(name, revision=revision).sha


def cached_commit(api: HfApi, name: str, revision: str | None, cache_dir: str | None) -> str | None:
    """Return the commit that a revision meant when it was last looked up, or None."""
    if not KEEPS_LISTS:
        validate_repo_id(name)
        return None
    try:
        return api.resolve_revision(name, revision=revision, local_files_only=True, cache_dir=cache_dir).resolved
    except errors.RevisionResolutionError:
        return None


def cached_tree(name: str, commit: str, cache_dir: str | PathLike[str] | None) -> list[RepoFile] | None:
    """Return the files of a cached commit as the Hub listed them, or None if no list was kept."""
    if not KEEPS_LISTS:
        return None
    try:
        return _name("_snapshot_download", "get_cached_repo_tree")(name, revision=commit, cache_dir=cache_dir)
    except errors.CachedRepoTreeNotFoundError:
        return None


def _name(module: str, name: str) -> Any:
    """Return what a module of huggingface_hub calls by a name, None in a version that has no such name."""
    return getattr(importlib.import_module(f"huggingface_hub.{module}"), name, None)

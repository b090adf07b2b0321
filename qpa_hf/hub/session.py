"""The client's HTTP session, so that a silent or broken Hub ends an attempt instead of hanging it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import httpx2
from huggingface_hub.utils import get_session, parse_ratelimit_headers
from huggingface_hub.utils._xet import abort_xet_session

from qpa_hf.hub.errors import Interrupted

BUSY = {408, 425, 429, 500, 502, 503, 504}  # statuses that may pass


class Clock:
    """Time that is running out.

    Args:
        seconds: altogether.
        silence: seconds that the Hub may stay silent within them.
    """

    def __init__(self, seconds: float, silence: float) -> None:
        self.end, self._silence = time.monotonic() + seconds, silence

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.end - time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds that a request may stay silent now."""
        return max(0.001, min(self.left, self._silence))


_clock: ContextVar[Clock | None] = ContextVar("qpa_hf_hub_clock", default=None)


@contextmanager
def limited(clock: Clock) -> Iterator[None]:
    """Within this block, requests of this thread end with the clock, and fail by `Interrupted` when they may pass.

    huggingface_hub sets no time limit by default, retries some requests by a policy of its own and others not at all.
    Here it retries nothing, because it does not know `Interrupted`; the policy that runs the block does. Requests of
    other threads through the same session are left alone.
    """
    client = get_session()
    if "send" not in vars(client):
        vars(client)["send"] = partial(_send, client.send)
    before = _clock.set(clock)
    # Xet transfers run outside of Python. This is the only way to end a silent one, and it ends all there are.
    end_xet = threading.Timer(max(0.0, clock.left), abort_xet_session)
    end_xet.daemon = True
    end_xet.start()
    try:
        yield
    finally:
        end_xet.cancel()
        _clock.reset(before)


def _send(send: Callable[..., httpx2.Response], request: httpx2.Request, **options: Any) -> httpx2.Response:
    clock = _clock.get()
    if clock is None:
        return send(request, **options)
    request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), clock.silence)
    request.stream = _Timed(request.stream, clock)
    is_stream = options.pop("stream", False)
    try:
        response = send(request, stream=True, **options)
        with ExitStack() as unless_kept:
            unless_kept.callback(response.close)
            response.stream = _Timed(response.stream, clock)
            if reason := _reason(response):
                raise Interrupted(f"{reason} to {request.method} {request.url.path}", _asked_wait(response))
            if not is_stream:
                response.read()
            unless_kept.pop_all()
    except httpx2.TransportError as error:
        raise Interrupted(f"{type(error).__name__} at {request.method} {request.url.path}") from error
    return response


def _reason(response: httpx2.Response) -> str | None:
    if response.status_code in BUSY:
        return f"status {response.status_code}"
    is_download = response.request.method in ("GET", "HEAD") and not response.request.url.path.startswith("/api/")
    if response.headers.get("Content-Type", "").startswith("text/html") and not is_download:
        return "an HTML page, perhaps a proxy's, in answer"
    return None


def _asked_wait(response: httpx2.Response) -> float:
    limits = parse_ratelimit_headers(response.headers)
    if response.status_code == 429 and limits is not None and limits.remaining == 0:
        return float(limits.reset_in_seconds)
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else 0.0


class _Timed(httpx2.SyncByteStream):
    """A stream that ends with the clock, so that a trickle of bytes is no way around it."""

    def __init__(self, stream: Any, clock: Clock) -> None:
        self.stream, self.clock = stream, clock

    def __iter__(self) -> Iterator[bytes]:
        for part in self.stream:
            if self.clock.left <= 0:
                raise Interrupted("the time allowed is over")
            yield part

    def close(self) -> None:
        self.stream.close()

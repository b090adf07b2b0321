"""The client's HTTP session, so that a silent or broken Hub ends an attempt instead of hanging it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from huggingface_hub.utils import get_session

from qpa_hf.hub import client
from qpa_hf.hub.errors import Interrupted
from qpa_hf.hub.local import local_error, opening_a_session

BUSY = {408, 425, 429, 500, 502, 503, 504}  # statuses that may pass


class Clock:
    """Time that is running out.

    Args:
        seconds: the seconds until the end.
        silence: the seconds that the Hub may stay silent at a time.
    """

    def __init__(self, seconds: float, silence: float) -> None:
        self.end = time.monotonic() + seconds
        self._silence = silence

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
    with opening_a_session():
        session = get_session()
    # huggingface_hub shares one session among all its calls. Its `send` is wrapped once, and asks for a clock each
    # time.
    if "send" not in vars(session):
        vars(session)["send"] = partial(_send, session.send)
    before = _clock.set(clock)
    # Xet transfers run outside of Python. This is the only way to end a silent one, and it ends all there are.
    end_xet = threading.Timer(max(0.0, clock.left), client.abort_transfers)
    end_xet.daemon = True
    end_xet.start()
    try:
        yield
    finally:
        end_xet.cancel()
        _clock.reset(before)


def _send(send: Callable[..., Any], request: Any, **options: Any) -> Any:
    # The answer is always taken as a stream, so that its body is read here, under the clock, and not before.
    clock = _clock.get()
    if clock is None:
        return send(request, **options)
    client.limit_request(request, options, clock)
    is_stream = options.pop("stream", False)
    try:
        response = send(request, stream=True, **options)
        with ExitStack() as unless_kept:
            unless_kept.callback(response.close)
            client.limit_response(response, clock)
            if reason := _reason(response):
                raise Interrupted(f"{reason} to {request.method} {client.path_of(request)}", _asked_wait(response))
            if not is_stream:
                client.read(response)
            unless_kept.pop_all()
    except client.TRANSPORT_ERRORS as error:
        passing = Interrupted(f"{type(error).__name__} at {request.method} {client.path_of(request)}")
        raise local_error(error) or passing from error
    return response


def _reason(response: Any) -> str | None:
    if response.status_code in BUSY:
        return f"status {response.status_code}"
    asked = response.request
    is_download = asked.method in ("GET", "HEAD") and not client.path_of(asked).startswith("/api/")
    if response.headers.get("Content-Type", "").startswith("text/html") and not is_download:
        return "an HTML page, perhaps a proxy's, in answer"
    return None


def _asked_wait(response: Any) -> float:
    # The Hub's own rate limit says when it ends; a proxy or another server has the standard header alone.
    limits = client.rate_limit(response.headers)
    if response.status_code == 429 and limits is not None and limits.remaining == 0:
        return float(limits.reset_in_seconds)
    asked = response.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else 0.0

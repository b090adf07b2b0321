"""What this machine can tell by itself: what is no token, address or revision, and when it is in the way itself."""

from __future__ import annotations

import errno
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from huggingface_hub import constants, get_token

from qpa_hf.hub.errors import AccessDenied, LocalError, chain
from qpa_hf.messages import one_line

SENDABLE = re.compile(r"[!-~]+")  # the characters of a header's words
SETTINGS = "HF_ENDPOINT and the proxies (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY)"
# What HTTP clients raise for a request that cannot leave this machine, by name: each client has classes of its own.
UNSENDABLE = {"InvalidHeader", "InvalidProxyURL", "InvalidSchema", "InvalidURL", "LocalProtocolError",
              "MissingSchema", "UnsupportedProtocol"}  # fmt: skip
UNWRITABLE = (errno.EACCES, errno.EEXIST, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def token_to_send(token: str | bool | None) -> str | None:
    """Return the token that a request carries, as huggingface_hub understands the argument.

    Args:
        token: the token; None for that of this machine, if it has one and HF_HUB_DISABLE_IMPLICIT_TOKEN is not set;
            True to insist on it; False to send none.

    Raises:
        TypeError: if it is none of these.
        ValueError: if it is nothing that can be sent; the token is not repeated.
        AccessDenied: if this machine has no token, although one is asked for.
    """
    whose = "`token`"
    if token is None or isinstance(token, bool):
        if token is False or token is None and constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
            return None
        found = get_token()
        if found is None and token:
            raise AccessDenied("`token`=True, but this machine has none. Log in with `hf auth login`, or pass one.")
        if found is None:
            return None
        whose = "The token of this machine (HF_TOKEN or `hf auth login`)"
        token = found
    if not isinstance(token, str):
        raise TypeError(f"`token` is {type(token).__name__}. Pass the token as text, None, True or False.")
    if not SENDABLE.fullmatch(token):
        what = "has a space, a line break or another character that no token has" if token else "is empty"
        raise ValueError(f"{whose} {what}. Copy it anew from the settings of your account.")
    return token


def check_endpoint(endpoint: str) -> None:
    """Refuse a Hub's address that no request could be sent to.

    Raises:
        ValueError: with what to do.
    """
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        is_address = False
    if not is_address or not SENDABLE.fullmatch(endpoint):
        raise ValueError(
            f"HF_ENDPOINT is {endpoint!r}, which is not the address of a Hub. Set it to one that begins with "
            "https://, or unset it."
        )


def check_text(argument: str, value: object) -> None:
    """Refuse an argument that is no text.

    Raises:
        TypeError: with its kind.
    """
    if not isinstance(value, str):
        raise TypeError(f"`{argument}` must be text, not {type(value).__name__}. Pass a name on the Hub.")


def check_revision(argument: str, value: str | None) -> None:
    """Refuse what can be no branch, tag or commit; None stands for the main branch, or for no tag.

    Raises:
        TypeError: if it is no text.
        ValueError: if it is empty, or has white space or characters that nobody sees.
    """
    if value is None:
        return
    check_text(argument, value)
    if not value or not value.isprintable() or re.search(r"\s", value):
        raise ValueError(
            f"`{argument}`='{one_line(value)}' cannot name a commit. Pass a branch, tag or commit, or None."
        )


@contextmanager
def opening_a_session() -> Iterator[None]:
    """Say of an HTTP client that cannot be made what it is made of.

    Raises:
        LocalError: with what to do.
    """
    try:
        yield
    except Exception as error:  # of a proxy's address, of a file of certificates, of an extra for SOCKS
        raise LocalError(
            f"This machine's settings allow no connection ({one_line(error)}). Correct the proxies (HTTPS_PROXY, "
            "HTTP_PROXY, ALL_PROXY) and SSL_CERT_FILE, or unset them."
        ) from error


def local_error(error: BaseException) -> LocalError | None:
    """Return what is wrong on this machine, if that is what an error came from."""
    found = (_meaning(one) for one in chain(error))
    return next((LocalError(meaning) for meaning in found if meaning), None)


def _meaning(error: BaseException) -> str | None:
    # Only what trying again cannot change: a network that is away looks different from a machine that is set up
    # wrongly.
    kind = type(error).__name__
    if isinstance(error, ssl.SSLError) and error.reason == "CERTIFICATE_VERIFY_FAILED":
        why = getattr(error, "verify_message", "") or "it cannot be verified"
        return (
            f"This machine does not trust the certificate that it was shown ({one_line(why)}). Set SSL_CERT_FILE to "
            "your network's certificates, and check the clock."
        )
    if kind in UNSENDABLE or isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
        return f"No request can be sent ({one_line(error)}). Correct {SETTINGS}."
    if kind == "ProxyError" and str(error).startswith("4"):
        return f"The proxy refuses ({one_line(error)}). Correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY."
    if isinstance(error, OSError) and error.errno in UNWRITABLE and error.filename:
        return (
            f"{one_line(error.filename)} cannot be used ({error.strerror}). Make it writable, or choose another cache "
            "with HF_HOME or `cache_dir`."
        )
    return None

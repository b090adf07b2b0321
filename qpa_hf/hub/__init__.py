"""Adapters on the Hugging Face Hub: `push` and `load`, which survive what networks and servers do.

What speaks to the Hub is imported when it is first asked for: a huggingface_hub that it does not work with then stops
a push or a load, and no training.

Example:
    >>> from qpa_hf.hub import load, push
    >>> push(model, "me/my-adapter", tag="v1")  # doctest: +SKIP
    >>> model = load("me/my-adapter", revision="v1")  # doctest: +SKIP
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from qpa_hf.hub.errors import (
    AccessDenied,
    DamagedFile,
    FileMissing,
    GatedRepository,
    HubError,
    HubUnavailable,
    LocalError,
    NotCached,
    RepositoryMissing,
    RevisionMissing,
    TagTaken,
)

if TYPE_CHECKING:
    from qpa_hf.hub.loading import load
    from qpa_hf.hub.retry import RetryPolicy
    from qpa_hf.hub.snapshot import download
    from qpa_hf.hub.upload import push

__all__ = [
    "AccessDenied",
    "DamagedFile",
    "FileMissing",
    "GatedRepository",
    "HubError",
    "HubUnavailable",
    "LocalError",
    "NotCached",
    "RepositoryMissing",
    "RetryPolicy",
    "RevisionMissing",
    "TagTaken",
    "download",
    "load",
    "push",
]
_HOMES = {
    "Repository": "repository",
    "RetryPolicy": "retry",
    "download": "snapshot",
    "load": "loading",
    "push": "upload",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"`qpa_hf.hub.{name}` does not work with huggingface_hub {version('huggingface_hub')} ({error}). Install "
            "huggingface_hub>=0.34,<3; training and materializing do not need it."
        ) from error

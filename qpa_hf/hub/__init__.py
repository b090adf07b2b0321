"""Adapters on the Hugging Face Hub: `push` and `load`, which survive what networks and servers do.

Example:
    >>> from qpa_hf.hub import load, push
    >>> push(model, "me/my-adapter", tag="v1")  # doctest: +SKIP
    >>> model = load("me/my-adapter", revision="v1")  # doctest: +SKIP
"""

from qpa_hf.hub.download import download
from qpa_hf.hub.errors import (
    AccessDenied,
    DamagedFile,
    FileMissing,
    GatedRepository,
    HubError,
    HubUnavailable,
    NotCached,
    RepositoryMissing,
    RevisionMissing,
    TagTaken,
)
from qpa_hf.hub.loading import load
from qpa_hf.hub.retry import RetryPolicy
from qpa_hf.hub.upload import push

__all__ = [
    "AccessDenied",
    "DamagedFile",
    "FileMissing",
    "GatedRepository",
    "HubError",
    "HubUnavailable",
    "NotCached",
    "RepositoryMissing",
    "RetryPolicy",
    "RevisionMissing",
    "TagTaken",
    "download",
    "load",
    "push",
]

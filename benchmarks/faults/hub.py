"""A Hub on this machine, and pushes to it that may be interrupted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from huggingface_hub import constants

from benchmarks.faults.scenes import Scene, adapted
from qpa_hf import materialize
from qpa_hf.hub import RetryPolicy, push

TESTS = Path(__file__).parents[2] / "tests"
OWNER, TOKEN = "alice", "hf_writes"
FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors"}


@contextmanager
def started(root: Path) -> Iterator[Any]:
    """Start the Hub of the tests, as a process of its own."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    from loophub import LoopHub

    with LoopHub(root) as hub:
        yield hub


@contextmanager
def reached(hub: Any) -> Iterator[RetryPolicy]:
    """Let the client's requests go to this Hub within the block, with little patience."""
    files = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    known = {"ENDPOINT": hub.url, "HUGGINGFACE_CO_URL_TEMPLATE": files}
    with patch.multiple(constants, HF_HUB_OFFLINE=False, HF_HUB_DISABLE_XET=True, **known):
        yield RetryPolicy(attempts=3, first_wait=0.01, longest_wait=0.02, silence_seconds=20)


def repository(folder: Path) -> str:
    """Return the name of the repository of a run."""
    return f"{OWNER}/{folder.parent.name}"


def scene(hub: Any) -> Scene:
    """Return the push of an adapter to a repository that belongs to the folder."""

    def prepare(folder: Path) -> None:
        materialize(adapted(), folder / "adapter")

    def act(folder: Path) -> None:
        with reached(hub) as policy:
            push(folder / "adapter", repository(folder), tag="v1", token=TOKEN, policy=policy)

    def commits(folder: Path) -> list[dict[str, Any]]:
        known = (hub.repo(repository(folder)) or {"commits": {}})["commits"].values()
        return [commit for commit in known if commit["number"] > 0]

    def is_whole(folder: Path) -> bool:
        name = repository(folder)
        return hub.repo(name) is None or (
            not hub.problems(name) and all(FILES <= commit["tree"].keys() for commit in commits(folder))
        )

    def count(folder: Path) -> Any:
        return [len(commits(folder)), sorted((hub.repo(repository(folder)) or {"tags": {}})["tags"])]

    return Scene("push", act, prepare, is_whole, count)


def leaks(hub: Any) -> list[str]:
    """Return the requests that took a user's token to the place where only contents lie."""
    sent = [entry for entry in hub.log if entry["authorization"].startswith("Bearer hf_")]
    return [entry["line"] for entry in sent if entry["host"].startswith("localhost")]


def redirect(hub: Any, request: str) -> None:
    """Let the Hub send the next such request to another origin."""
    hub.fault(request, "status", status=307, headers={"Location": f"http://localhost:{hub.port}/elsewhere"})

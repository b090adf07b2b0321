"""The adapter on this machine: is it whole, which files belong to it, and do they equal the Hub's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import HFValidationError
from huggingface_hub.utils.sha import git_hash
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from peft.utils.peft_types import PeftType
from safetensors import safe_open

from qpa_hf.checkpoint import check_complete
from qpa_hf.hub.errors import HubUnavailable, NotCached, RepositoryMissing
from qpa_hf.materialize import GENERATOR_PREFIX, WRITTEN

CARD = "README.md"
# Only what loading or reading an adapter needs; optimizer state and pickles, which may hold tokens, stay at home.
SUFFIXES = {".jinja", ".json", ".md", ".model", ".png", ".safetensors", ".txt", ".yaml"}
TRAINING_STATE = {"trainer_state.json"}
FORMS = {"QPA": "native", "LORA": "materialized"}  # every other method of PEFT's: materialized


@contextmanager
def neither_here(name: str) -> Iterator[None]:
    """Say of a name that the Hub does not know that it is no directory either: it may be a mistyped one."""
    try:
        yield
    except (RepositoryMissing, HubUnavailable, NotCached) as error:
        raise type(error)(f"There is no directory {name}; and as a Hub id: {error}") from error
    except HFValidationError as error:
        raise FileNotFoundError(f"There is no directory {name}, and it is no Hub id either ({error})") from error


def kind_of(folder: Path) -> str:
    """Return the method that an adapter's configuration names.

    Raises:
        ValueError: if there is no configuration, or it is damaged.
    """
    path = folder / CONFIG_NAME
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["peft_type"])
    except FileNotFoundError as error:
        raise ValueError(f"There is no {CONFIG_NAME} in {folder}. Pass the folder of an adapter.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}). Save or download the adapter again.") from error


def require(folder: Path, *names: str) -> None:
    """Refuse a folder that lacks a file.

    Raises:
        ValueError: naming it.
    """
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(
                f"There is no {name} in {folder}. Pass a folder that `save_pretrained` or `materialize` wrote."
            )


def form_of(folder: Path) -> str:
    """Return whether a folder holds a native or a materialized adapter, after checking that it is whole.

    Raises:
        ValueError: if something is missing or damaged.
    """
    require(folder, CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME)
    kind = kind_of(folder)
    if kind not in PeftType.__members__:
        raise ValueError(f"{folder} holds a {kind} adapter. Pass a native (QPA) or a materialized one.")
    check_complete(folder)
    with safe_open(folder / SAFETENSORS_WEIGHTS_NAME, framework="pt") as weights:
        keys = list(weights.keys())
    expected = {"QPA": GENERATOR_PREFIX, "LORA": "lora_"}.get(kind, "")
    if not any(expected in key for key in keys):
        raise ValueError(f"The weights in {folder} have no {expected!r} tensors. Save the adapter again.")
    return FORMS.get(kind, "materialized")


def files_of(folder: Path) -> dict[str, Path]:
    """Return the files of a folder that belong to the adapter, by name; subfolders hold other adapters."""
    found = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    return {path.name: path for path in found if path.suffix in SUFFIXES and path.name not in TRAINING_STATE}


def stale(there: Iterable[str], files: Iterable[str]) -> set[str]:
    """Return which of an adapter's own files on the Hub are not pushed again: an old record tells of old weights."""
    return set(WRITTEN) & set(there) - set(files)


def check_secrets(files: Mapping[str, Path], message: str, token: str | None) -> None:
    """Raise if a file or the commit's title contains the token.

    Raises:
        ValueError: naming the file, not the token.
    """
    if token and token in message:
        raise ValueError("`commit_message` contains your access token, so nothing was pushed. Remove it.")
    for name, path in files.items():
        if token and token.encode() in path.read_bytes():
            raise ValueError(f"{path} contains your access token, so nothing was pushed. Remove it from {name}.")


def is_same(path: Path, remote: RepoFile) -> bool:
    """Return whether a file has the size and the hash that the Hub lists."""
    if not path.is_file() or path.stat().st_size != remote.size:
        return False
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if remote.lfs is not None:
        return sha256 == remote.lfs.sha256
    # A list from the cache has git's hash only: of the file, or of the pointer that stands in git for a large file.
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n"
    return remote.blob_id in (git_hash(content), git_hash(pointer.encode()))

"""The adapter on this machine: is it whole, and which files belong to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import HFValidationError
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from peft.utils.peft_types import PeftType

from qpa_hf.checkpoint import GENERATOR_PREFIX, tensors_in
from qpa_hf.hub.errors import HubUnavailable, NotCached, RepositoryMissing
from qpa_hf.materialize import WRITTEN
from qpa_hf.messages import one_line
from qpa_hf.schema import adapter_settings

CARD = "README.md"
FORMS = {"QPA": "native", "LORA": "materialized"}  # every other method of PEFT's: materialized


@contextmanager
def no_such_adapter(name: str) -> Iterator[None]:
    """Say of a name that the Hub does not know that it is no directory either: it may be a mistyped one."""
    try:
        yield
    except (RepositoryMissing, HubUnavailable, NotCached) as error:
        raise type(error)(f"There is no directory {one_line(name)}; and as a Hub id: {error}") from error
    except HFValidationError as error:
        raise FileNotFoundError(
            f"There is no directory {one_line(name)}, and it is not a Hub id either ({one_line(error)})"
        ) from error


def kind_of(folder: Path) -> str:
    """Return the method that an adapter's configuration names.

    Raises:
        ValueError: if there is no configuration, or it is damaged.
    """
    return str(adapter_settings(folder)["peft_type"])


def require(folder: Path, *names: str) -> None:
    """Refuse a folder that lacks a file.

    Raises:
        ValueError: naming it.
    """
    for name in names:
        if not (folder / name).is_file():
            raise ValueError(
                f"There is no {name} in {one_line(folder)}. Pass a folder that `save_pretrained` or `materialize` "
                "wrote."
            )


def form_of(folder: Path) -> str:
    """Return whether a folder holds a native or a materialized adapter, after checking that it is whole.

    Raises:
        ValueError: if something is missing or damaged.
    """
    require(folder, CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME)
    kind = kind_of(folder)
    if kind not in PeftType.__members__:
        raise ValueError(f"{folder} holds a {one_line(kind)} adapter. Pass a native (QPA) or a materialized one.")
    # Names alone, from the file's header: a folder is checked before a gigabyte of weights is read.
    keys = tensors_in(folder)
    expected = {"QPA": GENERATOR_PREFIX, "LORA": "lora_"}.get(kind, "")
    if not any(expected in key for key in keys):
        raise ValueError(f"The weights in {folder} have no {expected!r} tensors. Save the adapter again.")
    return FORMS.get(kind, "materialized")


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
    # A pushed commit cannot be taken back: git keeps what a later one removes.
    for name, path in files.items():
        if token and token.encode() in path.read_bytes():
            raise ValueError(f"{name} contains your access token, so nothing was pushed. Remove it from the file.")

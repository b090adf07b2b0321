"""Collapse a generator into the plain tensors it generates: a checkpoint that needs no generator."""

from __future__ import annotations

import copy
import ctypes
import json
import os
import shutil
import stat
import uuid
import warnings
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import nn

from qpa_hf.checkpoint import read_weights
from qpa_hf.generating.generation import generation_of, remove
from qpa_hf.generating.native import KIND
from qpa_hf.generating.vanilla import Plain, has_plain_form, vanilla, with_base_class
from qpa_hf.model_cards import CARD_NAME, RECORD_NAME, RunRecord, write_card
from qpa_hf.tuner.config import QPAConfig
from qpa_hf.tuner.model import plain_lora_config
from qpa_hf.tuner.sharding import is_fsdp, is_zero3, on_first_process, whole
from qpa_hf.tuner.slots import build_bank, slots_of, target_names, tensors_of

Module = TypeVar("Module", bound=nn.Module)
GENERATOR_PREFIX = "base_model.lora_qpa."
WRITTEN = (SAFETENSORS_WEIGHTS_NAME, CONFIG_NAME, CARD_NAME, RECORD_NAME)
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux, renameat2(2)


class NotFiniteError(ValueError):
    """An adapter has NaN or infinite values."""


@overload
def materialize(model_or_path: Module, path: None = None) -> Module: ...


@overload
def materialize(
    model_or_path: nn.Module | str | os.PathLike[str],
    path: str | os.PathLike[str],
    adapter_name: str = "default",
    record: RunRecord | None = None,
) -> Path: ...


def materialize(
    model_or_path: Any, path: Any = None, adapter_name: str = "default", record: RunRecord | None = None
) -> Any:
    """Write the adapter that a generator generates as a plain checkpoint, and prove that it is one.

    Without `path`, a module whose Parameters `generate` took out gets plain ones back, with exactly the values in use
    and the names of before; nothing is written.

    What was written is read back and compared bit for bit before it takes the place of `path`; an interrupted run
    leaves the old directory or the new one (the exchange is one step where the file system can). Other files in an old
    directory are kept.

    A model that FSDP2 has sharded is gathered: every process must call this together, and the first one writes. Any
    other model is written by the process that calls, so under DistributedDataParallel call it in one.

    Args:
        model_or_path: a `PeftModel` with a QPA adapter, or the directory of a native checkpoint (the base model's
            weights are then not needed).
        path: directory to write; None to put plain Parameters back into a module that `generate` has changed.
        adapter_name: which adapter of the model, or of the directory: PEFT keeps each but "default" in a folder of
            its name.
        record: what the run recorded, for the card; if None, what lies beside a native checkpoint.

    Returns:
        The directory; the module itself where no `path` is given.

    Raises:
        TypeError: if `model_or_path` is neither a PEFT model nor a path.
        FileNotFoundError: if the path holds no weights in safetensors' format.
        ValueError: if the adapter is not a QPA adapter, is incomplete or not finite, or if `path` is no place for it.
        RuntimeError: if what was read back differs from what was written, and `path` is left as it was; or if
            DeepSpeed's ZeRO-3 keeps the model's numbers.
    """
    if path is None:
        return _in_place(model_or_path)
    target = Path(path)
    if isinstance(model_or_path, nn.Module) and is_fsdp(model_or_path):
        plain = _from_model(model_or_path, adapter_name)
        on_first_process(lambda: _check_and_write(plain, target, record))
        return target
    check_target(target, model_or_path)
    if isinstance(model_or_path, (str, os.PathLike)):
        folder = _folder_of(Path(model_or_path), adapter_name)
        plain = _from_folder(folder)
        record = record or _recorded(folder)
    else:
        plain = _from_model(model_or_path, adapter_name)
    _check_and_write(plain, target, record)
    return target


def _folder_of(folder: Path, adapter_name: str) -> Path:
    if adapter_name in ("default", folder.resolve().name):
        return folder
    if not (folder / adapter_name / CONFIG_NAME).is_file():
        raise ValueError(f"{folder} holds no adapter {adapter_name!r}. Pass the directory of the adapter itself.")
    return folder / adapter_name


def _recorded(folder: str | os.PathLike[str]) -> RunRecord | None:
    try:
        return RunRecord.load(folder)
    except ValueError as error:  # it serves the card alone
        warnings.warn(f"{error} The card says nothing of the run.", stacklevel=3)
        return None


def _in_place(module: Any) -> nn.Module:
    if not isinstance(module, nn.Module) or generation_of(unwrapped(module)) is None:
        raise TypeError(
            f"Without a `path`, `materialize` takes a module that `generate` has changed, not a "
            f"{type(module).__name__}. Pass the directory to write as `path`."
        )
    remove(unwrapped(module))
    return module


def _check_and_write(plain: Plain, target: Path, record: RunRecord | None) -> None:
    target = target.resolve()  # what a link points to, not the link
    check_target(target)
    broken = [key for key, tensor in plain.tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise NotFiniteError(f"{broken[0]} has NaN or infinite values; nothing was written. Train with a lower rate.")
    _write(plain, target, record)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DistributedDataParallel and torch.compile's wrappers."""
    while not isinstance(model, PeftModel) and generation_of(model) is None:
        inner = _inner(model)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    return model


def _inner(model: nn.Module) -> Any:
    return model._modules.get("module") or model._modules.get("_orig_mod")  # DistributedDataParallel, torch.compile


def _from_model(model: Any, adapter_name: str) -> Plain:
    peft_model: Any = unwrapped(model) if isinstance(model, nn.Module) else model
    if not isinstance(peft_model, PeftModel):
        raise TypeError(
            f"Cannot materialize a {type(model).__name__}. Pass a PeftModel or the path of a checkpoint; for another "
            "module that `generate` has changed, leave `path` out."
        )
    plain = vanilla(peft_model, adapter_name)
    if plain is not None:
        return plain
    base_model: Any = peft_model.base_model
    config = peft_model.peft_config.get(adapter_name)
    if not isinstance(config, QPAConfig):
        known = [name for name in peft_model.peft_config if has_plain_form(peft_model, name)]
        raise ValueError(
            f"`adapter_name`={adapter_name!r} is not a QPA adapter of this model. It has {known} to materialize; any "
            "other is saved as it is by `save_pretrained`."
        )
    if is_zero3(peft_model):
        raise RuntimeError(
            "DeepSpeed's ZeRO-3 keeps the model's numbers outside of it. Save a checkpoint with the Trainer or with "
            "`accelerator.get_state_dict`, and materialize that directory."
        )
    others = get_peft_model_state_dict(peft_model, adapter_name=adapter_name)
    tensors = {k: whole(v).detach().cpu().clone() for k, v in others.items() if not k.startswith(GENERATOR_PREFIX)}
    config = with_base_class(copy.copy(config), base_model.model)
    return Plain(tensors | base_model.generated_tensors(adapter_name), _lora_config(config), config)


def _from_folder(folder: Path) -> Plain:
    settings = folder / CONFIG_NAME
    if not settings.is_file():
        raise ValueError(f"There is no {CONFIG_NAME} in {folder}. Pass the directory of a saved QPA adapter.")
    kind = _settings(settings).get("peft_type")
    if kind == KIND:
        raise ValueError(
            f"{folder} holds a generator of another method than QPA's, which needs the base model. Load it with "
            "`qpa_hf.load_generated(base, folder)`, and materialize that model."
        )
    if kind != "QPA":
        raise ValueError(f"{folder} holds a {kind} adapter, not a QPA one; there is nothing to materialize.")
    config = QPAConfig.from_pretrained(str(folder))
    weights = read_weights(folder)
    if not config.layout:
        raise ValueError(f"{settings} has no `layout`, so it was not written by a trained model. Save it again.")
    slots = slots_of(config.layout)
    bank = build_bank(config, slots)
    own = {k.removeprefix(GENERATOR_PREFIX): v for k, v in weights.items() if k.startswith(GENERATOR_PREFIX)}
    if _shapes(bank.generator.state_dict()) != _shapes(own):
        raise ValueError(f"The weights in {folder} do not fit its {CONFIG_NAME}. Save or download both again.")
    bank.generator.load_state_dict(own, strict=False)  # an older checkpoint does not say its settings
    others = {k: v for k, v in weights.items() if not k.startswith(GENERATOR_PREFIX)}
    return Plain(others | tensors_of(bank, slots), _lora_config(config), config)


def _shapes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {key: value.shape for key, value in weights.items() if key != "_extra_state"}


def _lora_config(config: QPAConfig) -> LoraConfig:
    plain = plain_lora_config(config)
    plain.inference_mode = True
    if getattr(plain, "ensure_weight_tying", False):
        # PEFT does not load tied adapters from a checkpoint that says so; each is a plain adapter of its own here.
        plain.ensure_weight_tying = False
        plain.target_modules = sorted(target_names(slots_of(config.layout or [])))
    return plain


def check_target(target: Path, source: Any = None) -> None:
    """Refuse a directory that `materialize` could not write, or would lose something in.

    Args:
        target: the directory.
        source: what would be materialized.

    Raises:
        ValueError: saying what is there.
    """
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file. Pass a directory to write the adapter to.")
    if isinstance(source, (str, os.PathLike)) and target.resolve() == Path(source).resolve():
        raise ValueError(f"{target} holds the generator itself, which would be overwritten. Pass another directory.")
    if target.is_dir() and (target.samefile(Path.cwd()) or os.path.ismount(target)):
        raise ValueError(f"{target} itself cannot be exchanged for a new directory. Pass a directory in it.")
    if (target / CONFIG_NAME).is_file():
        settings = _settings(target / CONFIG_NAME)
        kind = settings.get("peft_type")
        if kind in ("QPA", KIND) or kind == "BOTTLENECK" and settings.get("activation") == "none":
            raise ValueError(
                f"{target} holds a native checkpoint, which would be overwritten. Pass another directory."
            )
    elif target.is_dir() and any(target.iterdir()):
        raise ValueError(f"{target} is not empty and holds no adapter. Pass a new or empty directory.")


def _settings(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}). Save or download it again.") from error


def _write(plain: Plain, target: Path, record: RunRecord | None) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.parent / f".{target.name}.{uuid.uuid4().hex}.partial"
        partial.mkdir()
    except OSError as error:
        raise ValueError(
            f"Cannot write beside {target}, in {target.parent}: {error.strerror}. Pass a directory in one that can be "
            "written."
        ) from error
    try:
        if target.is_dir():
            shutil.copytree(target, partial, symlinks=True, dirs_exist_ok=True)
            partial.chmod(stat.S_IRWXU)  # the old directory may be read-only
            for link in filter(Path.is_symlink, map(partial.joinpath, WRITTEN)):
                link.unlink()  # not to write where it leads
        save_file(plain.tensors, partial / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        plain.config.save_pretrained(str(partial))
        kind, origin = ("folded", plain.config) if plain.origin is None else ("materialized", plain.origin)
        write_card(kind, partial, origin, record, str(plain.config.peft_type.value))
        _prove(plain, partial)
        if target.is_dir():
            shutil.copymode(target, partial)
        _exchange(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _prove(plain: Plain, folder: Path) -> None:
    """Read back what was written and compare every tensor bit for bit."""
    written = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    same = written.keys() == plain.tensors.keys() and all(
        written[key].dtype == value.dtype and torch.equal(written[key], value) for key, value in plain.tensors.items()
    )
    settings = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    if not same or settings["peft_type"] != plain.config.peft_type:
        raise RuntimeError(f"What was written for {folder} differs when read back; the target was left as it was.")


def _exchange(partial: Path, target: Path) -> None:
    """Put `partial` in the place of `target` in one step; afterwards `partial` holds what was there before."""
    if not target.exists():
        partial.rename(target)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    paths = (os.fsencode(partial), os.fsencode(target))
    if hasattr(libc, "renameat2") and libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0:
        return
    old = partial.with_suffix(".old")  # file systems without an exchange: the old directory stays beside until the end
    try:
        target.rename(old)
        partial.rename(target)
    except BaseException:
        if not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)

"""Collapse a generator into the plain tensors it generates: a checkpoint that needs no generator."""

from __future__ import annotations

import os
import shutil
import stat
import warnings
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch import nn

from qpa_hf.checkpoint import GENERATOR_PREFIX, read_weights
from qpa_hf.files import is_temporary, replacing
from qpa_hf.messages import check_kind, check_path, one_line
from qpa_hf.model_cards import CARD_NAME, RECORD_NAME, RunRecord, write_card
from qpa_hf.models import unwrapped
from qpa_hf.networks.native import KIND
from qpa_hf.networks.plain import Plain, generated_form, has_plain_form, lora_config_of, plain_form
from qpa_hf.networks.portable import portable_form
from qpa_hf.reading import attachment_of, remove
from qpa_hf.schema import adapter_settings, naming
from qpa_hf.sharding import is_fsdp, is_zero3, on_first_process
from qpa_hf.tuners.qpa.config import QPAConfig
from qpa_hf.tuners.qpa.injected import has_adapters
from qpa_hf.tuners.qpa.slots import build_bank, slots_of, tensors_of

Module = TypeVar("Module", bound=nn.Module)
SCALES = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")  # settings that decide what B A is worth
WRITTEN = (SAFETENSORS_WEIGHTS_NAME, CONFIG_NAME, CARD_NAME, RECORD_NAME)


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
    portable: bool = False,
) -> Path: ...


def materialize(
    model_or_path: Any,
    path: Any = None,
    adapter_name: str = "default",
    record: RunRecord | None = None,
    portable: bool = False,
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
        model_or_path: a `PeftModel` with a QPA adapter, or a model into which one was injected; a module or pipeline
            with one such model in it, as a SentenceTransformer has; or the directory of a native checkpoint (the base
            model's weights are then not needed).
        path: directory to write; None to put plain Parameters back into a module that `generate` has changed.
        adapter_name: which adapter of the model, or of the directory: PEFT keeps each but "default" in a folder of
            its name.
        record: what the run recorded, for the card; if None, what lies beside a native checkpoint.
        portable: whether to fold every scale into `lora_B`, so that `lora_alpha` is `r` and there are neither rsLoRA
            nor patterns, for readers that know no more: llama.cpp, vLLM, SGLang and others. All layers then have one
            rank, the smaller ones padded with zeros. Scales that are powers of two are folded exactly; with others
            each number of `lora_B` is rounded once more, by at most half a unit in its last place (6e-8 of it). It is
            not the default, because PEFT itself needs none of this and would lose by it: the bits of the model's
            answers where a scale is no power of two, the settings to train on with, a small rank where others are
            large, and DoRA, biases and saved modules, which have no such form.

    Returns:
        The directory; the module itself where no `path` is given.

    Raises:
        TypeError: if `model_or_path` is neither a PEFT model nor a path, or another argument is of another kind.
        FileNotFoundError: if the path holds no weights in safetensors' format.
        ValueError: if the adapter is not a QPA adapter, is incomplete or not finite, has no portable form where that
            is asked for, or if `path` is no place for it.
        RuntimeError: if what was read back differs from what was written, and `path` is left as it was; or if
            DeepSpeed's ZeRO-3 keeps the model's numbers.

    Example:
        >>> import tempfile
        >>> from peft import get_peft_model
        >>> from qpa_hf import QPAConfig
        >>> model = get_peft_model(nn.Sequential(nn.Linear(512, 512)), QPAConfig(r=8, target_modules=["0"]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     adapter = materialize(model, f"{folder}/adapter")
        ...     sorted(path.name for path in adapter.iterdir())
        ['README.md', 'adapter_config.json', 'adapter_model.safetensors']
    """
    check_kind("portable", portable, bool, "True or False")
    if path is None:
        if portable:
            raise TypeError("`portable`=True is about a checkpoint. Pass the directory to write as `path`.")
        return _in_place(model_or_path)
    check_kind("path", path, (str, os.PathLike), "a directory's path, or None")
    check_kind("adapter_name", adapter_name, str, "the adapter's name")
    check_kind("record", record, (RunRecord, type(None)), "a RunRecord or None")
    form = portable_form if portable else _as_it_is
    target = check_path(path)
    if isinstance(model_or_path, nn.Module) and is_fsdp(model_or_path):
        plain = form(_from_model(model_or_path, adapter_name))
        on_first_process(lambda: _check_and_write(plain, target, record))
        return target
    if not isinstance(model_or_path, (str, os.PathLike)):
        check_target(target)
        _check_and_write(form(_from_model(model_or_path, adapter_name)), target, record)
        return target
    source = check_path(model_or_path)
    check_target(target, source)
    folder = _folder_of(source, adapter_name)
    plain = form(_from_folder(folder))
    _check_and_write(plain, target, record or _recorded(folder))
    return target


def _as_it_is(plain: Plain) -> Plain:
    return plain


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
    if not isinstance(module, nn.Module) or attachment_of(unwrapped(module)) is None:
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


def _from_model(model: Any, adapter_name: str) -> Plain:
    module = model if isinstance(model, nn.Module) else getattr(model, "model", model)  # a pipeline has one
    peft_model: Any = unwrapped(module) if isinstance(module, nn.Module) else module
    if not has_adapters(peft_model):
        raise TypeError(
            f"Cannot materialize a {type(model).__name__}. Pass a PeftModel, a model with one in it, or the path of a "
            "checkpoint; for another module that `generate` has changed, leave `path` out."
        )
    plain = plain_form(peft_model, adapter_name)
    if plain is not None:
        return plain
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
    return generated_form(peft_model, adapter_name)


def _from_folder(folder: Path) -> Plain:
    kind = adapter_settings(folder)["peft_type"]
    if kind == KIND:
        raise ValueError(
            f"{folder} holds a generator of another method than QPA's, which needs the base model. Load it with "
            "`qpa_hf.load_generated(base, folder)`, and materialize that model."
        )
    if kind != "QPA":
        raise ValueError(f"{folder} holds a {one_line(kind)} adapter, not a QPA one; there is nothing to materialize.")
    config = QPAConfig.from_pretrained(str(folder))
    weights = read_weights(folder)
    slots = slots_of(config.layout)
    bank = build_bank(config, slots)
    own = {k.removeprefix(GENERATOR_PREFIX): v for k, v in weights.items() if k.startswith(GENERATOR_PREFIX)}
    # peft 0.18 saves the other adapters' generators, too; their names, with a dot behind, are left in the keys.
    own = {name: tensor for name, tensor in own.items() if "." not in name}
    with naming(folder):
        bank.generator.load_state_dict(own, strict=False)  # an older checkpoint does not say its settings
    others = {k: v for k, v in weights.items() if not k.startswith(GENERATOR_PREFIX)}
    return Plain(others | tensors_of(bank, slots), lora_config_of(config), config)


def check_target(target: Path, source: Path | None = None) -> None:
    """Refuse a directory that `materialize` could not write, or would lose something in.

    Args:
        target: the directory.
        source: folder of what would be materialized, if it is one.

    Raises:
        ValueError: saying what is there.
    """
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file. Pass a directory to write the adapter to.")
    if source is not None and target.resolve() == source.resolve():
        raise ValueError(f"{target} holds the generator itself, which would be overwritten. Pass another directory.")
    if target.is_dir() and (target.samefile(Path.cwd()) or os.path.ismount(target)):
        raise ValueError(f"{target} itself cannot be exchanged for a new directory. Pass a directory in it.")
    if (target / CONFIG_NAME).is_file():
        settings = adapter_settings(target)
        kind = settings["peft_type"]
        if kind in ("QPA", KIND) or kind == "BOTTLENECK" and settings.get("activation") == "none":
            raise ValueError(
                f"{target} holds a native checkpoint, which would be overwritten. Pass another directory."
            )
    elif target.is_dir() and not all(is_temporary(path.name) for path in target.iterdir()):
        raise ValueError(f"{target} is not empty and holds no adapter. Pass a new or empty directory.")


def _write(plain: Plain, target: Path, record: RunRecord | None) -> None:
    with replacing(target) as partial:
        try:
            partial.mkdir(parents=True)
        except OSError as error:
            raise ValueError(
                f"Cannot write beside {target}, in {target.parent}: {error.strerror}. Pass a directory in one that "
                "can be written."
            ) from error
        if target.is_dir():
            shutil.copytree(target, partial, ignore=_temporary, symlinks=True, dirs_exist_ok=True)
            partial.chmod(stat.S_IRWXU)  # the old directory may be read-only
            for link in filter(Path.is_symlink, map(partial.joinpath, WRITTEN)):
                link.unlink()  # not to write where it leads
        save_file(plain.tensors, partial / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        plain.config.save_pretrained(str(partial))
        kind, origin = ("folded", plain.config) if plain.origin is None else ("materialized", plain.origin)
        if plain.is_portable and plain.origin is not None:
            kind = "portable"
        write_card(kind, partial, origin, record, str(plain.config.peft_type.value))
        _prove(plain, partial)
        if target.is_dir():
            shutil.copymode(target, partial)


def _temporary(_: str, names: list[str]) -> list[str]:
    return list(filter(is_temporary, names))


def _prove(plain: Plain, folder: Path) -> None:
    """Read back what was written and compare every tensor bit for bit, and the settings that scale them."""
    written = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    same = written.keys() == plain.tensors.keys() and all(
        written[key].dtype == value.dtype and torch.equal(written[key], value) for key, value in plain.tensors.items()
    )
    settings = adapter_settings(folder)
    scaled = all(settings.get(name) == getattr(plain.config, name, None) for name in SCALES)
    if not same or not scaled or settings["peft_type"] != plain.config.peft_type:
        raise RuntimeError(f"What was written for {folder} differs when read back; the target was left as it was.")

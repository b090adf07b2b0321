"""The only file that touches PEFT's enum, mappings and classes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from peft import PeftConfig, PeftModel
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method
from peft.utils.peft_types import PeftType

from qpa_hf.files import naming_full_disk
from qpa_hf.schema import adapter_settings, check_method


def extend_peft_type(name: str) -> None:
    """Add a member to `PeftType`; PEFT has no public way to do so.

    A plain string in its place would break what reads `.value`.
    """
    if name in PeftType.__members__:
        return
    member = str.__new__(PeftType, name)
    member._name_ = member._value_ = name
    member._sort_order_ = len(PeftType.__members__)  # type: ignore[attr-defined]
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member
    type.__setattr__(PeftType, name, member)


def register(name: str, config_cls: type, model_cls: type, prefix: str) -> None:
    """Make `get_peft_model` and `from_pretrained` know a method; a second call does nothing."""
    if PeftType(name) not in PEFT_TYPE_TO_TUNER_MAPPING:
        register_peft_method(name=name.lower(), config_cls=config_cls, model_cls=model_cls, prefix=prefix)


def register_unloadable(name: str, config_cls: type) -> None:
    """Let PEFT find, for a form that it cannot load, a configuration that says what to call instead.

    `PeftType` stays as it is, for the form is no method.
    """
    PEFT_TYPE_TO_CONFIG_MAPPING[name] = config_cls  # type: ignore[index]


def after_model_card(change: Callable[[PeftModel, str], None]) -> None:
    """Let a function change each card that PEFT has written for a model; a second call does nothing.

    PEFT gives a method no say in the card, and Trainer, which writes one of its own, gives it to PEFT last.
    """
    write = PeftModel.create_or_update_model_card
    if hasattr(write, "__wrapped__"):
        return

    @functools.wraps(write)
    def create_or_update_model_card(self: PeftModel, output_dir: str) -> None:
        write(self, output_dir)
        change(self, output_dir)

    PeftModel.create_or_update_model_card = create_or_update_model_card  # type: ignore[method-assign]


_after_saving: list[Callable[[str, PeftConfig], None]] = []


def after_saving(act: Callable[[str, PeftConfig], None]) -> None:
    """Let a function act on each folder to which an adapter of ours was saved, such as write its card."""
    if act not in _after_saving:
        _after_saving.append(act)


def saved(folder: str, config: PeftConfig) -> None:
    """Tell all who asked (`after_saving`) that an adapter was saved."""
    for act in _after_saving:
        act(folder, config)


def name_damaged_configurations() -> None:
    """Let PEFT name the file where an adapter's configuration is none; a second call does nothing.

    PEFT reads the method's name before any method has a say, and ends in the errors of Python's JSON. Where it reads
    all, nothing changes.
    """
    read: Callable[..., dict[str, Any]] = PeftConfig.from_json_file.__func__  # type: ignore[attr-defined]
    if hasattr(read, "__wrapped__"):
        return

    @functools.wraps(read)
    def from_json_file(cls: type[PeftConfig], path_json_file: str, **kwargs: Any) -> dict[str, Any]:
        try:
            settings = read(cls, path_json_file, **kwargs)
            if cls is PeftConfig:  # the next that PEFT does is to look the method up
                check_method(settings["peft_type"], path_json_file)
        except (ValueError, TypeError, LookupError, RecursionError):
            adapter_settings(*os.path.split(path_json_file))  # which says what is wrong, if it is the file
            raise
        return settings

    PeftConfig.from_json_file = classmethod(from_json_file)  # type: ignore[assignment]


def name_full_disks() -> None:
    """Let PEFT say of a model that it cannot save that the disk is full; a second call does nothing."""
    save = PeftModel.save_pretrained
    if hasattr(save, "__wrapped__"):
        return

    @functools.wraps(save)
    def save_pretrained(self: PeftModel, save_directory: str, *args: Any, **kwargs: Any) -> None:
        with naming_full_disk(save_directory):
            save(self, save_directory, *args, **kwargs)

    PeftModel.save_pretrained = save_pretrained  # type: ignore[method-assign]

"""The only file that touches PEFT's enum and mappings."""

from __future__ import annotations

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils import register_peft_method
from peft.utils.peft_types import PeftType


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

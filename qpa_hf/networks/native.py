"""The folder of a PEFT method whose tensors are generated: what its configuration says, and whether that can be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import CONFIG_NAME

from qpa_hf.messages import one_line, shown
from qpa_hf.schema import adapter_settings, check_kinds, check_layout, fits, naming
from qpa_hf.schema.kinds import words
from qpa_hf.tuners.qpa.machine import recorded
from qpa_hf.tuners.registration import register_unloadable

FIELDS = {  # of the configuration file of such a folder
    "adapter_name": str,
    "base_model_name_or_path": str | None,
    "task_type": str | None,
    "method": dict,
    "generator": dict,
    "layout": list,
}
KIND = "GENERATED"  # stands where PEFT looks for its method, so that it stops instead of loading nothing


class Unloadable(PeftConfig):
    """What PEFT finds for a native folder, whose generator only `load_generated` knows how to place."""

    def __init__(self, base_model_name_or_path: str | None = None, **settings: Any) -> None:
        method = settings["method"].get("peft_type") if isinstance(settings.get("method"), dict) else None
        raise ValueError(
            f"The tensors of this {one_line(method)} adapter are generated, which PEFT cannot load by itself. Use "
            f"`qpa_hf.load_generated(base, folder)` on its base model ({one_line(base_model_name_or_path)})."
        )


register_unloadable(KIND, Unloadable)


def read_settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings of a native folder, without what it says of a computer's devices.

    Raises:
        ValueError: if it is none.
    """
    settings = adapter_settings(folder)
    if settings["peft_type"] != KIND:
        raise ValueError(f"{folder} holds no adapter with a generator. Pass a folder that `save_pretrained` wrote.")
    with naming(Path(folder) / CONFIG_NAME):
        _check_settings(settings)
    return settings | {"generator": recorded(settings["generator"])}


def _check_settings(settings: dict[str, Any]) -> None:
    for name, kind in FIELDS.items():
        if not fits(settings.get(name), kind):
            raise ValueError(f"`{name}`={shown(settings.get(name))} is not allowed. Set it to {words(kind)}.")
    # A folder may come from a newer version of PEFT, or from anybody: its method is looked up before it is built.
    method = settings["method"].get("peft_type")
    if not isinstance(method, str) or method not in PEFT_TYPE_TO_CONFIG_MAPPING or method == KIND:
        raise ValueError(f"`method` is {shown(method)}, which this version of peft does not know. Upgrade it.")
    check_kinds(settings["method"], PEFT_TYPE_TO_CONFIG_MAPPING[method])  # type: ignore[index]
    check_layout(settings["layout"], is_tied=False)


def as_json(value: Any) -> Any:
    """Return a value with sets and enums as JSON has them."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (set, list, tuple)):
        return [as_json(item) for item in (sorted(value) if isinstance(value, set) else value)]
    return getattr(value, "value", value)

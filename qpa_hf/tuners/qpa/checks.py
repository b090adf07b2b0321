"""What a `QPAConfig` alone can tell of LoRA's settings and of the bases; the generator's room checks its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from peft import LoraConfig

from qpa_hf.generator.checks import Need, check_needs
from qpa_hf.messages import MOST, one_line, one_of, shown, truth_value, whole_number
from qpa_hf.schema import check_kinds, check_layout, check_task
from qpa_hf.schema.kinds import is_number
from qpa_hf.schema.layout import check_bases as check_layout_of_bases

# Where the frozen A (and U) come from: PEFT's random initialisation, or the gradient at the start (initialize_basis).
BASES = ("kaiming", "gradient")

GRADIENT_NEEDS = (
    Need("start", "identity", "cores must be zero at the start"),
    Need("save_init", True, "bases come from data, not from a seed"),
    Need("lora_bias", False, "a bias has no basis"),
)
BIASES = ("none", "all", "lora_only")
# Of LoRA's own settings, those that PEFT itself refuses in the midst of building a model: what each is, and a test.
LORA: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "lora_alpha": ("a finite number", lambda value: value is None or is_number(value)),
    "lora_dropout": ("a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1),
    "rank_pattern": (
        "a dictionary of ranks, whole numbers of at least 1, by module name",
        lambda value: not value or _is_named(value) and all(map(_is_whole, value.values())),
    ),
    "alpha_pattern": (
        "a dictionary of numbers by module name",
        lambda value: not value or _is_named(value) and all(map(is_number, value.values())),
    ),
    "target_modules": ("a name, a list of names, or 'all-linear'", lambda value: _is_names(value)),
    "exclude_modules": ("a name or a list of names", lambda value: _is_names(value)),
}
FLAGS = ("use_dora", "use_rslora", "fan_in_fan_out", "lora_bias")
PATTERNS = ("target_modules", "exclude_modules", "layers_pattern", "rank_pattern", "alpha_pattern")


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and 1 <= int(value) <= MOST


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _is_names(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple, set)) and all(isinstance(name, str) for name in value)
    return value is None or isinstance(value, str) or is_list


def check_kinds_of_lora(config: Any) -> None:
    """Refuse other kinds in LoRA's fields than it declares, where no check here has a sentence of its own.

    Raises:
        ValueError: for an unknown task.
        TypeError: naming the field.
    """
    check_task(config)
    check_kinds(vars(config), LoraConfig, leave=("r", "bias", *LORA, *FLAGS, "peft_type"))


def check_lora(config: Any) -> None:
    """Raise if a setting of LoRA has a value that cannot be.

    Raises:
        ValueError: for a value out of range.
        TypeError: for a value of the wrong kind.
    """
    config.r = whole_number("r", config.r)  # NumPy's numbers are no JSON
    for name, (meant, is_good) in LORA.items():
        value = getattr(config, name)
        if not is_good(value):
            raise ValueError(f"`{name}`={shown(value)} is not allowed. Set it to {meant}.")
        if isinstance(value, Real) and not isinstance(value, (int, float)):
            setattr(config, name, float(value))
    one_of("bias", config.bias, BIASES)
    for name in FLAGS:
        truth_value(name, getattr(config, name))
    _check_patterns(config)


def check_bases(config: Any) -> None:
    """Raise if the settings of gradient bases do not go with the others, or the layout is damaged.

    Raises:
        ValueError: naming the settings.
    """
    _check_stages(config)
    check_needs(config, [("basis", "gradient", need) for need in GRADIENT_NEEDS])
    if config.layout is not None:
        check_layout(config.layout)
        if config.basis == "gradient":
            check_layout_of_bases(config.layout, config.n_stages)


def _check_patterns(config: Any) -> None:
    """Refuse what PEFT takes for a regular expression and is none; a name alone stands for itself."""
    for name in PATTERNS:
        value: Any = getattr(config, name) or ()
        is_text = isinstance(value, str)
        if name.endswith("_modules") and not is_text:
            continue  # a list of names, which are none
        for pattern in [value] if is_text else value:
            try:
                re.compile(pattern)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(
                    f"`{name}`={shown(pattern)} is no regular expression ({one_line(error)}). Escape its special "
                    "characters, or list the modules' names."
                ) from error


def _check_stages(config: Any) -> None:
    if config.n_stages == 1:
        return
    if config.basis != "gradient" or config.use_dora:
        raise ValueError(
            f"`n_stages`={config.n_stages} is not possible: only gradient bases, without DoRA, are found more than "
            "once. Set basis='gradient' and use_dora=False, or n_stages=1."
        )
    for rank in {config.r, *(config.rank_pattern or {}).values()}:
        if rank % config.n_stages:
            raise ValueError(
                f"A rank of {rank} cannot be cut into `n_stages`={config.n_stages} equal parts. Set `r` (and "
                "`rank_pattern`) to a multiple of `n_stages`."
            )

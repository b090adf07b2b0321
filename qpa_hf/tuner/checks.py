"""What a `QPAConfig` alone can tell of its values: each wrong one is answered with a sentence."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from qpa_hf.circuit import ANSATZE, BACKENDS, ESTIMATORS, check_shots
from qpa_hf.circuit.device import FAKE_MACHINES, require_extra
from qpa_hf.circuit.noise import DEVICES
from qpa_hf.generator import ACTIVATIONS, FEATURES, INTERPOLATIONS, SOURCES, STARTS
from qpa_hf.whole_number import whole_number

# Where the frozen A (and U) come from: PEFT's random initialisation, or the gradient at the start (initialize_basis).
BASES = ("kaiming", "gradient")

CHOICES = {
    "ansatz": tuple(ANSATZE),
    "features": tuple(FEATURES),
    "activation": ACTIVATIONS,
    "start": STARTS,
    "source": SOURCES,
    "basis": BASES,
    "backend": tuple(BACKENDS),
    "gradient": (None, *ESTIMATORS),
    "noise": (None, *DEVICES),
    "interpolation": tuple(INTERPOLATIONS),
    "bias": ("none", "all", "lora_only"),
}
EXCLUSIVE: tuple[tuple[str, str, str, Any, str], ...] = (  # a setting's value, and what it needs another one to be
    ("basis", "gradient", "start", "identity", "cores must be zero at the start"),
    ("basis", "gradient", "save_init", True, "bases come from data, not from a seed"),
    ("basis", "gradient", "target_parameters", None, "experts share one parameter"),
    ("basis", "gradient", "lora_bias", False, "a bias has no basis"),
    ("source", "direct", "start", "identity", "the authors' start is one of mapping models"),
    *(("noise", device, "backend", "exact", "noise is simulated by our own simulator only") for device in DEVICES),
)
COUNTS = ("r", "chunk_size", "n_circuits", "circuit_depth", "n_stages")
# Of LoRA's own settings, those that PEFT itself refuses in the midst of building a model: what each is, and a test.
LORA: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "lora_alpha": ("a finite number", lambda value: value is None or _is_number(value)),
    "lora_dropout": ("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1),
    "rank_pattern": (
        "a dictionary of ranks, whole numbers of at least 1, by module name",
        lambda value: not value or isinstance(value, dict) and all(_is_whole(rank) for rank in value.values()),
    ),
    "alpha_pattern": (
        "a dictionary of numbers by module name",
        lambda value: not value or isinstance(value, dict) and all(map(_is_number, value.values())),
    ),
    "target_modules": ("a name, a list of names, or 'all-linear'", lambda value: _is_names(value)),
    "exclude_modules": ("a name or a list of names", lambda value: _is_names(value)),
}
FLAGS = ("use_basis_bits", "train_circuit", "save_init", "use_dora", "use_rslora", "fan_in_fan_out", "lora_bias")
FAKES = tuple(FAKE_MACHINES)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _is_names(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple, set)) and all(isinstance(name, str) for name in value)
    return value is None or isinstance(value, str) or is_list


def check(config: Any) -> None:
    """Raise if a setting of ours has a value that cannot be.

    Raises:
        ValueError: for a value out of range.
        TypeError: for a value of the wrong kind.
        ImportError: if the backend needs a library that is not installed.
    """
    for name in COUNTS:
        value = getattr(config, name)
        if value is None and name != "r":
            continue  # the basis decides
        setattr(config, name, whole_number(name, value))  # NumPy's numbers are no JSON
    for name, (meant, is_good) in LORA.items():
        value = getattr(config, name)
        if not is_good(value):
            raise ValueError(f"`{name}`={value!r} is not allowed. Set it to {meant}.")
        if isinstance(value, Real) and not isinstance(value, (int, float)):
            setattr(config, name, float(value))
    for name, choices in CHOICES.items():
        value = getattr(config, name)
        if value not in choices:
            raise ValueError(f"`{name}`={value!r} is not known. Choose one of {', '.join(map(repr, choices))}.")
    for name in FLAGS:
        if not isinstance(getattr(config, name), bool):
            raise TypeError(f"`{name}`={getattr(config, name)!r} is not a truth value. Set it to True or False.")
    config.init_seed = whole_number("init_seed", config.init_seed, least=0)
    _check_widths(config)
    check_shots(config.shots)
    if config.interpolation != "none" and config.shots is None:
        raise ValueError(
            f"`interpolation`={config.interpolation!r} has nothing to fill in, because without `shots` every "
            "probability is exact. Set `shots`, or interpolation='none'."
        )
    _check_stages(config)
    _check_device(config)
    for name, value, other, allowed, reason in EXCLUSIVE:
        found = getattr(config, other)
        if getattr(config, name) == value and (found or None) != (allowed or None):
            raise ValueError(
                f"`{name}`={value!r} is not possible with `{other}`={found!r}, because {reason}. Use "
                f"{other}={allowed!r}."
            )
    if config.device is not None and config.layout is None:  # a checkpoint has a layout, and needs no device
        require_extra(config.device)


def _check_widths(config: Any) -> None:
    widths = config.mapping_widths
    if not isinstance(widths, (tuple, list)) or not all(type(w) is int and w > 0 for w in widths):
        raise ValueError(f"`mapping_widths`={widths!r} is not allowed. Set it to a tuple of whole numbers above 0.")
    if config.activation != "none" and not widths:
        raise ValueError(
            f"`activation`={config.activation!r} has no hidden layer to follow. Set `mapping_widths`, or leave "
            "`activation` at 'none'."
        )


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


def _check_device(config: Any) -> None:
    if not isinstance(config.device_folder, (str, os.PathLike)):
        raise TypeError(f"`device_folder`={config.device_folder!r} is not a path. Set it to a directory's name.")
    config.device_folder = os.fspath(config.device_folder)  # a Path is no JSON
    known = f"one of {', '.join(map(repr, FAKES))}, or an 'ibm_...' of your account"
    if (config.backend == "ibm") != (config.device is not None):
        raise ValueError(
            f"`device`={config.device!r} and `backend`={config.backend!r} do not go together. Use backend='ibm' and "
            f"{known}; or leave both out."
        )
    if config.device is None:
        if config.max_jobs is not None or config.max_shots is not None:
            raise ValueError(
                "`max_jobs` and `max_shots` limit what is submitted to a device, and there is none. Set backend='ibm' "
                "and `device`, or leave them out."
            )
        return
    if config.device not in FAKES and not str(config.device).startswith("ibm_"):
        raise ValueError(f"`device`={config.device!r} is not known. Choose {known}.")
    if config.shots is None:
        raise ValueError("A device measures with a finite number of shots. Set `shots`.")
    if config.gradient == "exact":
        raise ValueError(
            "`gradient`='exact' is a simulator's privilege; a device has no backward pass. Use 'parameter_shift', "
            "'spsa' or 'none'."
        )
    for name in ("max_jobs", "max_shots"):
        value = getattr(config, name)
        if value is not None:
            setattr(config, name, whole_number(name, value))

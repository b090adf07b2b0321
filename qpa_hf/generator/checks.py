"""Checks of a generator's settings: each wrong value gets one sentence that says what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from qpa_hf.circuit import find_ansatz
from qpa_hf.measurement import check_shots
from qpa_hf.measurement.device import FAKE_MACHINES, require_extra
from qpa_hf.measurement.noise import find_native
from qpa_hf.messages import MOST, shown, whole_number

if TYPE_CHECKING:
    from qpa_hf.generator.settings import GeneratorSettings

FAKES = tuple(FAKE_MACHINES)
REAL_DEVICE = re.compile(r"ibm_[a-z0-9_]{1,60}")
KNOWN_DEVICES = f"one of {', '.join(map(repr, FAKES))}, or an 'ibm_...' of your account"


class Need(NamedTuple):
    """What a setting's value needs of another setting.

    Args:
        other: name of the other setting.
        allowed: the only value of it that is possible then.
        reason: the words after "because" in the message.
    """

    other: str
    allowed: Any
    reason: str


def check_needs(settings: Any, needs: Iterable[tuple[str, Any, Need]]) -> None:
    """Refuse two values that exclude each other.

    Args:
        settings: all settings.
        needs: setting, value, and what that value needs.

    Raises:
        ValueError: naming both settings.
    """
    for name, value, (other, allowed, reason) in needs:
        found = getattr(settings, other)
        if getattr(settings, name) == value and (found or None) != (allowed or None):
            raise ValueError(
                f"`{name}`={value!r} is not possible with `{other}`={found!r}, because {reason}. Use "
                f"{other}={allowed!r}."
            )


def count_or_none(name: str, value: Any) -> int | None:
    """Return a count as an int; None where something else decides it."""
    return None if value is None else whole_number(name, value)  # NumPy's numbers are no JSON


def natural_number(name: str, value: Any) -> int:
    """Return a whole number of at least 0 as an int."""
    return whole_number(name, value, least=0)


def widths(name: str, value: Any) -> tuple[int, ...]:
    """Return widths of layers as a tuple.

    Raises:
        ValueError: if one is no whole number above 0.
    """
    if not isinstance(value, (tuple, list)) or not all(type(w) is int and 0 < w <= MOST for w in value):
        raise ValueError(f"`{name}`={shown(value)} is not allowed. Set it to a tuple of whole numbers above 0.")
    return tuple(value)


def ansatz(name: str, value: Any) -> str:
    """Return the name of an ansatz; not one of a fixed number of choices, because users register their own."""
    find_ansatz(value)
    return value


def shots(name: str, value: Any) -> int | str | None:
    """Return a number of shots, or of shots for each basis state."""
    check_shots(value)
    return value


def path(name: str, value: Any) -> str:
    """Return a path as text, because a Path is no JSON.

    Raises:
        TypeError: if it is no path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"`{name}`={shown(value)} is not a path. Set it to a directory's name.")
    return os.fspath(value)


def recorded_device(name: str, value: Any) -> str | None:
    """Return the name of the device that has measured.

    Raises:
        ValueError: if no device has such a name.
    """
    if value is not None and not _is_device(value):
        raise ValueError(f"`{name}`={shown(value)} is not known. The model writes {KNOWN_DEVICES}; leave it out.")
    return value


def _is_device(name: Any) -> bool:
    return isinstance(name, str) and (name in FAKES or REAL_DEVICE.fullmatch(name) is not None)


def check_together(settings: GeneratorSettings) -> None:
    """Refuse values that are possible one by one, but not together.

    Raises:
        ValueError: naming the settings.
        ImportError: if a device needs a library that is not installed.
    """
    if settings.activation != "none" and not settings.mapping_widths:
        raise ValueError(
            f"`activation`={settings.activation!r} has no hidden layer to follow. Set `mapping_widths`, or leave "
            "`activation` at 'none'."
        )
    if settings.interpolation != "none" and settings.shots is None:
        raise ValueError(
            f"`interpolation`={settings.interpolation!r} has nothing to fill in, because without `shots` every "
            "probability is exact. Set `shots`, or interpolation='none'."
        )
    _check_device(settings)
    if settings.noise is not None:
        own = Need("backend", "exact", "noise is simulated by our own simulator only")
        check_needs(settings, [("noise", settings.noise, own)])
    if settings.noise is not None or settings.backend == "ibm":
        find_native(settings.ansatz)
    if settings.device is not None:
        require_extra(settings.device)


def _check_device(settings: GeneratorSettings) -> None:
    is_on_device = settings.backend == "ibm"
    is_recorded = is_on_device and settings.measured_by is not None  # a checkpoint needs no device
    if is_on_device != (settings.device is not None) and not is_recorded:
        raise ValueError(
            f"`device`={shown(settings.device)} and `backend`={settings.backend!r} do not go together. Use "
            f"backend='ibm' and {KNOWN_DEVICES}; or leave both out."
        )
    if settings.device is None:
        if settings.max_jobs is not None or settings.max_shots is not None:
            raise ValueError(
                "`max_jobs` and `max_shots` limit what is submitted to a device, and there is none. Set backend='ibm' "
                "and `device`, or leave them out."
            )
        if not is_recorded:
            return
    elif not _is_device(settings.device):
        raise ValueError(f"`device`={shown(settings.device)} is not known. Choose {KNOWN_DEVICES}.")
    if settings.shots is None:
        raise ValueError("A device measures with a finite number of shots. Set `shots`.")
    if settings.gradient == "exact":
        raise ValueError(
            "`gradient`='exact' is a simulator's privilege; a device has no backward pass. Use 'parameter_shift', "
            "'spsa' or 'none'."
        )

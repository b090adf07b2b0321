"""Settings that belong to a computer and its account: given in this process, neither written to a file nor read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qpa_hf.generator import GeneratorSettings, settings_in

# A device costs money and its folder is made here, so that a stranger's checkpoint must not choose them.
MACHINE = tuple(name for name, declared in settings_in(GeneratorSettings).items() if declared.is_local)


def recorded(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as a file has them: of what belongs to a computer, only the name of the device that measured.

    Args:
        settings: by name, in use or read from a file, whatever version wrote it.

    Example:
        >>> recorded({"r": 4, "backend": "ibm", "device": "ibm_torino", "max_jobs": 10})
        {'r': 4, 'backend': 'ibm', 'measured_by': 'ibm_torino'}
    """
    kept = {name: value for name, value in settings.items() if name not in MACHINE}
    if settings.get("backend") == "ibm":
        kept["measured_by"] = settings.get("device") or settings.get("measured_by")
    return kept

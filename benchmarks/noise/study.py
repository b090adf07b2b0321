"""The study's trainings: the quality bench's tasks, with a setting of the circuits' measurement for each arm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from benchmarks.harness.study import Arm
from benchmarks.noise.parts import PARTS, Grid
from benchmarks.noise.setting import Setting
from benchmarks.quality.study import Adapters


@dataclass(frozen=True)
class Measurements(Adapters):
    """A task and the settings that are compared on it; see `Adapters`.

    Args:
        grid: the study's sizes.
    """

    grid: Grid = field(kw_only=True)

    @cached_property
    def _settings(self) -> dict[str, Setting]:
        return {setting.name: setting for setting in settings_of(self.grid, PARTS)}

    @property
    def arms(self) -> Mapping[str, Arm]:
        """All settings of all parts."""
        return {name: Arm("QPA", setting.config) for name, setting in self._settings.items()}

    def head(self) -> dict[str, Any]:
        """Return nothing more."""
        self.task.base()
        return {}

    def about(self, arm: str) -> dict[str, Any]:
        """Return the setting."""
        return {"setting": asdict(self._settings[arm])}


def settings_of(grid: Grid, parts: Iterable[str]) -> list[Setting]:
    """Return the settings of some parts; one that two parts share is there once."""
    return list(dict.fromkeys(setting for part in parts for setting in PARTS[part](grid)))

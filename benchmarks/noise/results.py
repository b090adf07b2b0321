"""The results of a task's trainings by setting, and their paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from benchmarks.harness.report import Writing
from benchmarks.harness.summary import Result, summarize
from benchmarks.noise.setting import Setting
from benchmarks.quality.study import CROSS_ENTROPY
from qpa_hf.comparison.statistics import Difference, holm

WRITING = Writing(CROSS_ENTROPY)
Key = TypeVar("Key")


@dataclass(frozen=True)
class Results:
    """A task's results.

    Args:
        task: its name.
        known: by the setting's name.
    """

    task: str
    known: dict[str, Result]

    @classmethod
    def of(cls, found: dict[str, Any]) -> Results:
        """Return the results of a task's file."""
        return cls(found["task"], summarize(found).by_name())

    def find(self, setting: Setting) -> Result | None:
        """Return the result of a setting, None if it has not been run."""
        return self.known.get(setting.name)

    def differences(self, pairs: Mapping[Key, tuple[Setting, Setting]]) -> dict[Key, Difference]:
        """Return each setting's measure minus another's, paired by seed, by Holm's correction over all of them.

        Pairs of which one has not been run are left out.
        """
        found = {key: (self.find(one), self.find(other)) for key, (one, other) in pairs.items()}
        return holm({key: one.minus(other) for key, (one, other) in found.items() if one and other})

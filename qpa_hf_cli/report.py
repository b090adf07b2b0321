"""What a run ends with: how good it is, a sample, and the commands that come next."""

from __future__ import annotations

import shlex
from pathlib import Path

from qpa_hf.training.run import Finished
from qpa_hf.training.settings import RunSettings


def lines(finished: Finished, settings: RunSettings, output: Path) -> list[str]:
    """Return the lines of a run's report.

    Args:
        finished: the run.
        settings: its settings.
        output: its folder.
    """
    before, after = finished.before, finished.after
    changes = [
        f"{one.name} {one.shown(before[one.name])} before, {one.shown(after[one.name])} after"
        for one in finished.task.listed
    ]
    said = [
        f"{finished.n_trainable:,} trained numbers; on the validation examples {'; '.join(changes)}.",
        f"Generator: {output}/native. Plain LoRA: {output}/adapter.",
    ]
    if finished.sample:
        sample = finished.sample
        said += [
            f"After {_quoted(sample['prompt'])}",
            f"  the base model writes     {_quoted(sample['base'])}",
            f"  with the adapter it says  {_quoted(sample['adapter'])}",
        ]
    return [*said, "Next:", *(f"  {command}" for command in _commands(finished, settings, output))]


def _commands(finished: Finished, settings: RunSettings, output: Path) -> list[str]:
    task = finished.task
    adapter = shlex.quote(f"{output}/adapter")
    option = "" if task.name == "text" else f" --task {task.name}"
    found = [f"qpa evaluate {shlex.quote(settings.model)} --adapter {adapter}{option} --data OTHER_DATA"]
    if task.is_language:
        found.append(f"qpa sample {shlex.quote(str(output))} --prompt 'How it begins'")
    found.append(f"qpa push {adapter} NAME/REPOSITORY")
    return [*found, "qpa compare, with the same options: whether the circuits contribute anything"]


def _quoted(text: str) -> str:
    return "\u201c" + " ".join(text.split()) + "\u201d"

"""Go on with a run from the newest checkpoint that is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from transformers import Trainer, TrainerState

from qpa_hf.checkpoint import check_complete
from qpa_hf.terminal import say

STATE_NAME = "trainer_state.json"


def train_or_resume(trainer: Trainer, checkpoint: str | None) -> None:
    """Train to the end; from a checkpoint of the end Trainer would take one more step, so that one is only loaded."""
    state = TrainerState.load_from_json(str(Path(checkpoint) / STATE_NAME)) if checkpoint else None
    n_steps = max(trainer.args.max_steps, state.max_steps if state is not None else 0)  # more may be asked for now
    if checkpoint is None or state is None or state.global_step < n_steps:
        if checkpoint is not None:
            say(f"Resuming from {checkpoint}.", is_error=True)
        trainer.train(resume_from_checkpoint=checkpoint)
        return
    say(f"The training has already ended, at {checkpoint}; nothing is left to train.", is_error=True)
    best = state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    newest = Path(checkpoint)
    model = cast(Any, trainer.model)
    # Trainer's path of the best one leads from where the run was started.
    model.load_adapter(str(newest.with_name(Path(best).name)) if best else checkpoint, "default", is_trainable=True)
    trainer.state = state


def last_checkpoint(folder: Path) -> str | None:
    """Return the newest complete checkpoint: an interrupted save lacks trainer_state.json, which is written last."""
    # A full disk or a killed process may leave a folder of any state. Each candidate is opened, and none is trusted by
    # its name.
    states = [path for path in folder.glob(f"checkpoint-*/{STATE_NAME}") if _step(path.parent).isdecimal()]
    complete = [path.parent for path in states if _is_state(path) and _is_whole(path.parent)]
    return str(max(complete, key=lambda path: int(_step(path)))) if complete else None


def _step(checkpoint: Path) -> str:
    return checkpoint.name.partition("-")[2]


def _is_state(path: Path) -> bool:
    """Whether a file is the state that Trainer resumes from, and was not cut off by a full disk."""
    try:
        return path.is_file() and isinstance(TrainerState.load_from_json(str(path)).global_step, int)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False


def _is_whole(checkpoint: Path) -> bool:
    try:
        check_complete(checkpoint)
    except ValueError:
        return False
    return True

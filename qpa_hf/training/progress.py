"""What a run shows while it trains."""

from __future__ import annotations

from typing import Any

from transformers import ProgressCallback


class QuietProgress(ProgressCallback):
    """Trainer's progress bar with the loss on it; the log is in trainer_state.json, and no row of it is printed."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and self.training_bar is not None:
            self.training_bar.set_postfix(loss=f"{float(loss):.4f}")

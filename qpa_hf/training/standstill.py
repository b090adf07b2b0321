"""Notice early that a run does not learn."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from qpa_hf.terminal import say

SHARE = 10  # looked at after one step in so many
LEAST_GAIN = 1e-3  # of the loss before training; what rounding and a first small step come to lies below


class StandstillCallback(TrainerCallback):
    """Says so once if the loss on the validation examples has not left its start after a tenth of the steps.

    Args:
        loss_before: on the validation examples, with the untrained adapter, in nats.
    """

    def __init__(self, loss_before: float) -> None:
        self.loss = loss_before
        self.is_known = False

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        loss = (metrics or {}).get("eval_loss")
        if self.is_known or loss is None or state.global_step * SHARE < state.max_steps:
            return
        self.is_known = True
        if loss < self.loss * (1 - LEAST_GAIN):
            return
        does_rise = loss > self.loss * (1 + LEAST_GAIN)
        say(
            f"\nAfter {state.global_step:,} of {state.max_steps:,} steps the loss on the validation text is "
            f"{loss:.4f}, and was {self.loss:.4f} before. {'Lower' if does_rise else 'Raise'} "
            f"`training.learning_rate` ({args.learning_rate:g}) if it stays there.",
            is_error=True,
        )

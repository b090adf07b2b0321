"""Optimize the circuits' angles without gradients, while Trainer's optimizer trains the mapping model."""

from __future__ import annotations

from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qpa_hf.messages import whole_number
from qpa_hf.optimize import METHODS, Loss, generator_to_optimize, optimize_angles


class OptimizeAnglesCallback(TrainerCallback):
    """Runs `optimize_angles` after every so many steps; configure the adapter with `gradient="none"`.

    The result of each call is a row in Trainer's `log_history`: `qpa/optimized_loss`, `qpa/optimized_from` and
    `qpa/evaluations`. A run that is interrupted meanwhile and resumed from its last checkpoint does no evaluation
    again: they are in `optimized-angles-N.jsonl` in the output directory until the call of step N has ended.

    Args:
        loss: takes the model and returns a number, the same for the same angles: the mean loss over fixed batches.
        every: steps between two calls.
        method: a key of `qpa_hf.optimize.METHODS`.
        max_evaluations: of the loss, in each call.
        step: the first steps, in radians.
        adapter_name: which adapter of the model.
        progress: whether to show a bar on standard error.

    Raises:
        ValueError: if `every` is no whole number of at least 1, or for an unknown method; when training begins, for
            what else `optimize_angles` would refuse.
        TypeError: when training begins, if there is no QPA adapter of that name.
        RuntimeError: when training begins, if several processes train together.

    Example:
        >>> from transformers import Trainer
        >>> callback = OptimizeAnglesCallback(lambda model: mean_loss(model, batches), every=100, max_evaluations=200)
        >>> Trainer(model, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(
        self,
        loss: Loss,
        every: int = 100,
        method: str = "COBYLA",
        max_evaluations: int = 1000,
        step: float = 0.3,
        adapter_name: str = "default",
        progress: bool = True,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"`method`={method!r} is not known. Choose one of {', '.join(map(repr, METHODS))}.")
        self.loss = loss
        self.every = whole_number("every", every)
        self.method = method
        self.max_evaluations = max_evaluations
        self.step = step
        self.adapter_name = adapter_name
        self.progress = progress

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        generator_to_optimize(
            kwargs["model"],  # type: ignore[arg-type]
            self.method,
            self.max_evaluations,
            self.step,
            self.adapter_name,
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if state.global_step % self.every:
            return
        evaluations = Path(str(args.output_dir)) / f"optimized-angles-{state.global_step}.jsonl"
        found = optimize_angles(
            kwargs["model"],  # type: ignore[arg-type]
            self.loss,
            self.method,
            self.max_evaluations,
            self.step,
            self.adapter_name,
            evaluations,
            self.progress,
        )
        evaluations.unlink()
        row = {"optimized_loss": found.loss, "optimized_from": found.first_loss, "evaluations": found.n_evaluations}
        state.log_history.append({f"qpa/{name}": value for name, value in row.items()} | {"step": state.global_step})

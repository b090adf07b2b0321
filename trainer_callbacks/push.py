"""Push the plain adapter to the Hub, where Trainer would push the generator, and not lose a failure on the way."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peft.utils import CONFIG_NAME
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qpa_hf.hub.errors import HubUnavailable
from qpa_hf.materialize import check_target, materialize
from qpa_hf.model_cards import RunRecord
from qpa_hf.trainer_callbacks.weights import (
    check,
    checkpoint_folder,
    is_loaded_by_trainer,
    is_qpa,
    native_folder,
    source_of,
)

if TYPE_CHECKING:
    from qpa_hf.hub import RetryPolicy

logger = logging.getLogger(__name__)


class PushMaterializedCallback(TrainerCallback):
    """Pushes the materialized adapter with its card, in one commit, when training has ended.

    What is pushed is written to `adapter` in the output directory first. The repository is made before training
    begins, so that a wrong token is known then. Training waits for a push. Where the Hub is away for too long, the
    next push makes up for it; the last one raises. Each compares the Hub's files with the local ones in the end.

    Only the main process pushes. A hyperparameter search pushes nothing.

    Args:
        repo_id: "owner/name".
        every_save: push whenever Trainer saves, too.
        adapter_name: which adapter of the model.
        record: what Trainer does not know of the run, for the card: data sets, licence, a control's result.
        evaluated_on: dataset and split of Trainer's evaluations, for the cards.
        private: make a new repository private.
        token: access token; by default the one of `hf auth login`. True insists on that one, False sends none.
        policy: how patient to be with the Hub.

    Raises:
        ValueError: when training begins, if the model has no such adapter, or a plain one, or if `adapter` in the
            output directory holds something else.
        HubError: when training begins or ends, for what goes wrong on the way and does not pass.

    Example:
        >>> from transformers import Trainer
        >>> callback = PushMaterializedCallback("me/my-adapter", private=True)
        >>> Trainer(model, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(
        self,
        repo_id: str,
        *,
        every_save: bool = False,
        adapter_name: str = "default",
        record: RunRecord | None = None,
        evaluated_on: tuple[str, str | None] | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        self.repo_id = repo_id
        self.every_save = every_save
        self.adapter_name = adapter_name
        self.record = dataclasses.replace(record or RunRecord(), repo_id=repo_id)
        self.evaluated_on = evaluated_on
        self.private = private
        self.token = token
        self.policy = policy

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not _takes_part(state):
            return
        from qpa_hf.hub import Repository

        check(kwargs["model"], self.adapter_name)
        check_target(Path(str(args.output_dir)) / "adapter")
        try:
            Repository(self.repo_id, self.token, self.policy).create(self.private)
        except HubUnavailable as error:
            logger.warning("%s It is tried again at the next push.", error)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not _takes_part(state) or not self.every_save:
            return
        try:
            self._push(args, state, kwargs["model"], step=state.global_step)
        except HubUnavailable as error:
            logger.warning("%s The next push makes up for it.", error)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if _takes_part(state):
            self._push(args, state, kwargs["model"])

    def _push(self, args: TrainingArguments, state: TrainerState, model: Any, step: int | None = None) -> None:
        from qpa_hf.hub import push

        source, step = self._weights(args, state, model, step)
        record = RunRecord.from_trainer(args, state, self.record, step=step, evaluated_on=self.evaluated_on)
        output = Path(str(args.output_dir))
        adapter = materialize(source, output / "adapter", self.adapter_name, record)
        message = f"Upload the materialized adapter of {output.resolve().name} after {record.steps} steps"
        push(
            adapter,
            self.repo_id,
            private=self.private,
            commit_message=message,
            token=self.token,
            policy=self.policy,
        )

    def _weights(
        self, args: TrainingArguments, state: TrainerState, model: Any, step: int | None
    ) -> tuple[Any, int | None]:
        """Return what to materialize, and its step: None for what training should leave in the model.

        The best weights are those of their checkpoint; Trainer does not load them into every adapter.
        """
        if step is None and args.load_best_model_at_end and state.best_model_checkpoint is not None:
            best = native_folder(Path(state.best_model_checkpoint), self.adapter_name)
            if is_qpa(model, self.adapter_name) and (best / CONFIG_NAME).is_file():
                return best, None
            if not is_loaded_by_trainer(model, self.adapter_name):
                step = state.global_step
        native = native_folder(checkpoint_folder(args, step or state.global_step), self.adapter_name)
        return source_of(model, native, self.adapter_name), step


def _takes_part(state: TrainerState) -> bool:
    return state.is_world_process_zero and not state.is_hyper_param_search

"""Find an adapter's gradient bases when training begins, and anew in the course of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qpa_hf.messages import check_kind, whole_number
from qpa_hf.models import bank_of, unwrapped
from qpa_hf.trainer_callbacks import head
from qpa_hf.trainer_callbacks.own_batches import own_batches
from qpa_hf.tuners.qpa import initialize_basis, refresh_basis
from qpa_hf.tuners.qpa.basis_cost import EXACT_BYTES


class GradientBasisCallback(TrainerCallback):
    """Finds the bases of an adapter with `basis="gradient"` by the trainer's own data and loss, when training begins.

    The batches come from the trainer's own data loader and preparation, and the loss is its `compute_loss`, so that
    every trainer that derives from transformers' serves: `Seq2SeqTrainer`, those of trl and sentence-transformers, and
    your own. Trainers that learn from what the model generates (GRPO, RLOO) generate for each batch first.

    With `n_stages` above 1 the run is cut into as many equal stages, and bases are found anew before each but one. The
    optimizer forgets what it knows of the parameters that start over; the learning rate follows its schedule.

    Bases that are known already stay: a resumed run goes on with those of its checkpoint, and so does a model whose
    bases `initialize_basis` has found. Which examples are read follows from the trainer's seed alone, and random
    numbers are left as they were, so an interrupted run ends with the same bits as another.

    Args:
        trainer: the trainer that the callback is added to.
        n_examples: number of examples to read in each process for each stage; a data set with fewer is read once.
        adapter_name: name of the adapter.
        fit_head: whether to train the adapter's `modules_to_save` alone first, in a few passes over `n_examples`
            examples: a classifier's head is random as it is made, and its gradient would say little.
        exact_bytes: see `initialize_basis`.

    Raises:
        TypeError: if `trainer` is none.
        ValueError: when training begins, if the adapter has no gradient bases or no head to fit, if it has more stages
            than the run has steps, if the callback was added to another trainer, or for what `initialize_basis` would
            refuse.

    Example:
        >>> trainer.add_callback(GradientBasisCallback(trainer))  # doctest: +SKIP
    """

    def __init__(
        self,
        trainer: Trainer,
        n_examples: int = 1024,
        adapter_name: str = "default",
        fit_head: bool = False,
        exact_bytes: int = EXACT_BYTES,
    ) -> None:
        check_kind("trainer", trainer, Trainer, "the Trainer that the callback is added to")
        check_kind("adapter_name", adapter_name, str, "the adapter's name")
        check_kind("fit_head", fit_head, bool, "True or False")
        self.trainer: Any = trainer  # so that trainers of any library may take any batch
        self.n_examples = whole_number("n_examples", n_examples)
        self.adapter_name = adapter_name
        self.fit_head = fit_head
        self.exact_bytes = whole_number("exact_bytes", exact_bytes, least=0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model = kwargs["model"]
        if model is not self.trainer.model:
            raise ValueError(
                "The GradientBasisCallback was made for another trainer. Add it to its own, by "
                "`trainer.add_callback(GradientBasisCallback(trainer))`."
            )
        n_stages = self._n_stages(model)
        if n_stages > state.max_steps:
            raise ValueError(
                f"The run has too few steps ({state.max_steps}) for {n_stages} stages. Train for more, or configure a "
                "smaller `n_stages`."
            )
        if not bank_of(model, self.adapter_name).generator.count_bases():
            if self.fit_head:
                head.fit_head(self.trainer, unwrapped(model), self.adapter_name, self.n_examples, self._loss)
            with self._found(0, kwargs["optimizer"]) as found:
                initialize_basis(**found)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        generator = bank_of(model, self.adapter_name).generator
        if generator.n_bases > state.global_step * self._n_stages(model) // state.max_steps:
            return
        with self._found(generator.n_bases, optimizer) as found:
            refresh_basis(**found)
        for parameter in generator.parameters():
            optimizer.state.pop(parameter, None)

    def _n_stages(self, model: nn.Module) -> int:
        config = getattr(unwrapped(model), "peft_config", {}).get(self.adapter_name)
        return getattr(config, "n_stages", 1)

    @contextmanager
    def _found(self, stage: int, optimizer: Any) -> Iterator[dict[str, Any]]:
        """Give the arguments by which the bases of a stage are found, and leave the trainer as it was."""
        trainer = self.trainer
        with own_batches(trainer, f"gradient bases, stage {stage}") as batches:
            yield {
                "model": unwrapped(trainer.model),
                "dataloader": batches,
                "n_examples": self.n_examples,
                "adapter_name": self.adapter_name,
                "loss": self._loss,
                "progress": not trainer.args.disable_tqdm,
                "exact_bytes": self.exact_bytes,
            }
        # Also those of parameters outside of the adapted model, as a loss of sentence-transformers may have.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _loss(self, _: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
        with self.trainer.compute_loss_context_manager():
            return self.trainer.compute_loss(self.trainer.model, inputs)

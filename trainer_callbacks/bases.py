"""Find an adapter's gradient bases anew in the course of a training run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qpa_hf.models import bank_of
from qpa_hf.tuners.qpa import refresh_basis
from qpa_hf.tuners.qpa.moments import Loss


class RefreshBasisCallback(TrainerCallback):
    """Cuts a run into as many equal stages as the adapter's `n_stages`, and calls `refresh_basis` before each but one.

    The first bases come from `initialize_basis`, before training. The optimizer forgets what it knows of the numbers
    that start over; the learning rate follows its schedule. A resumed run goes on in its checkpoint's stage.

    Args:
        dataloader: batches for the gradient, see `initialize_basis`; read once for each further stage.
        n_examples: see there.
        adapter_name: which adapter of the model.
        loss: see there.

    Raises:
        TypeError: if the batches can be read only once.
        ValueError: when training begins, if the adapter has only one stage, or more than the run has steps.

    Example:
        >>> import torch
        >>> from transformers import Trainer
        >>> batches = [{"input_ids": torch.tensor([[1, 2, 3]]), "labels": torch.tensor([[1, 2, 3]])}]
        >>> callback = RefreshBasisCallback(batches, n_examples=1)
        >>> Trainer(model, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(
        self,
        dataloader: Iterable[Mapping[str, Any]],
        n_examples: int = 1024,
        adapter_name: str = "default",
        loss: Loss | None = None,
    ) -> None:
        if isinstance(dataloader, Iterator):
            raise TypeError(
                f"A {type(dataloader).__name__} can be read only once, and each stage reads its batches. Pass a "
                "DataLoader or a list."
            )
        self.dataloader = dataloader
        self.n_examples = n_examples
        self.adapter_name = adapter_name
        self.loss = loss

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        config = getattr(kwargs["model"], "peft_config", {}).get(self.adapter_name)
        n_stages = getattr(config, "n_stages", 1)
        if n_stages == 1:
            raise ValueError(
                f"Adapter {self.adapter_name!r} has only one stage. Configure it by QPAConfig(basis='gradient', "
                "n_stages=...), or leave the callback out."
            )
        if n_stages > state.max_steps:
            raise ValueError(
                f"The run has too few steps ({state.max_steps}) for {n_stages} stages. Train for more, or configure a "
                "smaller `n_stages`."
            )

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model = kwargs["model"]
        generator = bank_of(model, self.adapter_name).generator
        n_stages = model.peft_config[self.adapter_name].n_stages
        if generator.n_bases > state.global_step * n_stages // state.max_steps:
            return
        own = (self.n_examples, self.adapter_name, self.loss)
        refresh_basis(model, self.dataloader, *own, progress=not args.disable_tqdm)
        for parameter in generator.parameters():
            kwargs["optimizer"].state.pop(parameter, None)

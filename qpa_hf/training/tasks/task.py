"""What a run needs to know of its task: data, model, metric, and words."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from peft import PeftConfig
from torch import nn
from transformers import Trainer, TrainingArguments, default_data_collator

from qpa_hf.reproducible import seeded
from qpa_hf.training.data import DataSettings, Examples, Naming
from qpa_hf.training.tasks.metrics import Metric


class Uncompared:
    """A Trainer without its comparison of a checkpoint's arguments with its own."""

    def compare_trainer_and_checkpoint_args(self, *args: Any) -> None:
        """Say nothing: `started_run` has compared all settings, and Trainer takes shares of a run for other ones."""


class RunTrainer(Uncompared, Trainer):
    """Trainer, as it is for runs."""


class Task(ABC):
    """A kind of run; `TASKS` has one object of each.

    Attributes:
        name: what `--task` calls it.
        unit: what is counted, such as "blocks".
        adapter: fields of `QPAConfig` that such a run has unless others are set.
        fields: fields of `DataSettings` that only some tasks have, and this one does.
        defaults: those of `DataSettings` that differ from its own.
        trains: what kind of models it trains, for messages.
        metrics: what `evaluate` returns, the one that tables show first.
        criterion: the one, the less the better, by which settings are chosen.
        listed: those that a card lists.
        hub_task: the Hub's name of the task, where PEFT has no type for it.
        needs: the extra, and the modules in it that this task cannot do without.
        is_language: whether the model writes text.
        has_head: whether the model has a head of its own, which is fitted before gradient bases are found.
    """

    name: ClassVar[str]
    unit: ClassVar[str] = "examples"
    adapter: ClassVar[Mapping[str, Any]] = {}
    fields: ClassVar[frozenset[str]] = frozenset()
    defaults: ClassVar[Mapping[str, Any]] = {}
    trains: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    criterion: ClassVar[Metric]
    listed: ClassVar[tuple[Metric, ...]]
    hub_task: ClassVar[str | None] = None
    needs: ClassVar[tuple[str, tuple[str, ...]] | None] = None
    is_language: ClassVar[bool] = False
    has_head: ClassVar[bool] = False

    def check_installed(self) -> None:
        """Raise ImportError, naming the extra, if a library that the task needs is missing."""
        if self.needs is None:
            return
        extra, modules = self.needs
        if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
            raise ImportError(
                f"`--task {self.name}` needs {missing[0]}, which is not installed. Install it with `pip install "
                f"'qpa-hf[{extra}]'`."
            )

    @abstractmethod
    def read(self, settings: DataSettings, model: str) -> Examples:
        """Read what is trained and evaluated on, as this base model reads it.

        Raises:
            OSError: if a file is missing or cannot be read.
            ValueError: if the data will not do, with what to do.
        """

    @abstractmethod
    def read_held_out(self, settings: DataSettings, model: str, labels: Sequence[str], naming: Naming) -> Examples:
        """Read the files in `settings.validation` alone, for a model that is trained already.

        Args:
            settings: their columns and length.
            model: the base model.
            labels: the names of the classes that it knows, in order; none without classes.
            naming: what messages call the settings.

        Raises: as `read` does.
        """

    def labels_of(self, model: str, recorded: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the classes that a trained model knows: those that its run recorded, or the base's."""
        return ()

    def fingerprint(self, data: Examples) -> str:
        """Return the SHA-256 of the examples: of what they hold, not of the files, which may be moved."""
        found = hashlib.sha256(json.dumps(data.labels).encode())
        for part in (data.train, data.validation):
            found.update(str(len(part)).encode())
            for example in part:
                found.update(json.dumps(example, sort_keys=True).encode())
        return found.hexdigest()

    @abstractmethod
    def empty(self, model: str, data: Examples) -> nn.Module:
        """Return the base model without numbers, for counting; to be called on the meta device."""

    @abstractmethod
    def load(self, model: str, data: Examples, config: PeftConfig | None = None) -> Any:
        """Return the base model, in float32.

        Args:
            model: its directory or Hub id.
            data: what it will read.
            config: the adapter's configuration, to which modules that the checkpoint lacks are added: they are drawn
                at random, and nobody could load the adapter without them.
        """

    @abstractmethod
    def check(self, base: Any, model: str, data: Examples, option: str) -> None:
        """Raise ValueError if the base model cannot read the examples; `option` is the setting of their length."""

    def arguments(self, **values: Any) -> TrainingArguments:
        """Return the arguments of the task's Trainer."""
        return TrainingArguments(**values)

    @abstractmethod
    def rows(self, examples: Any, data: Examples) -> Any:
        """Return examples as Trainer takes them."""

    def collator(self, data: Examples) -> Callable[[list[Any]], dict[str, Any]]:
        """Return what makes a batch of rows."""
        return default_data_collator

    def trainer(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        data: Examples,
        rows: tuple[Any, Any],
        callbacks: list[Any],
    ) -> Trainer:
        """Return the Trainer of a run.

        Args:
            model: the model with its adapter.
            arguments: the run's.
            data: the examples.
            rows: those to train on and to evaluate on, as `rows` returns them.
            callbacks: the run's own.
        """
        return RunTrainer(
            model=model,
            args=arguments,
            train_dataset=rows[0],
            eval_dataset=rows[1],
            data_collator=self.collator(data),
            callbacks=callbacks,
        )

    @abstractmethod
    def evaluate(self, model: Any, examples: Any, data: Examples, progress: bool = False) -> dict[str, float]:
        """Return the metrics of a model on examples, by the names in `metrics`."""

    def baseline(self, model: Any, name: str, data: Examples) -> tuple[str, dict[str, float]]:
        """Return what an adapter is measured against on the validation examples, and its metrics.

        Args:
            model: the `PeftModel`.
            name: the name of the base model.
            data: the examples.
        """
        with model.disable_adapter():
            return "the base model alone", self.evaluate(model, data.validation, data)

    @abstractmethod
    def loss_of(self, metrics: Mapping[str, float]) -> float:
        """Return the mean loss that metrics stand for, in nats."""

    def counted(self, found: Mapping[str, Any]) -> str:
        """Return what an evaluation was over, in words, of what `qpa evaluate --json` prints."""
        return f"{found['n_examples']:,} {self.unit}"

    def prompt(self, tokenizer: Any, text: str) -> list[int]:
        """Return the token ids that a language model goes on from, of what a user has typed."""
        return list(tokenizer(text)["input_ids"])

    def tuning(self, data: Examples, share: int) -> Examples:
        """Return the training examples as what settings are chosen on, with one in `share` of them to evaluate on."""
        order = torch.randperm(len(data.train), generator=seeded(0, "development")).tolist()
        shuffled = [data.train[i] for i in order]
        n_development = max(1, len(shuffled) // share)
        return replace(
            data,
            train=shuffled[:-n_development],
            validation=shuffled[-n_development:],
            validation_split="development",
        )

    @abstractmethod
    def describe(self, data: Examples, settings: DataSettings) -> str:
        """Return what is trained and evaluated on, in a line."""

    def sample(self, model: Any, data: Examples) -> dict[str, str] | None:
        """Return a prompt of the validation examples, and what is written after it without and with the adapter."""
        return None

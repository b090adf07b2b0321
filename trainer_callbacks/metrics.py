"""The circuits' and the generator's state in Trainer's own logs."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler
from transformers.trainer_utils import IntervalStrategy

from qpa_hf.generator import Generator
from qpa_hf.models import find_bank, unwrapped
from qpa_hf.sharding import gathered, gathered_generator, is_fsdp, is_zero3
from qpa_hf.trainer_callbacks.norms import delta_norms
from qpa_hf.trainer_callbacks.timer import GenerationTimer
from qpa_hf.trainer_callbacks.weights import is_qpa

PREFIX = "qpa/"
CLIP_EPSILON = 1e-6  # torch.nn.utils.clip_grad_norm_ scales by max_norm / (norm + 1e-6)


class CircuitMetricsCallback(TrainerCallback):
    """Adds to each row that Trainer logs during training, for every tracker and for `log_history`:

    - `qpa/n_qubits`;
    - `qpa/angles_grad_norm` and `qpa/angles_grad_variance`, over all angles, of the logged step's gradient as it was
      before clipping (the variance is what Fig. 10 of https://huggingface.co/papers/2410.09846 tracks);
    - `qpa/entropy` of the probabilities in nats, the mean over the circuits; n_qubits * ln 2 at most;
    - `qpa/delta_norm`, the Frobenius norm of the generated weight change of all layers, scaled as LoRA scales it, and
      with `per_layer` that of each as `qpa/delta_norm/<layer>`;
    - `qpa/generation_share` of the logged step's time, from the first forward pass to the end of the optimizer's work.

    What has no meaning is left out: the first four for a control without circuits, gradients of frozen angles, the
    share where generation is part of a compiled graph or sharded by FSDP, gradients under DeepSpeed, everything under
    its ZeRO-3, norms where `generate` generates another method's or any module's tensors. Other steps are not touched,
    and nothing waits for the device but logging itself. Models without a generator are left alone.

    Args:
        adapter_name: which adapter of the model.
        per_layer: whether to log the norm of each layer, too; a value for every adapted layer.

    Example:
        >>> from transformers import Trainer
        >>> callback = CircuitMetricsCallback()
        >>> Trainer(model, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(self, adapter_name: str = "default", per_layer: bool = False) -> None:
        self.adapter_name = adapter_name
        self.per_layer = per_layer
        self._timer: GenerationTimer | None = None  # of a step that will be logged
        self._angles_grad: Tensor | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._drop_step()
        self._stand_first()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._drop_step()
        generator = self._generator(kwargs["model"])
        if generator is not None and _will_log(args, state) and _takes_part(generator, state):
            self._timer = GenerationTimer(generator)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._timer is None:
            return
        self._timer.release()
        angles = getattr(self._generator(kwargs["model"]), "angles", None)
        if angles is not None and angles.grad is not None:
            self._angles_grad = gathered(angles.grad).clone()
            scaler = getattr(kwargs["optimizer"], "scaler", None)
            if scaler is not None and not args.max_grad_norm:
                self._angles_grad /= scaler.get_scale()  # only clipping undoes the scale before the optimizer does

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._timer is not None:
            self._timer.stop()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        generator = self._generator(kwargs["model"])
        if self._timer is None or not self._timer.has_ended or generator is None or logs is None:
            return  # other rows, such as evaluations and what a loss function logs
        metrics = self._metrics(kwargs["model"], gathered_generator(generator), _clip_factor(args, logs))
        self._drop_step()
        if state.is_world_process_zero:
            logs.update(metrics)
            state.log_history[-1].update(metrics)

    def _drop_step(self) -> None:
        if self._timer is not None:
            self._timer.release()
        self._timer, self._angles_grad = None, None

    def _stand_first(self) -> None:
        """Move this callback before the trackers, which Trainer puts before the user's callbacks.

        They read the row of logs when their turn comes. A callback is not told what calls it, so the handler is found
        among the callers.
        """
        frame = inspect.currentframe()
        while frame is not None:
            handler = frame.f_locals.get("self")
            if isinstance(handler, CallbackHandler) and self in handler.callbacks:
                handler.callbacks.remove(self)
                handler.callbacks.insert(0, self)
                return
            frame = frame.f_back

    def _generator(self, model: Any) -> Generator | None:
        bank = find_bank(model, self.adapter_name)
        return None if bank is None else bank.generator

    def _metrics(self, model: Any, generator: Generator, clip_factor: float) -> dict[str, float]:
        spec = generator.spec
        values: dict[str, Tensor] = {}
        if self._angles_grad is not None:
            grad = self._angles_grad / clip_factor
            values |= {"angles_grad_norm": grad.norm(), "angles_grad_variance": grad.var(correction=0)}
        if spec.has_circuit:
            with torch.no_grad():
                p = generator.circuit_probabilities()
            values["entropy"] = torch.special.entr(p).sum(-1).mean()
        if is_qpa(model, self.adapter_name):
            norms = delta_norms(unwrapped(model), generator, self.adapter_name)
            values["delta_norm"] = torch.stack(list(norms.values())).norm()
            if self.per_layer:
                values |= {f"delta_norm/{name}": norm for name, norm in norms.items()}
        numbers = torch.stack(list(values.values())).tolist() if values else []
        metrics = dict(zip(values, numbers, strict=True))
        if spec.has_circuit:
            metrics["n_qubits"] = spec.n_qubits
        if self._timer is not None and (share := self._timer.share()) is not None:
            metrics["generation_share"] = share
        return {PREFIX + name: value for name, value in metrics.items()}


def _will_log(args: TrainingArguments, state: TrainerState) -> bool:
    """Whether Trainer may log after the step that begins; the end of an epoch is not known before it comes."""
    step = state.global_step + 1
    is_first = step == 1 and args.logging_first_step
    is_turn = args.logging_strategy == IntervalStrategy.STEPS and step % state.logging_steps == 0
    return is_first or is_turn or args.logging_strategy == IntervalStrategy.EPOCH


def _takes_part(generator: Generator, state: TrainerState) -> bool:
    """Whether this process has work: the main one, or all of them where FSDP2's parts must be gathered."""
    return not is_zero3(generator) and (state.is_world_process_zero or is_fsdp(generator))


def _clip_factor(args: TrainingArguments, logs: dict[str, Any]) -> float:
    """Return what Trainer's clipping has multiplied the gradients with; its log has the norm from before."""
    norm = logs.get("grad_norm")
    if not args.max_grad_norm or norm is None:
        return 1.0
    return min(1.0, args.max_grad_norm / (norm + CLIP_EPSILON))

"""`initialize_basis`: gradient bases, found once before training, under a LoRA whose small cores are generated."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from qpa_hf.generator import Bank, Basis, Moments, scaled_bases, second_moment
from qpa_hf.modes import evaluating
from qpa_hf.tuner.config import QPAConfig
from qpa_hf.tuner.sharding import is_fsdp, is_zero3
from qpa_hf.tuner.slots import PREFIX, slots_of
from qpa_hf.whole_number import whole_number

Loss = Callable[[nn.Module, Mapping[str, Any]], Tensor]
HEAD_TASKS = ("SEQ_CLS", "TOKEN_CLS")
SCALE = 2.0**12  # of the loss, so that float16 holds small gradients; bases do not depend on it
METHOD = "preconditioned mean gradient"  # how cached bases were found
NO_PART = 1e-5  # of the largest gradient of a token: below it, as of padding, is no more than rounding
GUESSING = 0.95  # a head whose loss is more than this share of ln(n_labels) has not learned its classes


def initialize_basis(
    model: nn.Module,
    dataloader: Iterable[Mapping[str, Any]],
    n_examples: int = 1024,
    adapter_name: str = "default",
    loss: Loss | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> None:
    """Find the frozen bases of an adapter with `basis="gradient"`; call it once, before training.

    The gradient of the loss with respect to each adapted layer's weight is summed over the examples, with adapters off
    and dropout off, and with `modules_to_save` as they are by now. A is made of leading right singular vectors, U of
    left ones (`scaled_bases`), and the adapter becomes x -> U R A x with a generated core R that is zero at the start.
    Gradients are gathered from the layers' inputs and their outputs' gradients, so quantised and FSDP2-sharded base
    models work; where several processes run, each passes its own examples. Needs memory for one float32 copy of the
    adapted layers' weights, and for a square matrix for each side of a layer that has at most 1,024 numbers.

    The idea of starting from the gradient's singular vectors is that of LoRA-GA (https://huggingface.co/papers/2407.05000).

    Args:
        model: the `PeftModel` from `get_peft_model(base, QPAConfig(basis="gradient", ...))`.
        dataloader: batches that the model takes as keyword arguments, labels included.
        n_examples: enough examples to read (in each process); the batch that reaches the number is the last one.
        adapter_name: which adapter of the model.
        loss: of (model, batch), a tensor with its graph; `model(**batch).loss` if None.
        cache: a file that keeps the bases: written if it is absent, read instead of all computing if it is there. It
            is compared by the layers' names and ranks; for other weights or examples pass another file.
        progress: whether to show a bar on standard error, that of the first process if there are several.

    Raises:
        TypeError: if `model` is no PEFT model, a batch has no tensors by name, or the loss has no graph.
        ValueError: if the adapter has no gradient bases, or has found its bases before; if there are no examples or
            none to be read; if gradients are not finite; or if the cache belongs to other layers.
        IsADirectoryError: if `cache` is a directory.
    """
    bank, basis = _bank(model, adapter_name)
    if bank.generator.n_bases:
        raise ValueError(
            f"Adapter {adapter_name!r} has its bases already; others would change what it has learned. Make a new "
            "adapter to start anew, or set `n_stages` and call `refresh_basis`."
        )
    path = Path(cache) if cache is not None else None
    if path is not None and path.is_dir():
        raise IsADirectoryError(f"`cache`={str(path)!r} is a directory. Name a file in it, which keeps the bases.")
    shapes = _shapes(model, adapter_name, basis)
    if path is not None and path.is_file():
        found = _read(path, shapes)
    else:
        # A DataLoader draws a seed; who reads the cache instead must find the same random numbers afterwards.
        with _without_adapters(model), torch.random.fork_rng(devices=[]):
            found = _found(model, _first(dataloader, n_examples, progress), adapter_name, loss, shapes)
        if path is not None and _is_first_process():
            _write(path, found, shapes)
    _begin_stage(bank, basis, found)


def refresh_basis(
    model: nn.Module,
    dataloader: Iterable[Mapping[str, Any]],
    n_examples: int = 1024,
    adapter_name: str = "default",
    loss: Loss | None = None,
    progress: bool = True,
) -> None:
    """Find the bases of the next stage of an adapter with `n_stages` above 1, in the course of training.

    The gradient is that of the model with its adapter as it is by now. What was generated so far stays, frozen; the
    circuits and the mapping model start over with a core of zeros, so that the adapter does what it did before. An
    optimizer must forget what it knows of them (`RefreshBasisCallback` sees to it).

    Args: see `initialize_basis`.

    Raises:
        TypeError: if `model` is no PEFT model, a batch has no tensors by name, or the loss has no graph.
        ValueError: if the adapter has no first bases yet, is in its last stage, is not active, is disabled or is
            sharded by FSDP2 or ZeRO-3; if there are no examples or none to be read; or if gradients are not finite.
    """
    bank, basis = _bank(model, adapter_name)
    stage = bank.generator.n_bases
    if not stage:
        raise ValueError(f"Adapter {adapter_name!r} has no bases yet. Call `initialize_basis` before training.")
    if stage == basis.n_stages:
        raise ValueError(
            f"Adapter {adapter_name!r} is in the last of its {stage} stages. Give a new one a larger `n_stages`."
        )
    if adapter_name not in model.active_adapters:  # type: ignore[operator]
        raise ValueError(f"Adapter {adapter_name!r} is not active. Call `model.set_adapter({adapter_name!r})` first.")
    if any(layer.disable_adapters for layer in model.modules() if isinstance(layer, BaseTunerLayer)):
        raise ValueError("The adapters are disabled; the gradient would be the base model's. Enable them first.")
    if is_fsdp(model) or is_zero3(model):
        raise ValueError("A sharded adapter cannot begin a stage. Train it with DDP, or set n_stages=1.")
    generator = bank.generator
    trained = [p for p in generator.parameters() if p.requires_grad]
    for parameter in trained:  # nobody needs their gradients, and DDP would wait for them
        parameter.requires_grad_(False)
    try:
        batches = _first(dataloader, n_examples, progress)
        found = _found(model, batches, adapter_name, loss, _shapes(model, adapter_name, basis))
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
    _begin_stage(bank, basis, found)


def _bank(model: nn.Module, adapter_name: str) -> tuple[Bank, Basis]:
    if not isinstance(model, PeftModel):
        raise TypeError(
            f"Cannot find bases for a {type(model).__name__}. Pass the model that `get_peft_model` returned."
        )
    config = model.peft_config.get(adapter_name)
    if not isinstance(config, QPAConfig) or config.basis != "gradient":
        raise ValueError(
            f"Adapter {adapter_name!r} has no gradient bases. Configure it by QPAConfig(basis='gradient')."
        )
    base_model: Any = model.base_model
    bank: Bank = base_model._banks[adapter_name]
    assert bank.basis is not None
    return bank, bank.basis


def _shapes(model: nn.Module, adapter_name: str, basis: Basis) -> dict[str, tuple[int, int]]:
    """Return the shape of one stage's part of A by the layers' names, in the order of the bases."""
    names = _layer_names(model, adapter_name)
    return {
        name: (core[0], a[1]) for name, core, a in zip(names, basis.core_shapes, basis.buffer_shapes, strict=False)
    }


def _found(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    adapter_name: str,
    loss: Loss | None,
    shapes: Mapping[str, tuple[int, int]],
) -> Tensor:
    moments = _moments(model, batches, adapter_name, loss or _model_loss)
    return _bases(moments, [rank for rank, _ in shapes.values()])


@contextmanager
def _without_adapters(model: nn.Module) -> Iterator[None]:
    """Switch adapted layers off, but not what is trained whole: a head that was fitted is the one to ask."""
    layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer) and not m.disable_adapters]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def _begin_stage(bank: Bank, basis: Basis, found: Tensor) -> None:
    generator = bank.generator
    stage = generator.n_bases
    with torch.no_grad():
        values = bank.values() if stage else []
        factors = [values[pair.b] for pair in basis.pairs] if stage else []
        basis.place(generator.basis, found.to(generator.basis), factors, stage)
    generator.begin_stage()


def _layer_names(model: Any, adapter_name: str) -> list[str]:
    """Return the adapted layers' names in the order of the bases."""
    slots = slots_of(model.peft_config[adapter_name].layout)
    return [slot.key.removesuffix(".lora_A.weight") for slot in slots if slot.frozen_part == "init"]


def _model_loss(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    loss = model(**batch).loss
    if loss is None:
        raise ValueError("The model returned no loss. Put `labels` into each batch, or pass `loss`.")
    return loss


class _Observer:
    """Sums dL/dW of one layer, (n_out, n_in), and the second moments of both sides, by a forward hook on it."""

    def __init__(self) -> None:
        self.moments: Moments | None = None

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not torch.is_grad_enabled():  # no gradient will come, which is found when all batches are read
            return output
        if not output.requires_grad:
            # Nothing before this layer is trained: its graph begins here. What follows may write in place, so a clone.
            output = output.detach().requires_grad_().clone()
        x = inputs[0].detach()
        output.register_hook(lambda grad: self._add(x, grad))
        return output

    def _add(self, x: Tensor, grad: Tensor) -> None:
        if not grad.numel():  # an expert without a token
            return
        with torch.autocast(grad.device.type, enabled=False):
            grad, x = grad.flatten(0, -2).float(), x.flatten(0, -2).float()
            size = grad.norm(dim=1, keepdim=True)
            x = x * (size > NO_PART * size.max())
            new = Moments(grad.T @ x, second_moment(x), second_moment(grad))
        if self.moments is None:
            self.moments = new
        else:
            for total, part in zip(self.moments, new, strict=True):
                total.add_(part)


def _moments(model: Any, batches: Iterable[Mapping[str, Any]], adapter_name: str, loss: Loss) -> dict[str, Moments]:
    observers = {name: _Observer() for name in _layer_names(model, adapter_name)}
    layers = {name: model.get_submodule(name).get_base_layer() for name in observers}
    for name, layer in layers.items():
        if isinstance(layer, nn.MultiheadAttention):
            raise ValueError(
                f"{name} is a MultiheadAttention, which has no gradient basis. Leave it out of the targets, or use "
                "basis='kaiming'."
            )
    hooks = [layers[name].register_forward_hook(observer) for name, observer in observers.items()]
    device, losses = next(model.parameters()).device, []
    try:
        with _untouched(model), torch.enable_grad():
            for batch in batches:
                value = loss(model, {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()})
                if not isinstance(value, Tensor) or not value.requires_grad:
                    raise TypeError(
                        f"The loss is a {type(value).__name__} without a graph. Let `loss` return a tensor as the "
                        "model gave it, such as `model(**batch).loss`, without `.item()` or `.detach()`."
                    )
                (SCALE * value.float()).backward()
                losses.append(value.detach())
    finally:
        for hook in hooks:
            hook.remove()
    if not losses:
        raise ValueError("The dataloader has no batches. Pass one with some hundred examples.")
    _warn_of_guessing(model, torch.stack(losses).mean().item())
    return {name: _summed(name, observer.moments) for name, observer in observers.items()}


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and leave modes and gradients as they were."""
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    for parameter in gradients:
        parameter.grad = None
    try:
        with evaluating(model):
            yield
    finally:
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


def _first(dataloader: Iterable[Mapping[str, Any]], n_examples: int, progress: bool) -> Iterator[Mapping[str, Any]]:
    """Return batches until `n_examples` examples have been read."""
    n_examples = whole_number("n_examples", n_examples)
    n_read, is_shown = 0, progress and _is_first_process()
    for batch in track(
        dataloader, "Gradient bases", console=Console(stderr=True), transient=True, disable=not is_shown
    ):
        tensors = batch.values() if isinstance(batch, Mapping) else ()
        sizes = [len(value) for value in tensors if isinstance(value, Tensor) and value.dim()]
        if not sizes:
            raise TypeError(
                f"A batch of the dataloader is a {type(batch).__name__} without tensors by name. Let its `collate_fn` "
                "return the model's keyword arguments, `transformers.default_data_collator` for example."
            )
        yield batch
        n_read += sizes[0]
        if n_read >= n_examples:
            return


def _warn_of_guessing(model: Any, loss: float) -> None:
    n_labels = getattr(getattr(model.get_base_model(), "config", None), "num_labels", 0)
    if model.active_peft_config.task_type in HEAD_TASKS and n_labels > 1 and loss > GUESSING * math.log(n_labels):
        warnings.warn(
            f"The classifier's loss is {loss:.3f}, that of guessing among {n_labels} labels is "
            f"{math.log(n_labels):.3f}: its head seems to be random still, and the gradient says little. Fit the head "
            "on the frozen base model first, then find the bases.",
            stacklevel=5,
        )


def _summed(name: str, moments: Moments | None) -> Moments:
    """Return the sums over all processes."""
    if moments is None:
        raise ValueError(
            f"No gradient came to {name.removeprefix(PREFIX)}: it has no part in the loss. Do not target it."
        )
    for part in moments:
        if _is_distributed():
            dist.all_reduce(part)
        if not bool(part.isfinite().all()):
            raise ValueError(
                f"The gradient of {name.removeprefix(PREFIX)} is not finite. Check the examples and the dtype."
            )
    return moments


def _bases(moments: Mapping[str, Moments], ranks: Iterable[int]) -> Tensor:
    """Return one stage's bases end to end, every A, then every U; in each process those of the first."""
    pairs = [scaled_bases(found, rank) for found, rank in zip(moments.values(), ranks, strict=True)]
    buffer = torch.cat([a.flatten() for a, _ in pairs] + [u.flatten() for _, u in pairs])
    if _is_distributed():
        dist.broadcast(buffer, 0)
    return buffer


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def _is_first_process() -> bool:
    return not _is_distributed() or dist.get_rank() == 0


def _read(path: Path, layers: Mapping[str, Sequence[int]]) -> Tensor:
    try:
        with safe_open(path, "pt") as file:
            found = (file.metadata() or {}).get("layers")
            if found != _identity(layers):
                raise ValueError(
                    f"{path} holds the bases of other layers or ranks, or an older version's. Pass another file, or "
                    "remove this one."
                )
            return file.get_tensor("basis")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}). Remove it, so that the bases are found again.") from error


def _write(path: Path, buffer: Tensor, layers: Mapping[str, Sequence[int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file({"basis": buffer.cpu()}, partial, metadata={"layers": _identity(layers)})
        partial.replace(path)
    except (OSError, SafetensorError):  # a full disk
        partial.unlink(missing_ok=True)
        raise


def _identity(layers: Mapping[str, Sequence[int]]) -> str:
    return json.dumps([METHOD, *([name, *shape] for name, shape in layers.items())])

"""Gradient bases of all adapted layers: from their whole gradients in one pass, or from sketches in several."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from peft import PeftModel
from torch import Tensor

from qpa_hf.generator import FLOAT_BYTES, Moments, Sketch, scaled_bases, second_moment
from qpa_hf.generator.sketches import N_PASSES, RandomColumns
from qpa_hf.models import active_adapters_of
from qpa_hf.processes import is_distributed
from qpa_hf.tuners.qpa.basis_cost import LayerSize, has_sketches
from qpa_hf.tuners.qpa.passes import Loss, one_pass
from qpa_hf.tuners.qpa.slots import PREFIX

HEAD_TASKS = ("SEQ_CLS", "TOKEN_CLS")
GUESSING = 0.95  # a head whose loss is more than this share of ln(n_labels) has not learned its classes
SAME_LOSS = 1e-3  # share by which the mean loss of two passes over the same batches may differ, as by rounding

Batches = Iterable[Mapping[str, Any]]
Bases = tuple[Tensor, Tensor]


class Whole:
    """A layer's whole gradient and second moments, from which its bases are found exactly."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._moments: Moments | None = None

    def add(self, x: Tensor, grad: Tensor) -> None:
        """Add tokens, as of `Sums`."""
        self._add(Moments(grad.T @ x, second_moment(x), second_moment(grad)))

    def add_gradient(self, gradient: Tensor) -> None:
        """Add a batch, as of `Sums`; its own rows and columns stand for the tokens' in the second moments."""
        self._add(Moments(gradient, gradient.square().sum(0), gradient.square().sum(1)))

    def _add(self, new: Moments) -> None:
        if self._moments is None:
            self._moments = new
        else:
            for total, part in zip(self._moments, new, strict=True):
                total.add_(part)

    def sums(self) -> list[Tensor]:
        """Return what was summed, to be added up over processes in place; nothing if no token came."""
        return list(self._moments or ())

    def bases(self) -> Bases:
        """Return (A, U)."""
        assert self._moments is not None
        return scaled_bases(self._moments, self.rank)


def find_bases(
    model: Any,
    batches: Batches,
    sizes: Mapping[str, LayerSize],
    loss: Loss | None,
    exact_bytes: int,
    shown: Callable[[Batches, str], Batches],
) -> dict[str, list[Bases]]:
    """Return the bases of some layers, those of each of its experts, from examples in all processes.

    Args:
        model: the `PeftModel`; it comes out in the modes and with the gradients that it had.
        batches: the batches to sum over, which are read once.
        sizes: sizes of the adapted layers by name.
        loss: loss of (model, batch) with its graph; None for the model's own.
        exact_bytes: most bytes of whole gradients.
        shown: function of (batches, title) that returns the batches and shows how far a pass has come.

    Raises:
        TypeError: if the loss has no graph.
        ValueError: if there is no batch, a layer is of a kind without bases, a gradient is missing or not finite, or
            the loss is another one in a later pass.
    """
    if has_sketches(sizes.values(), exact_bytes):
        # Read once, a loader may shuffle or draw new examples, or be one that ends: every pass sees the same batches.
        return _sketched(model, list(batches), sizes, loss, shown)
    layers: dict[str, list[Any]] = {n: [Whole(s.rank) for _ in range(s.n_experts)] for n, s in sizes.items()}
    mean = one_pass(model, shown(batches, "Gradient bases"), layers, loss)
    _warn_of_guessing(model, mean.item())
    for name, parts in layers.items():
        _add_up(name, parts)
    with _without_autocast(model):
        return {name: [part.bases() for part in layers.pop(name)] for name in sizes}


def _sketched(
    model: Any,
    batches: Batches,
    sizes: Mapping[str, LayerSize],
    loss: Loss | None,
    shown: Callable[[Batches, str], Batches],
) -> dict[str, list[Bases]]:
    """Return the same from sketches of the layers that are smaller than their gradients; of the others in one pass."""
    layers = _begun(sizes)
    found: dict[str, list[Bases]] = {}
    first = torch.zeros(())
    for i in range(N_PASSES):
        title = f"Gradient bases, pass {i + 1} of {N_PASSES}"
        with torch.random.fork_rng(devices=[]):  # what is random in the loss is the same in each pass
            mean = _over_processes(one_pass(model, shown(batches, title), layers, loss))
        if i == 0:
            first = mean
            _warn_of_guessing(model, mean.item(), depth=6)
        _check_same(first, mean, i, sizes)
        for name, parts in list(layers.items()):
            _add_up(name, parts)
            with _without_autocast(model):
                if i == N_PASSES - 1 or isinstance(parts[0], Whole):
                    found[name] = [part.bases() for part in layers.pop(name)]
                else:
                    _advance(parts)
    return {name: found[name] for name in sizes}


def _begun(sizes: Mapping[str, LayerSize]) -> dict[str, list[Any]]:
    random = RandomColumns()  # kept by the sketches until the first pass is over
    return {
        name: [
            Sketch(size.rank, size.n_columns, random) if size.n_columns else Whole(size.rank)
            for _ in range(size.n_experts)
        ]
        for name, size in sizes.items()
    }


def _advance(sketches: Iterable[Sketch]) -> None:
    for sketch in sketches:
        factor = sketch.advance()
        if is_distributed():
            dist.broadcast(factor, 0)


def _without_autocast(model: Any) -> Any:
    return torch.autocast(next(model.parameters()).device.type, enabled=False)


def _over_processes(mean: Tensor) -> Tensor:
    if is_distributed():
        mean = mean.clone()
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
    return mean


def _check_same(first: Tensor, mean: Tensor, i: int, sizes: Mapping[str, LayerSize]) -> None:
    if not first.isfinite():  # which the sums say
        return
    if (mean - first).abs() > SAME_LOSS * first.abs():
        needed = FLOAT_BYTES * sum(size.n_gradient for size in sizes.values())
        raise ValueError(
            f"The loss over the same batches was {first.item():.4g} in the first pass and {mean.item():.4g} in pass "
            f"{i + 1}: something in the model or in `loss` is random. Make it repeatable, or have one pass only, by "
            f"exact_bytes={needed}."
        )


def _add_up(name: str, parts: Sequence[Any]) -> None:
    """Add a layer's sums up over all processes, in place."""
    name = name.removeprefix(PREFIX)
    for part in parts:
        sums = part.sums()
        if not sums:
            raise ValueError(f"No gradient came to {name}: it has no part in the loss. Do not target it.")
        for tensor in sums:
            if is_distributed():
                dist.all_reduce(tensor)
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"The gradient of {name} is not finite. Check the examples and the dtype.")
    if not any(bool(part.sums()[0].any()) for part in parts):
        raise ValueError(
            f"The gradient of {name} is zero: the loss of these examples does not depend on it. Pass examples that "
            "differ (rewards that are all equal teach nothing), or do not target it."
        )


def _warn_of_guessing(model: Any, loss: float, depth: int = 5) -> None:
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    n_labels = getattr(getattr(base, "config", None), "num_labels", 0)
    task_type = model.peft_config[active_adapters_of(model)[0]].task_type
    if task_type in HEAD_TASKS and n_labels > 1 and loss > GUESSING * math.log(n_labels):
        warnings.warn(
            f"The classifier's loss is {loss:.3f}, that of guessing among {n_labels} labels is "
            f"{math.log(n_labels):.3f}: its head seems to be random still, and the gradient says little. Fit the head "
            "on the frozen base model first, by `GradientBasisCallback(trainer, fit_head=True)` for example.",
            stacklevel=depth,
        )

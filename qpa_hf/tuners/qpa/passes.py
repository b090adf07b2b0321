"""One pass over the examples, in which layers are seen at work: their inputs, and their outputs' gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn

from qpa_hf.models import evaluating, layer_of
from qpa_hf.tuners.qpa.experts import watched
from qpa_hf.tuners.qpa.slots import PREFIX

Loss = Callable[[nn.Module, Mapping[str, Any]], Tensor]
SCALE = 2.0**12  # of the loss, so that float16 holds small gradients; bases do not depend on it
NO_PART = 1e-5  # of the largest gradient of a token: below it, as of padding, is no more than rounding


class Sums(Protocol):
    """What a layer's bases are found from, as it is summed over tokens."""

    def add(self, x: Tensor, grad: Tensor) -> None:
        """Add tokens: inputs (n_tokens, n_in) and gradients with respect to outputs (n_tokens, n_out)."""

    def add_gradient(self, gradient: Tensor) -> None:
        """Add the gradient of one batch with respect to the weight, (n_out, n_in), where no tokens are seen."""


def one_pass(
    model: Any, batches: Iterable[Mapping[str, Any]], layers: Mapping[str, list[Any]], loss: Loss | None
) -> Tensor:
    """Run the model forward and backward over all batches, and add what the layers show to their sums.

    Args:
        model: the `PeftModel`; it comes out in the modes and with the gradients that it had.
        batches: the batches to sum over.
        layers: the `Sums` of adapted layers by name, one, or one for each of its experts.
        loss: loss of (model, batch) with its graph; None for the model's own.

    Returns:
        The mean loss over the batches, shape ().

    Raises:
        TypeError: if the loss has no graph.
        ValueError: if there is no batch, or a layer is of a kind without bases.
    """
    loss = loss or _model_loss
    wrappers = {name: layer_of(model, name) for name in layers}
    for name, wrapper in wrappers.items():
        if isinstance(wrapper.get_base_layer(), nn.MultiheadAttention):
            raise ValueError(
                f"{name} is a MultiheadAttention, which has no gradient basis. Leave it out of the targets, or use "
                "basis='kaiming'."
            )
    device = next(model.parameters()).device
    losses = []
    hooks = [hook for name, sums in layers.items() for hook in _hooks(name, wrappers[name], sums)]
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
    return torch.stack(losses).mean()


def _model_loss(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    loss = model(**batch).loss
    if loss is None:
        raise ValueError("The model returned no loss. Put `labels` into each batch, or pass `loss`.")
    return loss


def _hooks(name: str, wrapper: Any, sums: list[Sums]) -> list[Any]:
    """Return the handles of the hooks by which a layer's sums see it at work."""
    if isinstance(wrapper, ParamWrapper):
        return watched(wrapper, name.removeprefix(PREFIX), [one.add_gradient for one in sums])
    return [wrapper.get_base_layer().register_forward_hook(_Observer(sums[0]))]


class _Observer:
    """A forward hook on a layer that hands over X of its inputs and G of its outputs' gradients, a row for each token.

    The gradient of its weight is G^T X. Nothing here needs the weight itself, which may be quantised or sharded.
    """

    def __init__(self, sums: Sums) -> None:
        self.sums = sums

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
            self.sums.add(x * (size > NO_PART * size.max()), grad)


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

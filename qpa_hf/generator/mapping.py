"""The mapping model: rows of features become chunks of values, laid end to end and cut into slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from qpa_hf.generator.features import sum_last

HIDDEN_ROWS = 16_384  # more rows than these are recomputed, so many at a time, in the backward pass
FEW_FEATURES = 8  # up to so many, a transposed product is faster than a plain one (measured)
BLOCK_VALUES = 2**20  # gradients gathered at a time by the output layer's backward pass: 4 MB stay in a core's cache

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}
Layer = tuple[Tensor, Tensor]  # weight (out, in) and bias (out,)


def one_layer(n_features: int, layers: Sequence[Layer]) -> Layer:
    """Return the one layer that layers without activation functions are, by what they make of the unit vectors."""
    weight = layers[0][0]
    rows = torch.eye(n_features + 1, n_features, dtype=weight.dtype, device=weight.device)  # the last is zero
    for layer in layers:
        rows = F.linear(rows, *layer)
    return (rows[:-1] - rows[-1]).t(), rows[-1]


def hidden_layers(features: Tensor, layers: Sequence[Layer], activation: str) -> Tensor:
    """Return the output layer's inputs, shape (n_chunks, width), from features of shape (n_chunks, n_features).

    Of many rows, only the blocks' inputs and outputs are kept for the backward pass.
    """
    function = ACTIVATION_FUNCTIONS[activation]

    def block(rows: Tensor) -> Tensor:
        for weight, bias in layers:
            rows = function(F.linear(rows, weight, bias))
        return rows

    if not layers or len(features) <= HIDDEN_ROWS or not torch.is_grad_enabled():
        return block(features)
    blocks = features.split(HIDDEN_ROWS)
    return torch.cat([checkpoint(block, rows, use_reentrant=False, preserve_rng_state=False) for rows in blocks])


def mean(hidden: Tensor, weight: Tensor, bias: Tensor, n_values: int) -> Tensor:
    """Return the mean of the output layer's first `n_values` numbers, without them: it is linear.

    The last row may be cut short.
    """
    n_full, rest = divmod(n_values, len(weight))
    full = weight.sum(0) @ sum_last(hidden[:n_full].t()) + n_full * bias.sum()
    part = (weight[:rest] @ hidden[n_full:].t()).sum() + bias[:rest].sum() if rest else 0
    return (full + part) / n_values


def _values(hidden: Tensor, weight: Tensor, bias: Tensor, frozen: Sequence[Tensor]) -> Tensor:
    return add_frozen(F.linear(hidden, weight, bias).view(-1), frozen)


def add_frozen(values: Tensor, frozen: Sequence[Tensor]) -> Tensor:
    """Add frozen numbers, laid end to end, to the first of the values, in place."""
    offset = 0
    for part in frozen:
        values[offset : offset + part.numel()].add_(part)  # in place: the vector may be gigabytes
        offset += part.numel()
    return values


def output_layer(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    frozen: Sequence[Tensor],
    sizes: Sequence[int],
    is_centred: bool = False,
) -> tuple[Tensor, ...]:
    """Return the chunks laid end to end, plus the frozen numbers, cut into slots of `sizes` numbers.

    Args:
        hidden: shape (n_chunks, width).
        weight: shape (chunk_size, width).
        bias: shape (chunk_size,).
        frozen: frozen numbers, added end to end from the start.
        sizes: at most n_chunks * chunk_size numbers together; what is left over at the end is dropped.
        is_centred: subtract the generated numbers' mean.
    """
    if torch.compiler.is_compiling():
        bias = bias - mean(hidden, weight, bias, sum(sizes)) if is_centred else bias
        return _values(hidden, weight, bias, frozen)[: sum(sizes)].split(list(sizes))
    return _Slots.apply(hidden, weight, bias, frozen, sizes, is_centred)


class _Slots(torch.autograd.Function):
    """The output layer with a backward pass that never lays all slots' gradients end to end."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        frozen: Sequence[Tensor],
        sizes: Sequence[int],
        is_centred: bool,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(hidden, weight)
        ctx.sizes, ctx.is_centred = sizes, is_centred
        ctx.set_materialize_grads(False)  # a slot that nobody read has no gradient
        bias = bias - mean(hidden, weight, bias, sum(sizes)) if is_centred else bias
        return _values(hidden, weight, bias, frozen)[: sum(sizes)].split(list(sizes))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        # Where a user runs the whole backward pass under autocast, it must not reach the generator.
        with torch.autocast(weight.device.type, enabled=False):
            grad_hidden, grad_layer = _gradients(hidden, weight, grads, ctx.sizes)
            if ctx.is_centred:
                _centre(grad_hidden, grad_layer, hidden, weight, sum(ctx.sizes))
        return grad_hidden, grad_layer[:-1].t(), grad_layer[-1], None, None, None


def _gradients(
    hidden: Tensor, weight: Tensor, grads: Sequence[Tensor | None], sizes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `hidden` and of the layer, (width + 1, chunk_size), the bias last."""
    chunk_size, width = weight.shape
    n_rows = max(1, BLOCK_VALUES // chunk_size)
    gathered = weight.new_empty(min(n_rows, len(hidden)) * chunk_size)
    # Everything transposed: for few features, products then read a block row by row, which is several times faster.
    inputs = weight.new_ones(width + 1, min(n_rows, len(hidden)))  # the bias is the weight of a constant 1
    grad_layer = weight.new_zeros(width + 1, chunk_size)
    grad_hidden = weight.new_empty(hidden.shape).t() if width > FEW_FEATURES else weight.new_empty(hidden.shape[::-1])
    for start in range(0, len(hidden), n_rows):
        stop = min(start + n_rows, len(hidden))
        block = gathered[: (stop - start) * chunk_size]
        _gather(grads, sizes, start * chunk_size, block)
        block = block.view(-1, chunk_size)
        inputs[:-1, : len(block)] = hidden[start:stop].t()
        grad_layer.addmm_(inputs[:, : len(block)], block)
        torch.mm(weight.t(), block.t(), out=grad_hidden[:, start:stop])
    return grad_hidden.t(), grad_layer


def _centre(grad_hidden: Tensor, grad_layer: Tensor, hidden: Tensor, weight: Tensor, n_values: int) -> None:
    """Turn gradients of the generated numbers into those of the numbers less their mean, in place.

    Each number's gradient then lacks the mean of all, so these lack its products with ones.
    """
    n_full, rest = divmod(n_values, len(weight))
    shift = grad_layer[-1].sum() / n_values
    grad_hidden[:n_full] -= shift * weight.sum(0)
    grad_layer[:-1] -= (shift * hidden[:n_full].sum(0)).unsqueeze(1)
    grad_layer[-1] -= shift * n_full
    if rest:
        grad_hidden[n_full] -= shift * weight[:rest].sum(0)
        grad_layer[:-1, :rest] -= (shift * hidden[n_full]).unsqueeze(1)
        grad_layer[-1, :rest] -= shift


def _gather(grads: Sequence[Tensor | None], sizes: Sequence[int], start: int, block: Tensor) -> None:
    """Fill `block` with the gradients of the numbers from `start` on; zeros where there are none."""
    stop, offset = start + block.numel(), 0
    filled = start
    for grad, size in zip(grads, sizes, strict=True):
        first, last = max(start, offset), min(stop, offset + size)
        if first < last:
            target = block[first - start : last - start]
            if grad is None:
                target.zero_()
            else:
                target.copy_(grad.reshape(-1)[first - offset : last - offset])
            filled = last
        offset += size
    block[filled - start :].zero_()

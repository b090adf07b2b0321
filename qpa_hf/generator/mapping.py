"""The mapping model: rows of features become chunks of values, laid end to end and cut into slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

HIDDEN_ROWS = 16_384  # more rows than these are recomputed, so many at a time, in the backward pass
BLOCK_VALUES = 2**20  # gradients gathered at a time by the output layer's backward pass: 4 MB stay in a core's cache

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}
Layer = tuple[Tensor, Tensor]  # weight (out, in) and bias (out,)


def hidden_layers(features: Tensor, layers: Sequence[Layer], activation: str) -> Tensor:
    """Return the output layer's inputs, shape (n_chunks, width), from features of shape (n_chunks, n_features).

    Without an activation the layers are one affine map: where rows are many it is found first, from as few rows as
    there are features and one more. With one, only the blocks' inputs and outputs are kept for the backward pass.
    """
    function = ACTIVATION_FUNCTIONS[activation]

    def block(rows: Tensor) -> Tensor:
        for weight, bias in layers:
            rows = function(F.linear(rows, weight, bias))
        return rows

    n_features = features.shape[1]
    if layers and activation == "none" and len(features) > n_features + 1:
        images = block(torch.eye(n_features + 1, n_features, dtype=features.dtype, device=features.device))
        offset = images[n_features]  # of the zero vector
        return torch.addmm(offset, features, images[:n_features] - offset)
    if not layers or len(features) <= HIDDEN_ROWS or not torch.is_grad_enabled():
        return block(features)
    blocks = features.split(HIDDEN_ROWS)
    return torch.cat([checkpoint(block, rows, use_reentrant=False, preserve_rng_state=False) for rows in blocks])


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
    hidden: Tensor, weight: Tensor, bias: Tensor, frozen: Sequence[Tensor], sizes: Sequence[int]
) -> tuple[Tensor, ...]:
    """Return the chunks laid end to end, plus the frozen numbers, cut into slots of `sizes` numbers.

    Args:
        hidden: shape (n_chunks, width).
        weight: shape (chunk_size, width).
        bias: shape (chunk_size,).
        frozen: frozen numbers, added end to end from the start.
        sizes: at most n_chunks * chunk_size numbers together; what is left over at the end is dropped.
    """
    if torch.compiler.is_compiling():
        return _values(hidden, weight, bias, frozen)[: sum(sizes)].split(list(sizes))
    return _Slots.apply(hidden, weight, bias, frozen, sizes)


class _Slots(torch.autograd.Function):
    """The output layer with a backward pass that never lays all slots' gradients end to end."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, frozen: Sequence[Tensor], sizes: Sequence[int]
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(hidden, weight)
        ctx.sizes = sizes
        ctx.set_materialize_grads(False)  # a slot that nobody read has no gradient
        return _values(hidden, weight, bias, frozen)[: sum(sizes)].split(list(sizes))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        chunk_size, width = weight.shape
        # Everything transposed: these two products read a block row by row, several times faster for few features.
        inputs = torch.cat([hidden.t(), hidden.new_ones(1, len(hidden))])  # the bias is the weight of a constant 1
        by_feature = weight.t().contiguous()
        grad_layer = weight.new_zeros(width + 1, chunk_size)
        grad_hidden = weight.new_empty(width, len(hidden))
        n_rows = max(1, BLOCK_VALUES // chunk_size)
        gathered = weight.new_empty(min(n_rows, len(hidden)) * chunk_size)
        # Where a user runs the whole backward pass under autocast, it must not reach the generator.
        with torch.autocast(weight.device.type, enabled=False):
            for start in range(0, len(hidden), n_rows):
                stop = min(start + n_rows, len(hidden))
                block = gathered[: (stop - start) * chunk_size]
                _gather(grads, ctx.sizes, start * chunk_size, block)
                block = block.view(-1, chunk_size)
                grad_layer.addmm_(inputs[:, start:stop], block)
                torch.mm(by_feature, block.t(), out=grad_hidden[:, start:stop])
        return grad_hidden.t(), grad_layer[:width].t(), grad_layer[width], None, None


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

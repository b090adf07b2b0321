"""The mapping model: rows of features become chunks of values, laid end to end and cut into slots."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from qpa_hf.generator.features import sum_last

HIDDEN_ROWS = 16_384  # more rows than these are recomputed, so many at a time, in the backward pass
# Gradients gathered at a time by the output layer's backward pass: 1 MB stays in a core's cache (measured); of a GPU's
# launches there shall be few.
BLOCK_VALUES, DEVICE_BLOCK_VALUES = 2**18, 2**22
# From so many bytes on, glibc asks the system for new pages each time; if they are large, it takes half as long.
NEW_PAGES_BYTES = 2**25

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


def add_frozen(values: Tensor, frozen: Sequence[Tensor]) -> Tensor:
    """Add frozen numbers, laid end to end, to the first of the values, in place."""
    offset = 0
    for part in frozen:
        values[offset : offset + part.numel()].add_(part)  # in place: the vector may be gigabytes
        offset += part.numel()
    return values


def output_layer(
    hidden: Tensor,
    layers: Sequence[Layer],
    frozen: Sequence[Tensor],
    shapes: Sequence[torch.Size],
    is_centred: bool = False,
) -> tuple[Tensor, ...]:
    """Return the chunks laid end to end, plus the frozen numbers, cut into slots of `shapes`.

    Args:
        hidden: shape (n_chunks, width).
        layers: the output layer, and any before it without an activation function, which make one layer with it.
        frozen: frozen numbers, added end to end from the start.
        shapes: at most n_chunks * chunk_size numbers together; what is left over at the end is dropped.
        is_centred: subtract the generated numbers' mean.
    """
    parameters = [parameter for layer in layers for parameter in layer]
    if not torch.compiler.is_compiling():
        return _Slots.apply(hidden, frozen, shapes, is_centred, *parameters)
    inputs, layer = _with_ones(hidden), _compose(parameters)[-1]
    if is_centred:
        n_values = sum(shape.numel() for shape in shapes)
        layer = torch.cat((layer[:-1], layer[-1:] - _mean(inputs, layer, n_values, _sums(inputs, layer, n_values))))
    return cut(add_frozen((inputs.t() @ layer).view(-1), frozen), shapes)


def cut(values: Tensor, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    """Cut numbers that lie end to end into slots; what is left over at the end is dropped."""
    sizes = [shape.numel() for shape in shapes]
    pieces = values[: sum(sizes)].split(sizes)
    return tuple(piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True))


def _with_ones(hidden: Tensor) -> Tensor:
    """Return the inputs, (width + 1, n_chunks): a bias is the weight of a constant 1."""
    return torch.cat((hidden.t(), hidden.new_ones(1, len(hidden))))


def _compose(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the first layer, the first two as one layer, ..., each (n_features + 1, its width), the bias last."""
    composed = [torch.cat((parameters[0].t(), parameters[1][None]))]
    for weight, bias in zip(parameters[2::2], parameters[3::2], strict=True):
        layer = composed[-1] @ weight.t()
        layer[-1] += bias
        composed.append(layer)
    return composed


def _sums(inputs: Tensor, layer: Tensor, n_values: int) -> tuple[Tensor, Tensor]:
    """Return the sums over the chunks that are whole, and over the numbers of a chunk."""
    return sum_last(inputs[:, : n_values // layer.shape[1]]), sum_last(layer)


def _mean(inputs: Tensor, layer: Tensor, n_values: int, sums: tuple[Tensor, Tensor]) -> Tensor:
    """Return the mean of the output layer's first `n_values` numbers, without them: it is linear.

    The last chunk may be cut short.
    """
    n_full, rest = divmod(n_values, layer.shape[1])
    total = sums[0] @ sums[1]
    if rest:
        total = total + inputs[:, n_full] @ layer[:, :rest].sum(1)
    return total / n_values


class _Slots(torch.autograd.Function):
    """The output layer with a backward pass that never lays all slots' gradients end to end."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        frozen: Sequence[Tensor],
        shapes: Sequence[torch.Size],
        is_centred: bool,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        inputs, (*composed, layer) = _with_ones(hidden), _compose(parameters)
        ctx.sizes, ctx.is_centred = [shape.numel() for shape in shapes], is_centred
        if is_centred:
            ctx.sums = _sums(inputs, layer, sum(ctx.sizes))
            layer[-1] -= _mean(inputs, layer, sum(ctx.sizes), ctx.sums)
        ctx.save_for_backward(inputs, layer, *composed, *parameters[2::2])
        ctx.set_materialize_grads(False)  # a slot that nobody read has no gradient
        return cut(_values(inputs, layer, frozen), shapes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, layer, *saved = ctx.saved_tensors
        composed, weights = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        # Where a user runs the whole backward pass under autocast, it must not reach the generator.
        with torch.autocast(layer.device.type, enabled=False):
            grad_hidden, grad_layer = _gradients(inputs, layer, grads, ctx.sizes)
            if ctx.is_centred:
                _centre(grad_hidden, grad_layer, inputs, layer, sum(ctx.sizes), ctx.sums)
            of_parameters = []
            for before, weight in zip(reversed(composed), reversed(weights), strict=True):
                of_parameters += [grad_layer[-1], grad_layer.t() @ before]
                grad_layer = grad_layer @ weight
        return grad_hidden, None, None, None, grad_layer[:-1].t(), grad_layer[-1], *reversed(of_parameters)


def _values(inputs: Tensor, layer: Tensor, frozen: Sequence[Tensor]) -> Tensor:
    """Return all numbers, (n_chunks * chunk_size,)."""
    values = _new_memory(inputs.shape[1] * layer.shape[1], layer)
    torch.mm(inputs.t(), layer, out=values.view(-1, layer.shape[1]))
    return add_frozen(values, frozen)


def _new_memory(n_values: int, like: Tensor) -> Tensor:
    n_bytes = n_values * like.element_size()
    if like.device.type != "cpu" or n_bytes < NEW_PAGES_BYTES or not hasattr(mmap, "MADV_HUGEPAGE"):
        return like.new_empty(n_values)
    pages = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=like.dtype)


def _gradients(
    inputs: Tensor, layer: Tensor, grads: Sequence[Tensor | None], sizes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of `hidden`, (n_chunks, width), and of the layer, (width + 1, chunk_size)."""
    grad_layer = torch.zeros_like(layer)
    # Everything transposed: products then read a block row by row, which is several times faster.
    grad_hidden = torch.empty_like(inputs[:-1])
    for chunks, block in _blocks(grads, sizes, layer, inputs.shape[1]):
        grad_layer.addmm_(inputs[:, chunks], block)
        torch.mm(layer[:-1], block.t(), out=grad_hidden[:, chunks])
    return grad_hidden.t(), grad_layer


def _blocks(
    grads: Sequence[Tensor | None], sizes: Sequence[int], layer: Tensor, n_chunks: int
) -> Iterator[tuple[slice, Tensor]]:
    """Gather gradients into blocks; yield which chunks each has, and the gradients, (so many, chunk_size).

    Products with gradients that have just been copied are faster than with those in memory, copying included.
    """
    chunk_size, zero = layer.shape[1], layer.new_zeros(())
    n_values = max(1, (BLOCK_VALUES if layer.device.type == "cpu" else DEVICE_BLOCK_VALUES) // chunk_size) * chunk_size
    n_values = min(n_values, n_chunks * chunk_size)
    gathered = layer.new_empty(n_values)
    pieces: list[Tensor] = []
    n_gathered = n_done = 0
    for grad, size in zip((*grads, None), (*sizes, n_chunks * chunk_size - sum(sizes)), strict=True):
        flat = zero.expand(size) if grad is None else grad.reshape(-1)
        start = 0
        while start < size:
            stop = min(size, start + n_values - n_gathered)
            pieces.append(flat if stop - start == size else flat[start:stop])
            n_gathered += stop - start
            start = stop
            if n_gathered == n_values or n_done + n_gathered == n_chunks * chunk_size:
                block = torch.cat(pieces, out=gathered[:n_gathered]).view(-1, chunk_size)
                first = n_done // chunk_size
                yield slice(first, first + len(block)), block
                n_done += n_gathered
                pieces, n_gathered = [], 0


def _centre(
    grad_hidden: Tensor,
    grad_layer: Tensor,
    inputs: Tensor,
    layer: Tensor,
    n_values: int,
    sums: tuple[Tensor, Tensor],
) -> None:
    """Turn gradients of the generated numbers into those of the numbers less their mean, in place.

    Each number's gradient then lacks the mean of all, so these lack its products with ones.
    """
    n_full, rest = divmod(n_values, layer.shape[1])
    shift = grad_layer[-1].sum() / n_values
    grad_hidden[:n_full] -= shift * sums[1][:-1]
    grad_layer -= (shift * sums[0]).unsqueeze(1)
    if rest:
        grad_hidden[n_full] -= shift * layer[:-1, :rest].sum(1)
        grad_layer[:, :rest] -= (shift * inputs[:, n_full]).unsqueeze(1)

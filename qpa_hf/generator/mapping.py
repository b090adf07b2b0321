"""The mapping model: rows of features become chunks of values, laid end to end and cut into slots."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from qpa_hf.reproducible import sum_last

if TYPE_CHECKING:
    from jaxtyping import Float

HIDDEN_ROWS = 16_384  # more rows than these are recomputed, so many at a time, in the backward pass
# Gradients gathered at a time by the output layer's backward pass: 1 MB stays in a core's cache (measured). A GPU gets
# larger blocks, because there each launch costs time.
BLOCK_VALUES = 2**18
DEVICE_BLOCK_VALUES = 2**22
# From so many bytes on, glibc asks the system for new pages each time; if they are large, it takes half as long.
NEW_PAGES_BYTES = 2**25

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}
Layer = tuple[Tensor, Tensor]  # weight (out, in) and bias (out,)


def hidden_layers(
    features: Float[Tensor, "n_chunks n_features"], layers: Sequence[Layer], activation: str
) -> Float[Tensor, "n_chunks width"]:
    """Return the inputs of the output layer.

    Each row passes the layers by itself, so that many rows can be cut into blocks. Then only a block's inputs and
    outputs are kept, and what lies between is computed again in the backward pass: memory does not grow with depth.

    Args:
        features: inputs of the mapping model, a row for each chunk.
        layers: weights and biases of the hidden layers, in their order.
        activation: a key of `ACTIVATIONS`, applied after each hidden layer.
    """
    function = ACTIVATIONS[activation]

    def block(rows: Tensor) -> Tensor:
        for weight, bias in layers:
            rows = function(F.linear(rows, weight, bias))
        return rows

    if not layers or len(features) <= HIDDEN_ROWS or not torch.is_grad_enabled():
        return block(features)
    blocks = features.split(HIDDEN_ROWS)
    return torch.cat([checkpoint(block, rows, use_reentrant=False, preserve_rng_state=False) for rows in blocks])


def add_frozen(values: Float[Tensor, " n_values"], frozen: Sequence[Tensor]) -> Float[Tensor, " n_values"]:
    """Add frozen numbers to the values, in place, and return the values.

    Args:
        values: generated numbers.
        frozen: vectors of frozen numbers, added end to end from the first value on.
    """
    offset = 0
    for part in frozen:
        values[offset : offset + part.numel()].add_(part)  # in place: the vector may be gigabytes
        offset += part.numel()
    return values


def output_layer(
    hidden: Float[Tensor, "n_chunks width"],
    layers: Sequence[Layer],
    frozen: Sequence[Tensor],
    shapes: Sequence[torch.Size],
    is_centred: bool = False,
) -> tuple[Tensor, ...]:
    """Return the chunks laid end to end, plus the frozen numbers, cut into slots of `shapes`.

    Layers without an activation function between them are one matrix, so that all chunks are one matrix product. Its
    result is the vector itself, row after row, and each slot is a view of it: nothing of that size is copied.

    Args:
        hidden: outputs of the last layer that has an activation function after it.
        layers: the output layer, and any layers before it without an activation function.
        frozen: vectors of frozen numbers, added end to end from the first generated number on.
        shapes: shapes of the slots, of at most n_chunks * chunk_size numbers together; the rest is dropped.
        is_centred: whether the mean of the generated numbers is subtracted from them.
    """
    parameters = [parameter for layer in layers for parameter in layer]
    if not torch.compiler.is_compiling():
        return _Slots.apply(hidden, frozen, shapes, is_centred, *parameters)
    inputs = _with_ones(hidden)
    layer = _compose(parameters)[-1]
    if is_centred:
        n_values = sum(shape.numel() for shape in shapes)
        layer = torch.cat((layer[:-1], layer[-1:] - _mean(inputs, layer, n_values, _sums(inputs, layer, n_values))))
    return split_into(add_frozen((inputs.t() @ layer).view(-1), frozen), shapes)


def split_into(values: Tensor, shapes: Sequence[torch.Size]) -> tuple[Tensor, ...]:
    """Split numbers that lie end to end into slots; what is left over at the end is dropped.

    Args:
        values: numbers, shape (n_values,).
        shapes: shapes of the slots, in the numbers' order.
    """
    sizes = [shape.numel() for shape in shapes]
    pieces = values[: sum(sizes)].split(sizes)
    return tuple(piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True))


def _with_ones(hidden: Tensor) -> Tensor:
    """Return the inputs, (width + 1, n_chunks): a bias is the weight of a constant 1."""
    return torch.cat((hidden.t(), hidden.new_ones(1, len(hidden))))


def _compose(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the first layer, the first two as one layer, ..., each (n_features + 1, its width), the bias last.

    For two layers, (x A + a) B + b = x (A B) + (a B + b): weights and bias pass the next weight together, as the rows
    of one matrix, and only the last row gets the next bias.
    """
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
    """Return the mean of the output layer's first `n_values` numbers without computing them.

    The sum over all entries of a product X^T W is the product of X summed over chunks and W summed over the numbers of
    a chunk. What is left of a last chunk that is cut short is added by itself.
    """
    n_full, rest = divmod(n_values, layer.shape[1])
    total = sums[0] @ sums[1]
    if rest:
        total = total + inputs[:, n_full] @ layer[:, :rest].sum(1)
    return total / n_values


class _Slots(torch.autograd.Function):
    """The output layer with a backward pass that never lays all slots' gradients end to end.

    Autograd would first copy all gradients into a vector as large as the generated one. This gathers one block of rows
    at a time, and adds up what each block gives the layer.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        frozen: Sequence[Tensor],
        shapes: Sequence[torch.Size],
        is_centred: bool,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        inputs = _with_ones(hidden)
        *composed, layer = _compose(parameters)
        ctx.sizes = [shape.numel() for shape in shapes]
        ctx.is_centred = is_centred
        if is_centred:
            ctx.sums = _sums(inputs, layer, sum(ctx.sizes))
            layer[-1] -= _mean(inputs, layer, sum(ctx.sizes), ctx.sums)
        ctx.save_for_backward(inputs, layer, *composed, *parameters[2::2])
        ctx.set_materialize_grads(False)  # a slot that nobody read has no gradient
        return split_into(_values(inputs, layer, frozen), shapes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        inputs, layer, *saved = ctx.saved_tensors
        composed = saved[: len(saved) // 2]
        weights = saved[len(saved) // 2 :]
        # Where a user runs the whole backward pass under autocast, it must not reach the generator.
        with torch.autocast(layer.device.type, enabled=False):
            grad_hidden, grad_layer = _gradients(inputs, layer, grads, ctx.sizes)
            if ctx.is_centred:
                _centre(grad_hidden, grad_layer, inputs, layer, sum(ctx.sizes), ctx.sums)
            # Back through the layers that were made one, the last of them first.
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
    """Return a vector without values, in large pages where it is large."""
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

    Slots begin and end anywhere in a row, so that a block takes pieces of several slots; a slot without a gradient,
    and what no slot covers at the end, counts as zeros. Products with gradients that have just been copied are faster
    than with those in memory, copying included.
    """
    chunk_size = layer.shape[1]
    zero = layer.new_zeros(())
    most = BLOCK_VALUES if layer.device.type == "cpu" else DEVICE_BLOCK_VALUES
    n_values = min(max(1, most // chunk_size), n_chunks) * chunk_size  # of a block: whole rows
    gathered = layer.new_empty(n_values)
    pieces: list[Tensor] = []
    n_gathered = 0
    n_done = 0
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
                n_gathered = 0
                pieces = []


def _centre(
    grad_hidden: Tensor,
    grad_layer: Tensor,
    inputs: Tensor,
    layer: Tensor,
    n_values: int,
    sums: tuple[Tensor, Tensor],
) -> None:
    """Turn gradients of the generated numbers into those of the numbers less their mean, in place.

    Without the mean, each number's gradient lacks the mean of all gradients. So the gradients of `hidden` and of the
    layer lack that mean's products with the other factor, which are its sums.
    """
    n_full, rest = divmod(n_values, layer.shape[1])
    shift = grad_layer[-1].sum() / n_values
    grad_hidden[:n_full] -= shift * sums[1][:-1]
    grad_layer -= (shift * sums[0]).unsqueeze(1)
    if rest:
        grad_hidden[n_full] -= shift * layer[:-1, :rest].sum(1)
        grad_layer[:, :rest] -= (shift * inputs[:, n_full]).unsqueeze(1)

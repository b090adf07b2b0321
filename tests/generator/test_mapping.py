"""The mapping model in blocks against the same numbers from plain autograd, in float64."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from qpa_hf.generator import mapping
from qpa_hf.generator.mapping import ACTIVATIONS, hidden_layers, output_layer

SIZES = [7, 20, 1, 30, 11]  # slots that begin and end within rows; 69 of 72 numbers
N_ROWS, CHUNK_SIZE, WIDTH = 9, 8, 3


@pytest.fixture(params=[1, 2, 4, 9], ids=lambda rows: f"{rows} rows a block")
def small_blocks(request, monkeypatch):
    monkeypatch.setattr(mapping, "BLOCK_VALUES", request.param * CHUNK_SIZE)
    monkeypatch.setattr(mapping, "HIDDEN_ROWS", request.param)


def drawn(*shapes):
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(shape, dtype=torch.float64, generator=rng).requires_grad_() for shape in shapes]


def operands():
    return drawn((N_ROWS, WIDTH), (CHUNK_SIZE, WIDTH), (CHUNK_SIZE,))


def slots_of(hidden, *parameters, frozen=(), is_centred=False):
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    return output_layer(hidden, layers, frozen, [torch.Size((n,)) for n in SIZES], is_centred)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("is_centred", [False, True])
def test_output_layer_passes_gradcheck(is_centred):
    frozen = [torch.ones(5, dtype=torch.float64), torch.full((30,), 2.0, dtype=torch.float64)]
    assert torch.autograd.gradcheck(lambda *x: slots_of(*x, frozen=frozen, is_centred=is_centred), operands())


@pytest.mark.parametrize("is_centred", [False, True])
def test_layers_without_activation_pass_gradcheck(is_centred):
    layers = drawn((N_ROWS, 2), (4, 2), (4,), (WIDTH, 4), (WIDTH,), (CHUNK_SIZE, WIDTH), (CHUNK_SIZE,))
    assert torch.autograd.gradcheck(lambda *x: slots_of(*x, is_centred=is_centred), layers)


def test_centred_numbers_have_no_mean_and_frozen_ones_keep_theirs():
    frozen = [torch.full((30,), 2.0, dtype=torch.float64)]
    values = torch.cat(slots_of(*operands(), frozen=frozen, is_centred=True))
    assert values.sum().item() == pytest.approx(60)


def test_layers_without_activation_follow_each_other():
    features, *layers = drawn((N_ROWS, 2), (4, 2), (4,), (WIDTH, 4), (WIDTH,), (CHUNK_SIZE, WIDTH), (CHUNK_SIZE,))
    expected = features
    for weight, bias in zip(layers[::2], layers[1::2], strict=True):
        expected = expected @ weight.t() + bias
    got = torch.cat(slots_of(features, *layers))
    torch.testing.assert_close(got, expected.flatten()[:69], rtol=1e-12, atol=1e-12)


def test_slots_are_rows_end_to_end_plus_the_frozen_numbers():
    hidden, weight, bias = operands()
    frozen = torch.arange(10, dtype=torch.float64)
    expected = (hidden @ weight.t() + bias).flatten()
    expected[:10] += frozen
    got = torch.cat(slots_of(hidden, weight, bias, frozen=[frozen]))
    torch.testing.assert_close(got, expected[:69], rtol=0, atol=1e-14)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("read", [[0], [1, 3], [4], [2, 2]], ids=str)
def test_slots_that_nobody_reads_have_no_gradient(read):
    gradients = []
    for layer in (slots_of, lambda h, w, b: (h @ w.t() + b).flatten()[:69].split(SIZES)):
        inputs = operands()
        slots = layer(*inputs)
        sum((i + 1) * slots[slot].square().sum() for i, slot in enumerate(read)).backward()
        gradients.append([x.grad for x in inputs])
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_recomputed_hidden_layers_have_the_gradients_of_kept_ones(activation):
    rng = torch.Generator().manual_seed(1)
    features = torch.randn(N_ROWS, 2, dtype=torch.float64, generator=rng).requires_grad_()
    shapes = [((4, 2), (4,)), ((WIDTH, 4), (WIDTH,))]
    layers = [
        tuple(torch.randn(s, dtype=torch.float64, generator=rng).requires_grad_() for s in pair) for pair in shapes
    ]
    leaves = [features, *(tensor for layer in layers for tensor in layer)]

    def kept():
        hidden = features
        for weight, bias in layers:
            hidden = ACTIVATIONS[activation](hidden @ weight.t() + bias)
        return hidden

    got = torch.autograd.grad(hidden_layers(features, layers, activation).pow(3).sum(), leaves)
    for one, other in zip(got, torch.autograd.grad(kept().pow(3).sum(), leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_many_numbers_in_large_pages_are_those_in_small_ones(monkeypatch):
    expected = torch.cat([slot.detach() for slot in slots_of(*operands())])
    monkeypatch.setattr(mapping, "NEW_PAGES_BYTES", 0)
    assert torch.equal(torch.cat(slots_of(*operands())), expected)


class LargestTensor(TorchDispatchMode):
    """Records the most numbers that any operation returned."""

    n_values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not out._is_view():
            self.n_values = max(self.n_values, out.untyped_storage().nbytes() // out.itemsize)
        return out


def test_backward_never_lays_all_gradients_end_to_end(monkeypatch):
    monkeypatch.setattr(mapping, "BLOCK_VALUES", 64)
    hidden, weight, bias = torch.randn(1000, 3), torch.randn(8, 3).requires_grad_(), torch.randn(8)
    slots = output_layer(hidden.requires_grad_(), [(weight, bias)], [], [torch.Size((10, 100))] * 8)
    grads = [torch.ones(10, 100) for _ in slots]
    with LargestTensor() as seen:
        torch.autograd.grad(slots, [hidden, weight], grads)
    assert seen.n_values <= 4 * 1000  # inputs with a column of ones, 8000 numbers in the slots

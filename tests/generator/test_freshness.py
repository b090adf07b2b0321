"""Values in use are made of the numbers there are, however those came to be."""

import pytest
import torch
from torch import nn

from qpa_hf import QPAConfig
from qpa_hf.generator import Bank, FrozenBases, Generator, Pair, Pieces
from qpa_hf.generator.freshness import SAMPLE


def circuits(**settings):
    spec = QPAConfig(chunk_size=8, n_circuits=2, circuit_depth=2, **settings).generator_spec(100)
    return Bank(Generator(spec, [("init", torch.randn(40), True)]), Pieces([(4, 10), (60,)]))


def based():
    bases = FrozenBases([(2, 6), (4, 2)], [Pair(0, 1)])
    made = Bank(Generator(QPAConfig(chunk_size=4).generator_spec(4), n_basis=bases.n_buffer), bases)
    made.generator.basis.copy_(torch.randn(bases.n_buffer))
    made.generator.begin_stage()
    return made


BANKS = {
    "circuits": circuits,
    "shots": lambda: circuits(shots=50),
    "direct": lambda: circuits(source="direct"),
    "free": lambda: circuits(source="free"),
    "paper": lambda: Bank(Generator(QPAConfig.paper(8).generator_spec(100)), Pieces([(4, 10), (60,)])),
    "gradient bases": based,
}


def _swap(parameter, values):
    torch.utils.swap_tensors(parameter, nn.Parameter(values))


def _assign(parameter, values):
    parameter.data = values


def _set(parameter, values):
    with torch.no_grad():
        parameter.set_(values)


def _in_inference_mode(parameter, values):
    with torch.inference_mode():
        parameter.copy_(values)


WRITES = {
    "data.copy_": lambda parameter, values: parameter.data.copy_(values),
    "data =": _assign,
    "swap_tensors": _swap,
    "set_": _set,
    "inference mode": _in_inference_mode,
    "NumPy": lambda parameter, values: parameter.detach().numpy().__setitem__(..., values.numpy()),
    "one number": lambda parameter, values: parameter.data.view(-1)[-1:].copy_(values.view(-1)[-1:]),
}


def moved(made):
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.generator.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return made


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("make", BANKS.values(), ids=BANKS)
@pytest.mark.parametrize("has_gradients", [False, True])
def test_a_write_is_seen_by_the_next_reader(make, write, has_gradients):
    if has_gradients and write is _swap:
        pytest.skip("torch refuses to swap what a graph leads to")
    made = moved(make())
    for name, parameter in list(made.generator.named_parameters()):
        values = parameter.detach().clone()
        with torch.set_grad_enabled(has_gradients):
            before = [made.read(i).detach().clone() for i in range(len(made.pieces.shapes))]
            write(parameter, values * 1.5 + 0.3)
            found = [made.read(i).detach().clone() for i in range(len(made.pieces.shapes))]
        with torch.no_grad():
            expected = made.generate()
            parameter.copy_(values)
        assert all(map(torch.equal, found, expected)), name
        assert not all(map(torch.equal, found, before)), name


@pytest.mark.parametrize("write", [WRITES["data.copy_"], WRITES["data ="]])
@pytest.mark.parametrize("n_values", [40, 3 * SAMPLE + 1])
def test_a_write_to_frozen_numbers_is_seen(write, n_values):
    spec = QPAConfig(chunk_size=512).generator_spec(n_values)
    made = Bank(Generator(spec, [("init", torch.randn(n_values), True)]), Pieces([(n_values,)]))
    with torch.no_grad():
        made.read(0)
        write(made.generator.init, made.generator.init + 1)
        assert torch.equal(made.read(0), made.generator.init)


def test_a_forward_looks_once():
    made = circuits()
    with torch.no_grad():
        made.begin_forward()
        first = made.read(0)
        made.generator.w0.data.add_(1)
        assert made.read(0) is first
        made.end_forward()
        made.begin_forward()
        assert made.read(0) is not first


def test_values_are_kept_while_the_numbers_are():
    made = circuits()
    with torch.no_grad():
        first = made.read(0)
        for parameter in made.generator.parameters():
            parameter.data.copy_(parameter.clone())
        made.generator.train().eval()
        assert made.read(0) is first


def test_a_part_that_was_written_before_its_backward_pass_is_refused():
    made = circuits()
    loss = made.read(1).sum()
    made.generator.angles.data.add_(1)
    with pytest.raises(RuntimeError, match="between a forward and its backward pass"):
        loss.backward()


def test_a_step_through_data_draws_anew():
    made = circuits(shots=50)
    for n_draws in (1, 2):
        for _ in range(2):
            made.begin_forward()
            made.end_forward()
            assert int(made.generator.draw) == n_draws
        made.generator.b0.data.add_(1)


def test_tensors_that_cannot_be_read_are_never_taken_for_the_same():
    made = circuits(source="direct")
    before = made.read(1).detach()
    with torch.no_grad():
        numbers = dict(made.generator.named_parameters())

        def second(shift):
            moved = {name: parameter + shift for name, parameter in numbers.items()}
            return torch.func.functional_call(Reading(made), {f"generator.{k}": v for k, v in moved.items()}, ())

        batched = torch.func.vmap(second)(torch.tensor([0.0, 1.0]))
    assert torch.equal(batched[0], before)
    assert not torch.equal(batched[1], before)


class Reading(nn.Module):
    """Reads a bank's second slot."""

    def __init__(self, made):
        super().__init__()
        self.generator = made.generator
        self.made = made

    def forward(self):
        return self.made.read(1)


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_forward_without_a_backward_pass_leaves_no_graph(is_whole):
    made = circuits()
    for _ in range(3):
        made.refresh()
        if is_whole:
            made.begin_forward()
        made.read(0)
        made.end_forward()
    made.refresh()
    assert [parameter._use_count() for parameter in made.generator.parameters()] == [1, 1, 1]

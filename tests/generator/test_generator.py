"""Generator and bank: addresses, start, determinism, and when values are made again."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch

from qpa_hf import QPAConfig
from qpa_hf.generator import Bank, FrozenBases, Generator, Pair, Pieces, basis_bits

SPEC = QPAConfig(chunk_size=16, n_circuits=3, circuit_depth=2).generator_spec(1000)
PAPER = QPAConfig.paper(16).generator_spec(1000)


def test_basis_bits_are_those_of_the_row():
    assert basis_bits(3, 2).tolist() == [[-1, -1], [-1, 1], [1, -1]]


@pytest.mark.parametrize("features", ["standardized", "authors", "probability"])
def test_features_follow_their_formula(features):
    generator = Generator(replace(SPEC, features=features))
    p = generator.circuit_probabilities().double()
    if features == "standardized":
        x = (p - p.mean(1, keepdim=True)) / p.std(1, keepdim=True, correction=0)
    elif features == "authors":
        x = (0.6 * torch.tanh(0.1 * 2 ** (SPEC.n_qubits - 1) * p)) ** 0.15
        x = x - x.mean(1, keepdim=True)
    else:
        x = p
    expected = x[:, : SPEC.n_chunks].t().float()
    torch.testing.assert_close(generator.features(), expected, rtol=1e-5, atol=1e-5)


def test_identity_start_is_the_frozen_part_exactly():
    frozen = torch.randn(300)
    values = Generator(SPEC, [("init", frozen, True)])()[0]
    assert torch.equal(values[:300], frozen)
    assert not values[300:].any()


def test_authors_start_is_mean_free_and_not_zero():
    values = Generator(PAPER)()[0]
    assert values.double().mean().abs() < 1e-7
    assert values.std() > 1e-3


@pytest.mark.parametrize("spec", [SPEC, PAPER, replace(PAPER, activation="gelu", source="random")])
def test_gradient_equals_finite_differences(spec):
    generator = Generator(spec).double()
    for name, parameter in generator.named_parameters():
        generator._parameters[name] = torch.nn.Parameter(parameter.double())
    for name, buffer in generator.named_buffers():
        generator._buffers[name] = buffer.double()
    parameters = dict(generator.named_parameters())
    weights = torch.randn(spec.n_values, dtype=torch.float64)
    loss = (generator()[0] * weights).sum()
    grads = torch.autograd.grad(loss, list(parameters.values()))
    for (_, parameter), gradient in zip(parameters.items(), grads, strict=True):
        direction = torch.randn_like(parameter)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * 1e-6 * direction)
                values.append((generator()[0] * weights).sum().item())
                parameter.sub_(sign * 1e-6 * direction)
        slope = (values[0] - values[1]) / 2e-6
        assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("spec", [SPEC, PAPER, replace(SPEC, source="random"), replace(SPEC, source="bits")])
def test_same_spec_gives_the_same_bits(spec):
    torch.manual_seed(1)
    first = Generator(spec)()[0]
    torch.manual_seed(2)
    assert torch.equal(first, Generator(spec)()[0])


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"ansatz": "rx_cnot"}, "`ansatz` 'rx_cnot' there and 'ry_cnot' here"),
        ({"features": "authors"}, "`features` 'authors' there and 'standardized' here"),
        ({"init_seed": 7}, "`init_seed` 7 there and 0 here"),
        ({"init_seed": 7, "start": "authors"}, "`start` 'authors' there and 'identity' here and `init_seed` 7"),
    ],
    ids=str,
)
def test_numbers_of_a_generator_with_other_settings_are_refused(other, told):
    generator = Generator(SPEC)
    before = generator()[0]
    with pytest.raises(ValueError, match=f"other settings: {told}"):
        generator.load_state_dict(Generator(replace(SPEC, **other)).state_dict())
    assert torch.equal(generator()[0], before)


@pytest.mark.parametrize("other", [{"shots": 100}, {"noise": "torino"}, {"gradient": "none"}], ids=str)
def test_circuits_may_be_measured_otherwise_than_before_a_checkpoint(other):
    measured, ideal = Generator(replace(SPEC, **other)), Generator(SPEC)
    with torch.no_grad():
        measured.angles.fill_(1)
    ideal.load_state_dict(measured.state_dict(), strict=False)
    assert torch.equal(ideal.angles, measured.angles)


def test_bits_do_not_depend_on_threads():
    generator = Generator(replace(PAPER, n_values=400_000))
    threads = torch.get_num_threads()
    both = generator()[0]
    try:
        torch.set_num_threads(1)
        alone = generator()[0]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(both, alone)


def test_moving_to_bfloat16_keeps_the_generator_in_float32():
    generator = Generator(SPEC)
    before = generator()[0]
    assert torch.equal(generator.to(torch.bfloat16)()[0], before)


def test_controls_have_no_angles():
    for source in ("random", "bits"):
        assert replace(SPEC, source=source).n_angles == 0
        assert "angles" not in dict(Generator(replace(SPEC, source=source)).named_parameters())


def test_frozen_circuit_has_no_trainable_angles():
    spec = replace(SPEC, train_circuit=False)
    generator = Generator(spec)
    assert sum(p.numel() for p in generator.parameters()) == spec.n_trainable
    assert torch.equal(generator.angles, Generator(SPEC).angles)


def bank():
    generator = Generator(PAPER)
    return Bank(generator, Pieces([(10, 10), (400,), (500,)]))


def test_slots_cover_the_vector_in_order():
    made = bank()
    vector = torch.cat([made.read(i).flatten() for i in range(3)])
    assert torch.equal(vector, made.generator()[0])


def calls(made):
    """Count how often the generator runs."""
    counter = []
    made.generator.register_forward_hook(lambda *_: counter.append(1))
    return counter


def test_readers_of_one_forward_share_one_generation():
    made = bank()
    count = calls(made)
    made.begin_forward()
    (made.read(0).sum() + made.read(1).sum() + made.read(0).square().sum()).backward()
    assert len(count) == 1


def test_generated_once_without_gradients_until_a_parameter_changes():
    made = bank()
    count = calls(made)
    with torch.no_grad():
        for _ in range(5):
            made.begin_forward()
            made.read(0)
            made.end_forward()
    assert len(count) == 1
    with torch.no_grad():
        made.generator.b0.add_(1)
        made.read(0)
    assert len(count) == 2


class ThroughData(torch.optim.SGD):
    """Writes as bitsandbytes' optimizers do: no version counts it."""

    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            parameter.data.add_(0.5)


@pytest.mark.parametrize("change", ["load_state_dict", "in place", "optimizer"])
@pytest.mark.parametrize("grad", [True, False])
def test_no_stale_value_after(change, grad):
    made = bank()
    with torch.set_grad_enabled(grad):
        before = made.read(0).detach().clone()
        with torch.no_grad():
            if change == "load_state_dict":
                made.generator.load_state_dict({k: v + 0.5 for k, v in made.generator.state_dict().items()})
            elif change == "optimizer":
                ThroughData(made.generator.parameters(), lr=1).step()
            else:
                made.generator.w0.add_(0.5)
        after = made.read(0)
    assert not torch.equal(before, after)
    assert torch.equal(after, made.generator()[0][:100].view(10, 10))


def test_a_second_backward_generates_anew_and_accumulates():
    made = bank()
    for _ in range(2):
        made.read(1).square().sum().backward()
    twice = made.generator.angles.grad.clone()
    made.generator.zero_grad()
    (2 * made.generator()[0][100:500].square().sum()).backward()
    torch.testing.assert_close(twice, made.generator.angles.grad)


def test_two_backwards_through_one_slot_of_several_without_a_mapping_model():
    bases = FrozenBases([(2, 6), (4, 2)] * 2, [Pair(0, 1), Pair(2, 3)])
    spec = QPAConfig(source="direct", chunk_size=4).generator_spec(8)
    made = Bank(Generator(spec, n_basis=bases.n_buffer), bases)
    torch.nn.init.ones_(made.generator.basis)
    made.generator.begin_stage()
    for _ in range(2):
        made.read(3).sum().backward()
    assert made.generator.values.grad.tolist() == [0.0] * 4 + [8.0] * 4


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_after_a_forward_are_independent(duplicate):
    made = bank()
    made.read(0).sum()
    other = duplicate(made)
    assert torch.equal(other.read(0), made.read(0))
    with torch.no_grad():
        other.generator.w0.add_(1)
    assert not torch.equal(other.read(0), made.read(0))


def test_values_made_in_inference_mode_serve_a_later_forward():
    made = bank()
    made.generator.requires_grad_(False)
    with torch.inference_mode():
        made.read(0)
    x = torch.randn(10, requires_grad=True)
    (made.read(0) @ x).sum().backward()
    assert x.grad is not None

"""`generate` on any module: what networks, torch's tools and training rely on."""

import copy
import pickle

import pytest
import torch
from modules import (
    MODULES,
    PARAMETRISED,
    SETTINGS,
    answer,
    batch,
    disturbed,
    generated,
    generator_of,
    loss,
    make,
    value,
)
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from qpa_hf import QPAConfig, generate, materialize
from qpa_hf.reading import attachment_of

pytestmark = pytest.mark.filterwarnings("ignore:The generator has:UserWarning")  # these networks are tiny
each = pytest.mark.parametrize("name", MODULES)
COMPILED = ("loops over children", "convolution", "recurrent", "tied", "weight norm", "transformers")
STARTS = {"identity": {}, "Quantum-Train": {"start": "authors"}, "one at a time": {"chunk_size": 1}}


def test_a_child_named_module_is_no_wrapper():
    network = nn.Module()
    network.module, network.head = nn.Linear(4, 8), nn.Linear(8, 2)
    assert isinstance(materialize(generate(network, **SETTINGS)).module.weight, nn.Parameter)


def test_numbers_assigned_through_data_are_noticed():
    module = generated("sequential")
    before = value(module, "sequential")
    with torch.no_grad():
        numbers = parameters_to_vector(module.parameters())
        vector_to_parameters(numbers + torch.randn_like(numbers), module.parameters())
    assert not torch.equal(value(module, "sequential"), before)
    assert torch.equal(value(module, "sequential"), value(copy.deepcopy(module), "sequential"))


@each
def test_nothing_changes_at_step_0(name):
    assert torch.equal(value(generated(name), name), value(make(name), name))


@each
def test_only_the_generator_is_trained_and_every_number_of_it(name):
    module = disturbed(name)
    loss(module, name).backward()
    for key, parameter in module.named_parameters():
        assert ".qpa_generator." in f".{key}"
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"tied, transposed"}))  # plainly two Parameters, each its part
def test_gradients_are_those_of_plain_parameters_led_through_the_vector(name):
    module = disturbed(name)
    loss(module, name).backward()
    found = {key: parameter.grad for key, parameter in generator_of(module).named_parameters()}
    twin = disturbed(name)
    attachment = attachment_of(twin)
    (vector,) = attachment.bank.generator()
    with attachment.detached() as parameters:
        loss(twin, name).backward()
        vector.backward(torch.cat([parameters[key].grad.float().flatten() for key in attachment.names]))
    for key, parameter in attachment.bank.generator.named_parameters():
        torch.testing.assert_close(found[key], parameter.grad, rtol=1e-3, atol=1e-6)


@each
@pytest.mark.parametrize("start", STARTS)
def test_materialize_puts_the_values_in_use_back(name, start):
    module = disturbed(name, **STARTS[start])
    expected, original = value(module, name), make(name)
    assert materialize(module) is module
    assert torch.equal(value(module, name), expected)
    assert [*module.state_dict()] == [*original.state_dict()]
    assert [type(m) for m in module.modules()] == [type(m) for m in original.modules()] or name in PARAMETRISED
    assert all(p.requires_grad for p in module.parameters())
    plain = make(name)
    plain.load_state_dict(module.state_dict())
    assert torch.equal(value(plain, name), expected)


@each
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_copies_after_a_forward_are_independent(name, duplicate):
    if duplicate is not copy.deepcopy and name in PARAMETRISED:
        pytest.skip("torch does not pickle parametrised modules")
    module = disturbed(name)
    answer(module, name)
    expected = value(module, name)
    other = duplicate(module)
    assert torch.equal(value(other, name), expected)
    with torch.no_grad():
        generator_of(other).w0.add_(1)
    assert not torch.equal(value(other, name), expected)
    assert torch.equal(value(module, name), expected)
    materialize(other)  # the copy's own record leads to the copy's own modules
    assert torch.equal(value(module, name), expected)


@each
def test_state_dict_loads_into_a_module_generated_likewise(name):
    module, other = disturbed(name), generated(name)
    other.load_state_dict(module.state_dict())
    assert torch.equal(value(other, name), value(module, name))


@each
def test_functional_call_takes_the_generators_numbers(name):
    module, other = generated(name), disturbed(name)
    numbers = {key: parameter.detach() for key, parameter in other.named_parameters()}
    for factor in (1.0, 2.0, 3.0):  # old tensors go, and new ones may get their address
        with torch.no_grad():
            found = functional_call(module, {key: factor * number for key, number in numbers.items()}, (batch(name),))
            for key, parameter in other.named_parameters():
                parameter.copy_(factor * numbers[key])
        assert torch.equal(getattr(found, "logits", found), value(other, name))


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch asks for it where its graph breaks
def test_compiled_module_has_the_gradients_of_the_plain_one(name):
    torch._dynamo.reset()  # torch compiles one function a few times only, and all models share theirs
    eager, module = disturbed(name), disturbed(name)
    loss(eager, name).backward()
    # torch.compile leaves recurrent layers out of its graphs
    compiled = torch.compile(module, fullgraph=name != "recurrent", backend="aot_eager")
    loss(compiled, name).backward()
    for ours, theirs in zip(module.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6)


def test_part_compiled_by_itself_reads_the_current_values():
    module = disturbed("sequential")
    part = torch.compile(module[2], fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 16)
    assert torch.equal(part(x), module[2](x))
    with torch.no_grad():
        generator_of(module).b0.add_(1)
    assert torch.equal(part(x), module[2](x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_with_a_scaler_trains(dtype):
    module = generated("sequential")
    optimizer, scaler = torch.optim.Adam(module.parameters(), lr=0.05), torch.amp.GradScaler("cpu")
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", dtype):
            current = loss(module, "sequential")
        scaler.scale(current).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(current.item())
    assert losses[-1] < 0.5 * losses[0]


def test_generation_is_float32_under_autocast_and_after_to():
    module = disturbed("sequential")
    expected = module[0].weight.detach()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module[0].weight, expected)
    module.to(torch.bfloat16)
    assert generator_of(module).angles.dtype == torch.float32
    assert torch.equal(module[0].weight, expected.to(torch.bfloat16))


def test_values_follow_every_optimizer_step():
    module = generated("convolution")
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(3):
        loss(module, "convolution").backward()
        optimizer.step()
        optimizer.zero_grad()
        fresh = generated("convolution")
        fresh.load_state_dict(module.state_dict())
        assert torch.equal(value(module, "convolution"), value(fresh, "convolution"))


def test_same_seed_same_bits():
    first, second = (generated("convolution", start="authors", init_seed=3) for _ in range(2))
    torch.manual_seed(99)
    third = generated("convolution", start="authors", init_seed=3)
    assert torch.equal(value(first, "convolution"), value(second, "convolution"))
    assert torch.equal(value(first, "convolution"), value(third, "convolution"))


def test_quantum_train_start_has_the_initialisers_scale():
    initial, module = make("recurrent"), generated("recurrent", start="authors", chunk_size=16)
    for key, parameter in initial.named_parameters():
        found = module.get_parameter(key) if key in dict(module.named_parameters()) else _read(module, key)
        assert not torch.equal(found, parameter)
        if parameter.numel() > 100:
            assert 0.5 < float(found.detach().std() / parameter.detach().std()) < 2, key


def _read(module, key):
    owner, _, name = key.rpartition(".")
    return getattr(module.get_submodule(owner), name)


@pytest.mark.parametrize("settings", [{"shots": 200}, {"noise": "torino"}, {"source": "free"}], ids=str)
def test_quantum_train_start_works_with_other_sources(settings):
    module = generated("sequential", start="authors", chunk_size=16, **settings)
    before = value(module, "sequential")
    loss(module, "sequential").backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())
    assert before.isfinite().all()


def test_tied_parameters_stay_tied():
    module = disturbed("tied")
    assert module.head.weight is module.embedding.weight
    assert sum(p.numel() for p in make("tied").parameters()) == generator_of(module).spec.n_values
    materialize(module)
    assert module.head.weight is module.embedding.weight


def test_frozen_and_unnamed_parameters_stay_as_they_are():
    module = make("sequential")
    module[0].bias.requires_grad_(False)
    generate(module, ["0"], **SETTINGS)
    trained = {key for key, p in module.named_parameters() if p.requires_grad and "qpa_generator" not in key}
    assert trained == {"2.weight", "2.bias"}
    materialize(module)
    assert not module[0].bias.requires_grad
    assert module[0].weight.requires_grad


def test_settings_are_those_of_the_config():
    module = generate(make("attention"), source="random", chunk_size=16, circuit_depth=4)
    config = QPAConfig(source="random", chunk_size=16, circuit_depth=4)
    assert generator_of(module).spec == config.generator_spec(generator_of(module).spec.n_values)


def test_initial_values_can_be_left_out_of_the_state():
    module = disturbed("convolution", save_init=False)
    assert not [key for key in module.state_dict() if key.endswith("init")]
    other = generated("convolution", save_init=False)
    other.load_state_dict(module.state_dict())
    assert torch.equal(value(other, "convolution"), value(module, "convolution"))


def test_initial_values_that_were_not_saved_must_be_the_same():
    module, other = disturbed("convolution", save_init=False), make("convolution")
    with torch.no_grad():
        other[1].weight.add_(1)
    generate(other, save_init=False, **SETTINGS)
    with pytest.raises(RuntimeError, match="trained on other initial values"):
        other.load_state_dict(module.state_dict())

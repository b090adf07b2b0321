"""Parameters that are taken out of a module are read from a bank, and come back with the values in use."""

import copy
import pickle

import pytest
import torch
from torch import nn

from qpa_hf import QPAConfig
from qpa_hf.generator import Bank, Generator, Pieces
from qpa_hf.reading import Place, attach, attachment_of
from qpa_hf.reading.attachment import detach


def two_layers():
    """Return a bank of two slots, a network, and where the slots are read: the second layer has the first's weight."""
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    net[1].weight = nn.Parameter(net[0].weight.detach().t())
    shapes = [(6, 6), (6,)]
    spec = QPAConfig(chunk_size=8, n_circuits=2, circuit_depth=2, start="authors").generator_spec(42)
    groups = [
        [Place("0.weight", net[0], "weight"), Place("1.weight", net[1], "weight", is_transposed=True)],
        [Place("0.bias", net[0], "bias")],
    ]
    return Bank(Generator(spec), Pieces(shapes)), net, groups


def test_every_place_reads_its_slot():
    bank, net, groups = two_layers()
    attach(bank, groups)
    weight, bias = bank.values()
    assert torch.equal(net[0].weight, weight)
    assert torch.equal(net[1].weight, weight.t())
    assert torch.equal(net[0].bias, bias)
    assert [name for name, _ in net.named_parameters()] == ["1.bias"]


def test_what_was_taken_out_comes_back_in_its_order_and_tied():
    bank, net, groups = two_layers()
    classes = [type(module) for module in net.modules()]
    attach(bank, groups)
    expected = {name: value.clone() for name, value in zip(("0.weight", "0.bias"), bank.values(), strict=True)}
    found = detach(bank, groups, [True, False])
    assert [type(module) for module in net.modules()] == classes
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert net[1].weight.data_ptr() == net[0].weight.data_ptr()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert [found[name].requires_grad for name in ("0.weight", "0.bias")] == [True, False]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_reads_a_bank_of_its_own(duplicate):
    bank, net, groups = two_layers()
    attach(bank, groups)
    net.add_module("generator", bank.generator)
    other = duplicate(net)
    with torch.no_grad():
        other.generator.b0.add_(torch.arange(8.0))
    assert torch.equal(net[0].bias, bank.values()[1])
    assert not torch.equal(other[0].bias, net[0].bias)


def test_a_module_that_nothing_has_changed_has_no_attachment():
    assert attachment_of(nn.Linear(2, 2)) is None

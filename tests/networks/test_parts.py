"""A module whose parts are called by themselves, with losses of their own."""

import gc
import weakref

import pytest
import torch
from modules import SETTINGS, batch, disturbed, generator_of, value
from torch import nn

from qpa_hf import generate

pytestmark = pytest.mark.filterwarnings("ignore:The generator has:UserWarning")  # these networks are tiny


@pytest.fixture
def pair():
    """Two networks that are called by themselves, and what each is given."""
    networks = generate(nn.ModuleDict({"actor": nn.Linear(8, 2), "critic": nn.Linear(8, 1)}), **SETTINGS)
    with torch.no_grad():
        generator_of(networks).w0.normal_(generator=torch.Generator().manual_seed(0))
    return networks, torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


def test_parts_may_have_losses_of_their_own(pair):
    networks, x = pair
    parameters = list(generator_of(networks).parameters())
    losses = [networks["actor"](x).square().mean(), networks["critic"](x).square().mean()]
    expected = torch.autograd.grad(sum(losses), parameters)
    apart = [networks["actor"](x).square().mean(), networks["critic"](x).square().mean()]
    for one in apart:
        one.backward()
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("is_trained", [False, True], ids=["called", "trained"])
def test_network_that_was_called_in_parts_is_freed(is_trained):
    networks = generate(nn.ModuleDict({"actor": nn.Linear(8, 2), "critic": nn.Linear(8, 1)}), **SETTINGS)
    generator, loss = weakref.ref(generator_of(networks)), networks["actor"](torch.ones(4, 8)).mean()
    if is_trained:
        loss.backward()
    del networks, loss
    gc.collect()
    assert generator() is None


def test_step_between_a_forward_of_a_part_and_its_backward_is_refused(pair):
    networks, x = pair
    loss = networks["actor"](x).square().mean()
    with torch.no_grad():
        generator_of(networks).w0.add_(1)
    with pytest.raises(RuntimeError, match="trained between a forward and its backward pass"):
        loss.backward()


def test_write_in_place_is_not_lost_silently():
    module = disturbed("sequential")
    expected = value(module, "sequential")
    with torch.no_grad():
        module[0].weight.mul_(2)
        with pytest.raises(RuntimeError, match="written in place, which changes nothing"):
            module(batch("sequential"))
    assert torch.equal(value(module, "sequential"), expected)

"""Gradient bases of experts that share a Parameter: each expert's own, found exactly and from sketches."""

import pytest
import torch
from gradient_bases import RANK, SKETCHED, bases
from peft import PeftModel, get_peft_model
from torch import nn

from qpa_hf import QPAConfig, initialize_basis, materialize

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]


class Pair(nn.Module):
    """Two experts that share a Parameter, which each token passes both of."""

    def __init__(self, is_transposed):
        super().__init__()
        self.is_transposed = is_transposed
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.weights = nn.Parameter(torch.randn(2, 64, 96) / 8)

    def forward(self, x):
        if self.is_transposed:
            return torch.relu(x @ self.weights[0]) + torch.tanh(x @ self.weights[1])
        return torch.relu(x @ self.weights[0].T) + torch.tanh(x @ self.weights[1].T)


class Mixture(nn.Module):
    """A layer of experts alone."""

    def __init__(self, is_transposed):
        super().__init__()
        self.experts = Pair(is_transposed)

    def forward(self, x):
        return self.experts(x)


def squares(model, batch):
    out = model(**batch)
    return (out.square() * torch.linspace(0, 1, out.shape[-1])).mean()


def mixture(is_transposed, **settings):
    config = {"r": RANK, "basis": "gradient", "source": "direct", "target_modules": [], **settings}
    return get_peft_model(Mixture(is_transposed), QPAConfig(**config, target_parameters=["experts.weights"]))


def rows(is_transposed, n=3):
    rng = torch.Generator().manual_seed(5)
    return [{"x": torch.randn(20, 64 if is_transposed else 96, generator=rng)} for _ in range(n)]


@pytest.mark.parametrize("exact_bytes", [0, 2**29], ids=["sketched", "exact"])
@pytest.mark.parametrize("is_transposed", [True, False])
def test_each_expert_has_the_bases_of_its_own_gradient(is_transposed, exact_bytes):
    model, examples = mixture(is_transposed), rows(is_transposed)
    initialize_basis(model, examples, loss=squares, exact_bytes=exact_bytes)
    reference = Mixture(is_transposed)
    for batch in examples:
        squares(reference, batch).backward()
    ((a, u),) = bases(model).values()
    a, u = a.view(2, RANK, -1), u.view(-1, RANK, 2)
    for i, gradient in enumerate(reference.experts.weights.grad):
        gradient = gradient.T if is_transposed else gradient
        core = u[..., i].T @ gradient @ a[i].T
        values = core.diag()
        torch.testing.assert_close(core, values.diag(), rtol=0, atol=1e-3 * values[0].item())
        most = torch.linalg.svdvals(gradient)[:RANK].square().sum()
        spans = torch.linalg.qr(u[..., i])[0], torch.linalg.qr(a[i].T)[0]
        assert (spans[0].T @ gradient @ spans[1]).square().sum() > 0.6 * most  # preconditioned, so not all


def test_experts_on_gradient_bases_are_trained_saved_and_materialized(tmp_path):
    model, (batch, *_) = mixture(True), rows(True)
    initialize_basis(model, [batch], loss=squares, **SKETCHED)
    assert torch.equal(model(**batch), Mixture(True)(**batch))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    before = squares(model, batch)
    before.backward()
    optimizer.step()
    seen = model.eval()(**batch)
    assert squares(model, batch) < before
    model.save_pretrained(tmp_path / "native")
    materialize(tmp_path / "native", tmp_path / "plain")
    for folder in ("native", "plain"):
        loaded = PeftModel.from_pretrained(Mixture(True), tmp_path / folder)
        torch.testing.assert_close(loaded(**batch), seen, rtol=0, atol=1e-6)


def test_offloaded_experts_are_refused_by_name():
    model = mixture(True)
    model.base_model.model.experts.get_base_layer().weights = nn.Parameter(torch.empty(2, 64, 96, device="meta"))
    with pytest.raises(ValueError, match="weights of experts is offloaded"):
        initialize_basis(model, rows(True), loss=squares)


def test_experts_bases_are_found_once():
    with pytest.raises(ValueError, match="Set n_stages=1"):
        mixture(True, n_stages=2)

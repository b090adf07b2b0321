"""Bases from sketches: those of the whole gradient in float64, where its spectrum decays or the sketch is as wide."""

import pytest
import torch
from preconditioner import damped_root

from qpa_hf.generator import Moments, Sketch, n_sketch_columns, scaled_bases, second_moment
from qpa_hf.generator.sketches import N_PASSES, RandomColumns

RANK = 3


def tokens(n_out, n_in, decay, n_tokens=2000):
    """Return inputs and outputs' gradients whose summed product has singular values of about 1, decay, decay^2, ..."""
    rng = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, n, generator=rng))[0] for n in (n_out, n_in))
    common = torch.randn(n_tokens, min(n_out, n_in), generator=rng)
    grad = torch.randn(n_tokens, n_out, generator=rng) / 1000 + common * decay ** torch.arange(common.shape[1]) @ (
        left[:, : common.shape[1]].T
    )
    return torch.randn(n_tokens, n_in, generator=rng) / 1000 + common @ right[:, : common.shape[1]].T, grad


def sketched(x, grad, rank=RANK, n_parts=2):
    sketch = Sketch(rank, n_sketch_columns(rank, grad.shape[1], x.shape[1]), RandomColumns())
    for i in range(N_PASSES):
        for rows in zip(x.chunk(n_parts), grad.chunk(n_parts), strict=True):
            sketch.add(*rows)
        if i < N_PASSES - 1:
            sketch.advance()
    return sketch.bases()


def exact(x, grad, rank=RANK):
    x, grad = x.double(), grad.double()
    return scaled_bases(Moments(grad.T @ x, second_moment(x), second_moment(grad)), rank)


def cosines(found, expected):
    """Return the cosines of the angles between two spaces, spanned by columns."""
    return torch.linalg.svdvals(torch.linalg.qr(found.double())[0].T @ torch.linalg.qr(expected.double())[0])


@pytest.mark.parametrize(
    ("n_out", "n_in", "decay", "tolerance"),
    [(90, 130, 0.5, 1e-4), (130, 90, 0.8, 1e-3), (1100, 60, 0.5, 1e-4), (60, 1100, 0.5, 1e-4), (20, 26, 1.0, 1e-4)],
    ids=["fast decay", "slow decay", "wide output", "wide input", "sketch as wide as the layer"],
)
def test_bases_are_those_of_the_whole_gradient(n_out, n_in, decay, tolerance):
    x, grad = tokens(n_out, n_in, decay)
    for found, expected in zip(sketched(x, grad), exact(x, grad), strict=True):
        assert found.shape == expected.shape
        turned = (found, expected) if found.shape[0] == n_out else (found.T, expected.T)
        torch.testing.assert_close(cosines(*turned), torch.ones(RANK).double(), rtol=0, atol=tolerance)


def test_spans_are_those_of_scipys_preconditioner():
    x, grad = tokens(40, 50, 0.5)
    root_out, root_in = damped_root(grad.double()), damped_root(x.double())
    left, _, right = torch.linalg.svd(root_out @ (grad.T @ x).double() @ root_in)
    a, u = sketched(x, grad)
    for found, expected in ((u, root_out @ left[:, :RANK]), (a.T, root_in @ right[:RANK].T)):
        torch.testing.assert_close(cosines(found, expected), torch.ones(RANK).double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_axes_make_the_cores_gradient_diagonal_whatever_the_spectrum(decay):
    x, grad = tokens(90, 130, decay)
    a, u = sketched(x, grad)
    core = u.double().T @ (grad.double().T @ x.double()) @ a.double().T
    values = core.diag()
    assert values.equal(values.sort(descending=True).values)
    torch.testing.assert_close(core, values.diag(), rtol=0, atol=1e-4 * values[0].item())


def test_a_batchs_own_gradient_may_stand_for_its_tokens():
    x, grad = tokens(90, 130, 0.5)
    whole = Sketch(RANK, n_sketch_columns(RANK, 90, 130), RandomColumns())
    for i in range(N_PASSES):
        whole.add_gradient(grad.T @ x)
        if i < N_PASSES - 1:
            whole.advance()
    gradient = (grad.T @ x).double()
    expected = scaled_bases(Moments(gradient, gradient.square().sum(0), gradient.square().sum(1)), RANK)
    for found, other in zip((b.T if len(b) == RANK else b for b in whole.bases()), expected, strict=True):
        torch.testing.assert_close(
            cosines(found, other.T if len(other) == RANK else other), torch.ones(RANK).double(), rtol=0, atol=1e-4
        )


def test_same_bits_in_every_run_and_no_random_numbers_are_used_up():
    x, grad = tokens(40, 60, 0.9)
    before = torch.get_rng_state()
    assert all(map(torch.equal, sketched(x, grad), sketched(x, grad)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("scale", [0.0, 1e-30])
def test_a_gradient_that_is_nothing_has_finite_bases(scale):
    x, grad = tokens(40, 60, 0.5)
    assert all(basis.isfinite().all() for basis in sketched(x, scale * grad))

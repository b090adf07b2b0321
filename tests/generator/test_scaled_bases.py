"""The bases that a layer's gradient and second moments give, whatever its size."""

import torch
from preconditioner import damped_root

from qpa_hf.generator import Moments, scaled_bases, second_moment


def test_large_matrices_are_decomposed_as_small_ones():
    rng = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(n, 6, generator=rng))[0] for n in (1300, 1100))
    gradient = u @ torch.diag(torch.tensor([32.0, 16, 8, 4, 2, 1])) @ v.T
    a, b = scaled_bases(Moments(gradient, torch.ones(1100), torch.ones(1300)), 2)
    torch.testing.assert_close((a * 3**0.5 @ v[:, :2]).abs(), torch.eye(2), rtol=0, atol=1e-5)
    torch.testing.assert_close((b.T @ u[:, :2]).abs() * (2 / 1300) ** 0.5, torch.eye(2), rtol=0, atol=1e-5)


def test_large_matrices_leave_random_numbers_that_follow_alone():
    gradient = torch.randn(1025, 1025, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    scaled_bases(Moments(gradient, torch.ones(1025), torch.ones(1025)), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_large_sides_are_preconditioned_by_their_diagonal():
    rng = torch.Generator().manual_seed(0)
    rows = torch.rand(1300, generator=rng) * torch.randn(8, 1300, generator=rng)
    gradient, small = torch.randn(1300, 5, generator=rng), torch.ones(5)
    assert second_moment(rows).equal(rows.square().sum(0))
    _, found = scaled_bases(Moments(gradient, small, second_moment(rows)), 2)
    root = damped_root(torch.diag(rows.double().square().sum(0).sqrt()))
    expected = root @ torch.linalg.svd(root @ gradient.double(), full_matrices=False)[0][:, :2]
    both = torch.linalg.qr(found.double())[0].T @ torch.linalg.qr(expected)[0]
    torch.testing.assert_close(torch.linalg.svdvals(both), torch.ones(2).double(), rtol=0, atol=1e-4)


def test_a_layer_whose_gradient_is_zero_has_finite_bases():
    found = scaled_bases(Moments(torch.zeros(4, 5), torch.zeros(5, 5), torch.zeros(4, 4)), 2)
    assert all(basis.isfinite().all() for basis in found)

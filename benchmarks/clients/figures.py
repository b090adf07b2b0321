"""What a case shows: how far a client's numbers are from those that they should be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

BOUND = 1e-5  # float32 of another order of additions; a client of other kernels or of half precision sets its own


class Figure(NamedTuple):
    """A difference from what is right.

    Args:
        what: what is compared.
        value: the largest difference found.
        bound: the largest that is allowed.
    """

    what: str
    value: float
    bound: float = BOUND

    @property
    def is_met(self) -> bool:
        """Whether the difference is small enough; NaN is not."""
        return self.value <= self.bound


def difference(what: str, found: Any, expected: Any, bound: float = BOUND) -> Figure:
    """Return the largest absolute difference of two tensors, or of two mappings of tensors with the same keys."""
    if isinstance(expected, Mapping):
        if found.keys() != expected.keys():
            raise AssertionError(f"{what}: {sorted(found.keys() ^ expected.keys())[:3]} are in one of the two alone")
        return Figure(what, max(_apart(found[key], expected[key]) for key in expected), bound)
    return Figure(what, _apart(found, expected), bound)


def _apart(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        raise AssertionError(f"shapes {tuple(found.shape)} and {tuple(expected.shape)} differ")
    return (found.double() - expected.double()).abs().max().item()


def others(what: str, found: Iterable[Any], expected: Iterable[Any]) -> Figure:
    """Return how many items of two sequences, such as tokens, differ; none may."""
    return Figure(what, sum(a != b for a, b in zip(found, expected, strict=True)), 0)


def expect(is_right: bool, otherwise: str) -> None:
    """Fail with a sentence if something is not as it should be."""
    if not is_right:
        raise AssertionError(otherwise)


def trained(model: Any) -> dict[str, Tensor]:
    """Return copies of all that a model trains, by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def expect_moved(model: Any, start: Mapping[str, Tensor]) -> None:
    """Fail if training left everything where it was."""
    now = trained(model)
    expect(now.keys() == start.keys(), f"trained: {sorted(now)[:3]}, at the start: {sorted(start)[:3]}")
    expect(any(not torch.equal(now[name], start[name]) for name in now), "nothing was trained")

"""What happens where a compiler is missing or broken."""

import pytest
import torch

from qpa_hf.circuit import ANSATZE, angles_shape, probabilities
from qpa_hf.circuit.fused import fused


def test_a_missing_compiler_is_no_error():
    assert fused("no_such_compiler", "qpa_hf.circuit.compiled") is None


def test_a_broken_compiler_is_named_and_done_without():
    with pytest.warns(UserWarning, match="slowly, because json cannot be imported: No module named 'qpa_hf.missing'"):
        assert fused("json", "qpa_hf.missing") is None


@pytest.mark.parametrize("ansatz", ANSATZE)
def test_memory_of_angles_is_left_resizable(ansatz):
    angles = torch.randn(2, *angles_shape(ansatz, 3, 4)).requires_grad_()
    probabilities(angles, ansatz)[:, 0].sum().backward()
    angles.untyped_storage().resize_(0)  # what FSDP2 does between passes; Numba's view of an array forbids it

"""What happens where a compiler is missing or broken."""

import pytest

from qpa_hf.circuit.fused import fused


def test_a_missing_compiler_is_no_error():
    assert fused("no_such_compiler", "qpa_hf.circuit.compiled") is None


def test_a_broken_compiler_is_named_and_done_without():
    with pytest.warns(UserWarning, match="slowly, because json cannot be imported: No module named 'qpa_hf.missing'"):
        assert fused("json", "qpa_hf.missing") is None

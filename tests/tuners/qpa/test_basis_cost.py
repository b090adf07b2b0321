"""What finding gradient bases is said to cost, before any weight is loaded."""

import pytest
import torch
from transformers import LlamaConfig

from qpa_hf import QPAConfig
from qpa_hf.generator import Sketch
from qpa_hf.generator.sketches import RandomColumns
from qpa_hf.plan import plan
from qpa_hf.tuners.qpa.basis_cost import BasisCost, LayerSize, basis_cost

KV = {"num_key_value_heads": 8, "vocab_size": 128_256}
SHAPES = {
    "8B": {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "70B": {"hidden_size": 8192, "intermediate_size": 28_672, "num_hidden_layers": 80, "num_attention_heads": 64},
}


def planned(shape, **settings):
    config = QPAConfig(
        **{"r": 16, "basis": "gradient", "target_modules": "all-linear"} | settings, task_type="CAUSAL_LM"
    )
    return plan(config, LlamaConfig(**shape, **KV))


@pytest.mark.parametrize(("name", "most"), [("8B", 0.6e9), ("70B", 3e9)])
def test_bases_of_large_models_fit_beside_them(name, most):
    result = planned(SHAPES[name])
    assert result.rows[0].basis_bytes < most
    assert "Finding the bases: 3 passes over the examples" in str(result)


def test_small_models_take_one_pass_and_others_none():
    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 8}
    assert "Finding the bases: 1 pass over the examples" in str(planned(small))
    without = planned(small, basis="kaiming")
    assert (without.rows[0].basis_bytes, without.rows[0].basis_passes) == (0, 0)
    assert "Finding" not in str(without)


def test_whole_gradients_cost_what_they_hold():
    size = LayerSize(rank=2, n_out=2000, n_in=3000)
    held = 2000 * 3000 + 2000 + 3000
    assert basis_cost([size] * 2) == BasisCost(4 * (2 * held + 2 * 2000 * 3000), 1)


def test_sketches_hold_what_is_planned():
    size = LayerSize(rank=2, n_out=1100, n_in=300)
    sketch = Sketch(2, size.n_columns, RandomColumns())
    sketch.add(torch.randn(5, 300), torch.randn(5, 1100))
    assert sum(part.numel() for part in sketch.sums()) == size.n_columns * 1100 + size.n_moments(is_packed=False)
    factor = sketch.advance()
    sketch.add(torch.randn(5, 300), torch.randn(5, 1100))
    held = factor.numel() + sum(part.numel() for part in (*sketch.sums(), *sketch._roots))
    assert held == size.n_columns * 1400 + size.n_moments(is_packed=True)


def test_experts_cost_as_many_times():
    one, eight = (basis_cost([LayerSize(4, 2048, 1536, n)], exact_bytes=0) for n in (1, 8))
    assert eight.n_passes == one.n_passes == 3
    assert eight.n_bytes > 4 * one.n_bytes

"""Small mixtures of experts."""

import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

EXPERTS = ["gate_proj", "up_proj", "down_proj"]


def build():
    """Return a small Qwen3-MoE, the same in every call."""
    sizes = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8}
    attention = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    config = Qwen3MoeConfig(**sizes, **attention, vocab_size=60, num_experts=3, num_experts_per_tok=2)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return Qwen3MoeForCausalLM(config).eval()

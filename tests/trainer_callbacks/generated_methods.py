"""PEFT methods whose tensors are generated."""

import torch
from cases import LM
from models import build
from peft import PrefixTuningConfig, VeraConfig, get_peft_model

from qpa_hf import generate

# The loss falls, and the highest is called the best: the first checkpoint.
EVALUATING = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss", "greater_is_better": True}
METHODS = {
    "VeRA": (VeraConfig(r=4, target_modules=["q_proj", "v_proj"], **LM), "This is a plain vera adapter."),
    "prefix": (PrefixTuningConfig(num_virtual_tokens=3, **LM), "This is a plain prefix tuning adapter."),
}


def generated(model):
    """Let a small generator generate what a model trains."""
    return generate(model, chunk_size=8, n_circuits=2, circuit_depth=2)


def method_model(case):
    """A model with a PEFT method whose tensors are generated."""
    torch.manual_seed(0)
    return generated(get_peft_model(build("llama"), METHODS[case][0]))

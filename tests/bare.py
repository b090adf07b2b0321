"""Small models with QPA adapters injected, and the same with a PeftModel around them."""

import torch
from helpers import disturb
from models import build
from peft import get_peft_model
from transformers import LlamaForCausalLM

from qpa_hf import QPAConfig

SIZES = {"r": 2, "lora_alpha": 4, "chunk_size": 32, "n_circuits": 2, "circuit_depth": 2}
TWO = SIZES | {"target_modules": ["q_proj", "v_proj"]}


def saved_base(folder):
    """Save a small base model, and return its folder."""
    build("llama").save_pretrained(folder)
    return folder


def base_of(folder):
    """Return the base model of a folder."""
    return LlamaForCausalLM.from_pretrained(folder).eval()


def move(generator, seed=1):
    """Add random numbers to what a generator trains, as `disturb` does."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in generator.trained().values():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))


def trained(folder, **settings):
    """Return the base model of a folder with an adapter in it."""
    model = base_of(folder)
    model.add_adapter(QPAConfig(**(TWO | settings)))
    move(model.lora_qpa["default"])
    return model


def around(folder, **settings):
    """Return the same adapter with a PeftModel around the base."""
    model = get_peft_model(base_of(folder), QPAConfig(**(TWO | settings), task_type="CAUSAL_LM")).eval()
    disturb(model)
    return model

"""A device that measures without Qiskit, adapters that it has measured, and their files as an attacker edits them."""

import json

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from qpa_hf import QPAConfig, generate
from qpa_hf.circuit import probabilities
from qpa_hf.demo.arms import BASE
from qpa_hf.measurement.shots import sample
from qpa_hf.reproducible import seeded

DEVICE = {"backend": "ibm", "device": "ibm_torino", "shots": 50, "gradient": "spsa"}
SIZES = {"chunk_size": 512, "n_circuits": 2, "circuit_depth": 2}
LORA = {"r": 2, "target_modules": ["c_attn"], "task_type": "CAUSAL_LM", "fan_in_fan_out": True}
TOKENS = torch.arange(8)[None]


def measure(angles, ansatz, shots, device, folder, seed, **limits):
    """Return shots of the ideal circuits, in the place of `qpa_hf.measurement.device.sample`."""
    counts = sample(probabilities(angles.flatten(0, -3), ansatz), shots, seeded(seed, "stand-in"))
    return counts.view(*angles.shape[:-2], -1)


def base():
    return AutoModelForCausalLM.from_pretrained(BASE).eval()


def native(folder, **settings):
    """Save a trained QPA adapter, and return what its model answers."""
    return _saved(get_peft_model(base(), QPAConfig(**LORA, **SIZES, **settings)), folder)


def generated(folder, **settings):
    """Save a LoRA adapter whose tensors a trained generator generates, and return what its model answers."""
    return _saved(generate(get_peft_model(base(), LoraConfig(**LORA)), **SIZES, **settings), folder)


def _saved(model, folder):
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    found = answer(model)
    model.save_pretrained(folder)
    return found


def edit(folder, **settings):
    """Change an adapter's settings in its file."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.get("generator", config).update(settings)
    path.write_text(json.dumps(config), encoding="utf-8")


def settings_of(folder):
    """Return the generator's settings in an adapter's file."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return config.get("generator", config)


@torch.no_grad()
def answer(model):
    """Return the model's logits."""
    return model.eval()(input_ids=TOKENS).logits

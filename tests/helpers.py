"""Adapters with values that differ from their start, as after training."""

import torch
from models import build, inputs, output
from peft import get_peft_model

from qpa_hf import QPAConfig, initialize_basis


def start(name, **kwargs):
    """Return a small model with a QPA adapter as it is before training, its bases known if it has any."""
    settings = {"r": 4, "lora_alpha": 8, "chunk_size": 32, "n_circuits": 2, "circuit_depth": 2} | kwargs
    model = get_peft_model(build(name), QPAConfig(**settings)).eval()
    if settings.get("basis") == "gradient":
        initialize_basis(model, [inputs(name)], loss=lambda model, batch: model(**batch).logits.square().mean())
    return model


def adapted(name, seed=1, **kwargs):
    """Return a small model with a QPA adapter whose generator has been moved away from its start."""
    model = start(name, **kwargs)
    disturb(model, seed)
    return model


def disturb(model, seed=1, adapter_name="default"):
    """Add random numbers to every trainable number of a generator, as some optimizer steps would."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in trainable(model, adapter_name):
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))


def trainable(model, adapter_name="default"):
    """Return the generator's Parameters that can be trained, whether they are at present or not."""
    generator = model.base_model.lora_qpa[adapter_name]
    return [p for name, p in generator.named_parameters() if name not in generator.named_frozen]


@torch.no_grad()
def logits(model, name, **kwargs):
    """Return the model's logits without a graph."""
    return output(model, name, **kwargs)

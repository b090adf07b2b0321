"""Adapters on gradient bases before the bases are found, a loss for them, and what was found."""

from models import build
from peft import get_peft_model

from qpa_hf import QPAConfig
from qpa_hf.models import bank_of

RANK = 2
SKETCHED = {"exact_bytes": 0, "progress": False}
SETTINGS = {"r": 3, "chunk_size": 4, "n_circuits": 2, "basis": "gradient", "task_type": "CAUSAL_LM"}


def square(model, batch):
    return model(**batch).logits.square().mean()


def uninitialized(name, **settings):
    return get_peft_model(build(name), QPAConfig(**(SETTINGS | settings)))


def bases(model):
    """Return (A, U) by layer."""
    bank = bank_of(model)
    names = [key.removesuffix(".lora_A.weight") for key, *_ in model.peft_config["default"].layout if "lora_A" in key]
    return dict(zip(names, bank.pieces.views(bank.generator.basis), strict=True))

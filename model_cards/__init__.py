"""Model cards for adapters, filled from what their configuration records."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from huggingface_hub import ModelCard, ModelCardData

from qpa_hf._version import __version__
from qpa_hf.tuner.config import QPAConfig
from qpa_hf.tuner.slots import own_slots, slots_of

TEMPLATE = Path(__file__).parent / "materialized.md"
SETTINGS = ("ansatz", "circuit_depth", "features", "chunk_size", "mapping_widths", "start", "init_seed")


def materialized_card(config: QPAConfig) -> ModelCard:
    """Return the card of a materialized adapter: how it was made, the split of its trained numbers, how to load it.

    Args:
        config: configuration of the generator it came from, with the layout that training wrote.
    """
    spec = config.generator_spec(sum(math.prod(slot.shape) for slot in own_slots(slots_of(config.layout or []))))
    sources = {
        "circuit": f"{spec.n_circuits} simulated circuit(s) of {spec.n_qubits} qubits",
        "random": "fixed random numbers (the control without a circuit)",
        "bits": "the bits of basis states (a control without a circuit)",
    }
    return ModelCard.from_template(
        ModelCardData(base_model=config.base_model_name_or_path or None, library_name="peft", tags=["lora", "qpa"]),
        template_path=str(TEMPLATE),
        base=config.base_model_name_or_path or "",
        n_values=f"{spec.n_values:,}",
        source=sources[spec.source],
        n_trainable=f"{spec.n_trainable:,}",
        n_angles=f"{spec.n_angles if spec.train_circuit else 0:,}",
        n_hidden=f"{spec.n_hidden:,}",
        n_output=f"{spec.n_output:,}",
        settings={name: getattr(config, name) for name in SETTINGS},
        qpa_hf=__version__,
        torch=torch.__version__,
    )

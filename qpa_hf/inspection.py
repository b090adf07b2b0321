"""What is in the directory of an adapter."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qpa_hf.checkpoint import read_weights
from qpa_hf.circuit import ansatz_label
from qpa_hf.generator import rows_of
from qpa_hf.hub.folder import form_of
from qpa_hf.messages import check_path
from qpa_hf.model_cards import RunRecord
from qpa_hf.schema import read_config
from qpa_hf.tuners.qpa import QPAConfig
from qpa_hf.tuners.qpa.slots import n_generated, slots_of


def inspect(folder: Path) -> dict[str, Any]:
    """Return what a native or materialized adapter is, without its base model.

    Raises:
        ValueError: if the directory holds neither, or something damaged.
    """
    form = form_of(check_path(folder))
    # A generator's settings lie beside its numbers as the bytes of a text.
    weights = {name: tensor for name, tensor in read_weights(folder).items() if not name.endswith("_extra_state")}
    config: Any = read_config(folder)
    targets = getattr(config, "target_modules", None)
    found: dict[str, Any] = {
        "form": form,
        "base_model": config.base_model_name_or_path,
        "method": config.peft_type.value,
        "rank": getattr(config, "r", None),
        "lora_alpha": getattr(config, "lora_alpha", None),
        "target_modules": targets if isinstance(targets, str) else sorted(targets or []) or None,
        "tensors": len(weights),
        "numbers": sum(tensor.numel() for tensor in weights.values()),
        "bytes": sum(tensor.nbytes for tensor in weights.values()),
        "largest_value": _largest(weights.values()),
    }
    # Trained as they are, and in no count below.
    found |= {name: getattr(config, name, None) or None for name in ("modules_to_save", "trainable_token_indices")}
    found["bias"] = bias if (bias := getattr(config, "bias", "none")) != "none" else None
    if isinstance(config, QPAConfig):
        found |= _generator(config)
    record = RunRecord.load(folder)
    if record is not None:
        found |= {f"result_{r.metric}": r.value for r in record.results}
        found |= {"trained_steps": record.steps, "learning_rate": record.hyperparameters.get("learning_rate")}
    return {name: value for name, value in found.items() if value is not None}


def _largest(tensors: Iterable[Tensor]) -> float:
    """Return the largest absolute value; NaN if there is one anywhere."""
    # Whole numbers count something, such as the draws of shots.
    largest = [tensor.abs().max().double() for tensor in tensors if tensor.numel() and tensor.is_floating_point()]
    return float(torch.stack(largest).max()) if largest else 0.0


def _generator(config: QPAConfig) -> dict[str, Any]:
    spec = config.generator_spec(n_generated(config, slots_of(config.layout or [])))
    # The spec's values are those in use: a chunk is never longer than the vector.
    values = vars(config) | vars(spec)
    values |= {"ansatz": ansatz_label(spec.ansatz), "shots": spec.n_shots, "device": spec.measuring_device}
    values |= {"gradient": spec.estimator}
    values |= {"n_stages": config.n_stages if config.n_stages > 1 else None}
    values |= {"train_circuit": None}  # `trainable_angles` says it
    return {
        **{row.replace(" ", "_"): values[name] for row, name in rows_of(config)},
        "qubits": spec.n_qubits if spec.has_circuit else None,
        "generated_numbers": spec.n_values,
        "trainable_numbers": config.n_stages * spec.n_trainable,
        "trainable_angles": spec.n_trained_angles,
        "trainable_inputs": spec.n_free or None,
        "trainable_interpolation": spec.n_interpolation,
        "trainable_hidden": spec.n_hidden,
        "trainable_output": spec.n_output,
    }

"""What a card says of a generator: its sizes, its source, how its circuits ran, and its control."""

from __future__ import annotations

import math
from typing import Any

from qpa_hf.circuit import ansatz_label
from qpa_hf.generator import GeneratorSpec, rows_of
from qpa_hf.model_cards.markdown import Markdown, in_markdown, listed, named, rounded
from qpa_hf.model_cards.record import RunRecord
from qpa_hf.tuners.qpa.config import QPAConfig
from qpa_hf.tuners.qpa.slots import n_generated, own_slots, slots_of

LONG_ROWS = {"gradient": "gradient of the angles", "seed": "seed of the generator"}  # of a card's settings
GRADIENTS = {
    "exact": "exact, from the simulation (a quantum computer has no such gradient)",
    "parameter_shift": "parameter shift",
    "spsa": "simultaneous perturbation (SPSA)",
    "none": "none",
}


def generator_facts(config: QPAConfig, record: RunRecord, method: str) -> dict[str, Any]:
    """Return what a card says of the generator."""
    slots = slots_of(config.layout or [])
    spec = config.generator_spec(n_generated(config, slots))
    lora = {"rank": config.r, "lora_alpha": config.lora_alpha} if method == "LORA" else {}
    return {
        "n_values": f"{sum(math.prod(slot.shape) for slot in own_slots(slots)):,}",
        "n_trainable": f"{config.n_stages * spec.n_trainable:,}",
        "bases": Markdown(" between frozen bases from the gradient" if config.basis == "gradient" else ""),
        "split": _split(spec, config.n_stages),
        "beside": _beside(config),
        "origin": spec.inputs.origin(spec),
        "settings": _settings(config, spec) | lora,
        "control": _control(spec, record),
    }


def _beside(config: QPAConfig) -> Markdown:
    """Return what is trained as it is, beside what is generated."""
    parts: list[str] = [named(name) for name in config.modules_to_save or []]
    if config.bias != "none":
        parts.append("all biases" if config.bias == "all" else "the adapted layers' biases")
    indices = config.trainable_token_indices or {}
    by_layer = indices.values() if isinstance(indices, dict) else [indices]
    if n_tokens := len({index for one in by_layer for index in one}):
        parts.append(f"the embeddings of {n_tokens} token{'s' * (n_tokens != 1)}")
    return listed(parts)


def _split(spec: GeneratorSpec, n_stages: int) -> dict[str, str]:
    inputs = {"numbers in the circuits' place": f"{spec.n_free:,}"} if spec.n_free else {}
    if spec.n_interpolation:
        inputs["network that interpolates between states"] = f"{spec.n_interpolation:,}"
    return {
        "angles of the circuits": f"{spec.n_trained_angles:,}",
        **inputs,
        "mapping model, hidden layers": f"{spec.n_hidden:,}",
        spec.inputs.output: f"{spec.n_output:,}",
        f"all, in each of {n_stages} stages" if n_stages > 1 else "all": f"{spec.n_trainable:,}",
    }


def _settings(config: QPAConfig, spec: GeneratorSpec) -> dict[str, Any]:
    """Return a row for each setting, in words where its value has none."""
    # The spec's values are those in use: a chunk is never longer than the vector.
    values = vars(config) | vars(spec)
    values |= {
        "ansatz": ansatz_label(spec.ansatz),
        "train_circuit": "trained" if spec.train_circuit else "not trained",
        "shots": f"{spec.n_shots:,}" if spec.n_shots else "none, probabilities are computed",
        "gradient": GRADIENTS[spec.estimator] if spec.train_circuit else "none",
        "noise": f"ibm_{spec.noise}" if spec.noise else "none",
        "use_basis_bits": "inputs" if spec.has_bits else "no inputs",
        "mapping_widths": ", ".join(map(str, spec.mapping_widths)) or "none",
        "n_stages": f"{config.n_stages}, all numbers trained anew in each" if config.n_stages > 1 else None,
    }
    qubits = {"qubits": spec.n_qubits} if spec.has_circuit else {}
    rows = [(LONG_ROWS.get(row, row), values[name]) for row, name in rows_of(config)]
    return qubits | {row: value for row, value in rows if value is not None}


def _control(spec: GeneratorSpec, record: RunRecord) -> Markdown:
    if not spec.has_circuit or not spec.train_circuit:
        what = "its angles are not trained" if spec.has_circuit else f'`source="{spec.source}"`'
        return Markdown(f"This adapter is itself a control: {what}.")
    control = record.control
    if control is None:
        return Markdown(
            "No control was recorded with this run, so nothing here says whether the circuits contributed anything "
            "over random numbers in their place."
        )
    own = next((r.value for r in record.results if r.metric == control.metric), None)
    against = f", against {rounded(own)} here" if own is not None else ""
    source, metric = in_markdown(control.source), in_markdown(control.metric)
    return Markdown(f"Control ({source}): {metric} {rounded(control.value)}{against}.")

"""What a configuration costs, before any weight is loaded: qubits, counts, memory, checkpoint sizes."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from transformers import AutoConfig, PretrainedConfig

from qpa_hf.checkpoint import check_folder
from qpa_hf.circuit import find_ansatz, memory_bytes
from qpa_hf.generator import FLOAT_BYTES, FrozenBases, GeneratorSpec
from qpa_hf.measurement import n_simulated
from qpa_hf.messages import check_kind, check_path, first_sentence, shown, whole_number
from qpa_hf.model_cards.program import auto_class
from qpa_hf.plan.budget import budget, budgets
from qpa_hf.plan.rows import Plan, PlanRow
from qpa_hf.tuners.qpa.basis_cost import BasisCost, basis_cost, layer_sizes
from qpa_hf.tuners.qpa.config import QPAConfig
from qpa_hf.tuners.qpa.model import plain_lora_config
from qpa_hf.tuners.qpa.refusals import naming_layers
from qpa_hf.tuners.qpa.slots import Slot, collect, generated_slots, n_generated, own_slots, pieces_of


def plan(
    config: QPAConfig,
    model: nn.Module | PretrainedConfig | str,
    chunk_sizes: Sequence[int] | None = None,
    n_steps: int = 1,
) -> Plan:
    """Return what a configuration costs on a model, without loading any weights.

    Args:
        config: the adapter; its `task_type` chooses the model's head where only a configuration is given.
        model: a `transformers` configuration, the name or directory of one, or a model (its shapes are used).
        chunk_sizes: several chunk sizes to put side by side; only the configuration's own if None.
        n_steps: of training, for what a run measures.

    Raises:
        TypeError: if an argument is of another kind.
        ValueError: if the configuration's targets match nothing, `n_steps` is no whole number of at least 1, a chunk
            size is not allowed, or no configuration can be had by that name.
        FileNotFoundError: if `model` names a directory that is not there.

    Example:
        >>> from transformers import GPT2Config
        >>> lora = {"r": 4, "target_modules": ["lm_head"], "task_type": "CAUSAL_LM"}
        >>> plan(QPAConfig.paper(2048, **lora), GPT2Config()).rows[0].n_trainable
        106264
    """
    check_kind("config", config, QPAConfig, "a QPAConfig")
    check_kind("model", model, (nn.Module, PretrainedConfig, str), "a model, its configuration, or the name of one")
    check_kind("chunk_sizes", chunk_sizes, (list, tuple, range, type(None)), "a list of chunk sizes or None")
    n_steps = whole_number("n_steps", n_steps)
    slots, n_target, n_beside = _shapes(config, model)
    rows = []
    for chunk_size in chunk_sizes or [config.chunk_size]:
        sized = copy.copy(config)
        sized.chunk_size = chunk_size
        sized.__post_init__()
        rows.append(_row(sized, slots, n_target, n_beside, n_steps))
    return Plan(rows)


def _empty_model(config: QPAConfig, model: nn.Module | PretrainedConfig | str) -> nn.Module:
    if isinstance(model, nn.Module):
        tensors = [t for t in (*model.parameters(), *model.buffers()) if not is_lazy(t)]
        # No copy of the numbers is made, not even for a moment.
        return copy.deepcopy(model, {id(tensor): _without_numbers(tensor) for tensor in tensors})
    shapes = _shapes_of(model) if isinstance(model, str) else model
    with torch.device("meta"):
        return getattr(transformers, auto_class(config)).from_config(shapes)


def _without_numbers(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _shapes_of(name: str) -> PretrainedConfig:
    if not check_path(name).is_file():  # of a configuration
        check_folder(name, "base model")
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`model`={shown(name)} has no configuration that can be read ({first_sentence(error)}). Name a directory "
            "or Hub id."
        ) from error


def _shapes(config: QPAConfig, model: nn.Module | PretrainedConfig | str) -> tuple[list[Slot], int, int]:
    """Return the tensors to generate, the number of weights in the adapted layers, and what is trained beside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's remarks on tied weights belong to training, not to counting
        lora = plain_lora_config(config)
        lora.use_dora = False  # its initialisation needs real weights; the magnitudes' shapes follow from B's
        empty = _empty_model(config, model)
        is_bare = config.task_type is None and not isinstance(model, nn.Module)
        with naming_layers(empty, " Without a `task_type` it has no head: set one to adapt the head." * is_bare):
            peft_model = get_peft_model(empty, lora, low_cpu_mem_usage=True)
    inner = peft_model.get_submodule("base_model.model")
    slots = [target.slot for target in collect(inner, "default", config.basis == "gradient")]
    if config.use_dora:
        for last in (".lora_B.weight", ".lora_embedding_B"):
            factors = [slot for slot in slots if slot.key.endswith(last)]
            slots += [Slot(s.key.replace(last, ".lora_magnitude_vector"), (s.shape[0],)) for s in factors]
    layers = {id(m): m for m in peft_model.modules() if isinstance(m, LoraLayer)}
    weights = {id(p): _n_weights(layer, p) for layer in layers.values() for p in layer.get_base_layer().parameters()}
    trained = {name: p for name, p in peft_model.named_parameters() if p.requires_grad}
    return slots, sum(weights.values()), sum(p.numel() for name, p in trained.items() if "lora_" not in name)


def _n_weights(layer: Any, parameter: Tensor) -> int:
    """Return the numbers of a parameter, also where bitsandbytes has packed two of a weight into a byte."""
    return parameter.numel() if parameter.is_floating_point() else layer.in_features * layer.out_features


def _row(config: QPAConfig, slots: list[Slot], n_target: int, n_beside: int, n_steps: int) -> PlanRow:
    spec = config.generator_spec(n_generated(config, slots))
    n_lora = _n_numbers(own_slots(slots))
    pieces = pieces_of(config, slots)
    n_basis = pieces.n_buffer
    finding = basis_cost(layer_sizes(pieces)) if isinstance(pieces, FrozenBases) else BasisCost(0, 0)
    kept = spec.n_saved + n_basis
    saved = ("init", "magnitude") if config.is_identity and config.save_init else ("magnitude",)
    kept += _n_numbers([slot for slot in generated_slots(config, slots) if slot.frozen_part in saved])
    n_trainable = config.n_stages * spec.n_trainable
    states = 2**spec.n_qubits * spec.n_circuits
    n_rotations = len(find_ansatz(spec.ansatz).rotations)
    # One rotation of one qubit takes 3 operations for each amplitude: two multiplications and an addition.
    circuit_flops = 3 * states * spec.n_qubits * spec.circuit_depth * n_rotations if spec.has_circuit else 0
    mapping_flops = 2 * spec.n_chunks * sum(out * width for out, width in spec.layer_shapes)
    hidden = spec.n_chunks * sum(spec.mapping_widths)
    circuit_bytes = _circuit_bytes(spec) if spec.has_circuit else 0
    return PlanRow(
        chunk_size=spec.chunk_size,
        n_lora=n_lora,
        n_values=spec.n_values,
        n_chunks=spec.n_chunks,
        n_qubits=spec.n_qubits,
        n_circuits=spec.n_circuits,
        n_angles=spec.n_trained_angles,
        n_interpolation=spec.n_interpolation,
        n_hidden=spec.n_hidden,
        n_output=spec.n_output,
        n_trainable=n_trainable,
        n_beside=n_beside,
        measuring=budget(spec, spec.estimator, n_steps),
        estimators=tuple(budgets(spec, n_steps)) if spec.has_circuit and spec.n_shots else (),
        percent_of_target=100 * n_trainable / n_target,
        percent_of_lora=100 * n_trainable / n_lora,
        generator_flops=circuit_flops + mapping_flops,
        generator_bytes=circuit_bytes + FLOAT_BYTES * (2 * hidden + 2 * (n_lora if n_basis else spec.n_values)),
        native_bytes=FLOAT_BYTES * kept,
        materialized_bytes=FLOAT_BYTES * _n_numbers(slots),  # tied ones are written, too
        basis_bytes=finding.n_bytes,
        basis_passes=finding.n_passes,
    )


def _n_numbers(slots: Sequence[Slot]) -> int:
    return sum(math.prod(slot.shape) for slot in slots)


def _circuit_bytes(spec: GeneratorSpec) -> int:
    """Return the memory of the circuits that are simulated at a time."""
    gradient = spec.estimator if spec.train_circuit else "none"
    n_angles = math.prod(spec.angles_shape[1:])
    n_at_a_time = n_simulated(gradient, n_angles, spec.n_circuits, spec.n_qubits)
    return max(memory_bytes(spec.n_qubits, spec.circuit_depth, n, spec.ansatz) for n in (spec.n_circuits, n_at_a_time))

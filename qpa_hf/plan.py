"""What a configuration costs, before any weight is loaded: qubits, counts, memory, checkpoint sizes."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from transformers import AutoConfig, PretrainedConfig

from qpa_hf.budget import Budget, budget, budgets
from qpa_hf.checkpoint import check_folder
from qpa_hf.circuit import ANSATZE, memory_bytes, n_simulated
from qpa_hf.generator import FLOAT_BYTES, GeneratorSpec
from qpa_hf.model_cards.card import auto_class
from qpa_hf.tuner.config import QPAConfig
from qpa_hf.tuner.model import plain_lora_config
from qpa_hf.tuner.refusals import first_sentence, naming_layers
from qpa_hf.tuner.slots import Slot, basis_of, collect, generated_slots, n_generated, own_slots
from qpa_hf.whole_number import whole_number


@dataclass(frozen=True)
class PlanRow:
    """One configuration's sizes; counts are numbers, sizes are bytes."""

    chunk_size: int
    n_lora: int  # LoRA's own count at the same rank
    n_values: int  # numbers generated (m): as many, or the cores that stand on frozen bases
    n_chunks: int
    n_qubits: int
    n_circuits: int
    n_angles: int
    n_interpolation: int
    n_hidden: int
    n_output: int
    n_trainable: int  # in all stages together; what stands above is one stage's
    n_beside: int  # trained as they are: modules_to_save, biases, tokens' embeddings; in no other count
    measuring: Budget  # what the configuration's own estimator measures
    estimators: tuple[Budget, ...]  # what each one would; none without shots
    percent_of_target: float  # of the weights of the adapted layers
    percent_of_lora: float
    generator_flops: int  # one forward; the backward takes about twice as many
    generator_bytes: int  # at the peak of a forward and backward pass
    native_bytes: int
    materialized_bytes: int


class Plan:
    """A table of `PlanRow`s; `str()` is for people, `to_dict()` for machines."""

    def __init__(self, rows: list[PlanRow]) -> None:
        self.rows = rows

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one dictionary for each row."""
        return [asdict(row) for row in self.rows]

    def __str__(self) -> str:
        columns = {
            name: column for name, column in COLUMNS.items() if name not in SELDOM or any(map(column, self.rows))
        }
        table = _aligned([list(columns), *([_cell(column(row)) for column in columns.values()] for row in self.rows)])
        n_values, n_lora = self.rows[0].n_values, self.rows[0].n_lora
        own = "LoRA's own count" if n_values == n_lora else f"LoRA itself: {n_lora:,}"
        n_beside = self.rows[0].n_beside
        beside = [f"Trained as they are beside it, and not counted: {n_beside:,} numbers"] if n_beside else []
        return "\n".join([f"{n_values:,} numbers to generate ({own})", table, *beside, *self._measuring()])

    def _measuring(self) -> list[str]:
        """Return what is measured, a line for each estimator; nothing where no shots are drawn."""
        lines = [
            [f"{row.chunk_size:,}", one.gradient + (" *" if one.gradient == row.measuring.gradient else "")]
            + [f"{getattr(one, name):,}" for name in MEASURED]
            for row in self.rows
            for one in row.estimators
        ]
        if not lines:
            return []
        n_steps = self.rows[0].measuring.n_steps
        return [
            f"Measured in {n_steps:,} step{'s' * (n_steps != 1)}, by estimator of the angles' gradient (*: this one); "
            "on a device one job more each time the adapter is evaluated or saved:",
            _aligned([["chunk", "estimator", *(name.replace("_per_", "/") for name in MEASURED)], *lines]),
        ]


# What `str(plan)` shows of a row; the columns in `SELDOM` only where one of them is not zero.
COLUMNS: dict[str, Callable[[PlanRow], Any]] = {
    "chunk": lambda r: r.chunk_size,
    "chunks": lambda r: r.n_chunks,
    "qubits": lambda r: r.n_qubits,
    "angles": lambda r: r.n_angles,
    "interpolation": lambda r: r.n_interpolation,
    "mapping": lambda r: r.n_hidden + r.n_output,
    "trainable": lambda r: r.n_trainable,
    "% target": lambda r: r.percent_of_target,
    "% LoRA": lambda r: r.percent_of_lora,
    "MFLOP": lambda r: r.generator_flops / 1e6,
    "memory": lambda r: _size(r.generator_bytes),
    "native": lambda r: _size(r.native_bytes),
    "materialized": lambda r: _size(r.materialized_bytes),
}
SELDOM = ("interpolation",)
MEASURED = tuple(f"{what}_per_{span}" for span in ("step", "run") for what in ("circuits", "shots", "jobs"))


def _aligned(lines: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def _size(n_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    raise AssertionError("unreachable")


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
        ValueError: if the configuration's targets match nothing, `n_steps` is no whole number of at least 1, a chunk
            size is not allowed, or no configuration can be had by that name.
        FileNotFoundError: if `model` names a directory that is not there.

    Example:
        >>> from transformers import GPT2Config
        >>> lora = {"r": 4, "target_modules": ["lm_head"], "task_type": "CAUSAL_LM"}
        >>> plan(QPAConfig.paper(2048, **lora), GPT2Config()).rows[0].n_trainable
        106264
    """
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
    if not Path(name).is_file():  # of a configuration
        check_folder(name, "base model")
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"No configuration can be had from {name} ({first_sentence(error)}). Name a directory or Hub id."
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
    slots = [target.slot for target in collect(peft_model.get_submodule("base_model.model"), "default")]
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
    basis = basis_of(config, slots)
    kept = (
        spec.n_free
        + spec.n_interpolation
        + spec.n_hidden
        + spec.n_output
        + spec.n_angles
        + (basis.n_buffer if basis else 0)
    )
    saved = ("init", "magnitude") if config.start == "identity" and config.save_init else ("magnitude",)
    kept += _n_numbers([slot for slot in generated_slots(config, slots) if slot.frozen_part in saved])
    n_trainable = config.n_stages * spec.n_trainable
    states = 2**spec.n_qubits * spec.n_circuits
    has_circuit = spec.source == "circuit"
    n_rotations = len(ANSATZE[spec.ansatz].rotations)
    # One rotation of one qubit takes 3 operations for each amplitude: two multiplications and an addition.
    circuit_flops = 3 * states * spec.n_qubits * spec.circuit_depth * n_rotations if has_circuit else 0
    mapping_flops = 2 * spec.n_chunks * sum(out * width for out, width in spec.layer_shapes)
    hidden = spec.n_chunks * sum(spec.mapping_widths)
    circuit_bytes = _circuit_bytes(spec) if has_circuit else 0
    return PlanRow(
        chunk_size=spec.chunk_size,
        n_lora=n_lora,
        n_values=spec.n_values,
        n_chunks=spec.n_chunks,
        n_qubits=spec.n_qubits,
        n_circuits=spec.n_circuits,
        n_angles=spec.n_angles if spec.train_circuit else 0,
        n_interpolation=spec.n_interpolation,
        n_hidden=spec.n_hidden,
        n_output=spec.n_output,
        n_trainable=n_trainable,
        n_beside=n_beside,
        measuring=budget(spec, spec.gradient, n_steps),
        estimators=tuple(budgets(spec, n_steps)) if has_circuit and spec.n_shots else (),
        percent_of_target=100 * n_trainable / n_target,
        percent_of_lora=100 * n_trainable / n_lora,
        generator_flops=circuit_flops + mapping_flops,
        generator_bytes=circuit_bytes + FLOAT_BYTES * (2 * hidden + 2 * (n_lora if basis else spec.n_values)),
        native_bytes=FLOAT_BYTES * kept,
        materialized_bytes=FLOAT_BYTES * _n_numbers(slots),  # tied ones are written, too
    )


def _n_numbers(slots: Sequence[Slot]) -> int:
    return sum(math.prod(slot.shape) for slot in slots)


def _circuit_bytes(spec: GeneratorSpec) -> int:
    """Return the memory of the circuits that are simulated at a time."""
    gradient, n_angles = spec.gradient if spec.train_circuit else "none", math.prod(spec.angles_shape[1:])
    n_at_a_time = n_simulated(gradient, n_angles, spec.n_circuits, spec.n_qubits)
    return max(memory_bytes(spec.n_qubits, spec.circuit_depth, n, spec.ansatz) for n in (spec.n_circuits, n_at_a_time))

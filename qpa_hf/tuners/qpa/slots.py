"""Which tensors of a LoRA model are generated, in which order, and on what frozen values they stand."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers.integrations import is_deepspeed_zero3_enabled

from qpa_hf.generator import Bank, FrozenBases, Generator, Pair, Pieces
from qpa_hf.reading import Place, attach
from qpa_hf.reproducible import seeded

PREFIX = "base_model.model."


class Slot(NamedTuple):
    """One generated tensor.

    Args:
        key: the tensor's name in a plain LoRA checkpoint.
        shape: its shape.
        tied_to: key of the slot whose transpose it is, for adapters tied to an embedding's; else None.
        n_experts: number of factors in it that have bases of their own, as of experts that share a Parameter.
    """

    key: str
    shape: tuple[int, ...]
    tied_to: str | None = None
    n_experts: int = 1

    @property
    def frozen_part(self) -> str | None:
        """Name of the frozen numbers below the generated ones: "init" (random), "magnitude" (DoRA), or None (zero)."""
        if ".lora_magnitude_vector" in self.key:
            return "magnitude"
        return "init" if self.key.endswith((".lora_A.weight", ".lora_embedding_B")) else None


class Target(NamedTuple):
    """A Parameter that PEFT made and the generator replaces.

    Args:
        slot: the generated tensor in its stead.
        place: where the Parameter stands.
        layer: the LoRA layer that has it.
    """

    slot: Slot
    place: Place
    layer: LoraLayer


def _places(model: nn.Module, adapter_name: str) -> Iterator[tuple[Place, LoraLayer]]:
    for module_name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        anchor = layer.get_base_layer()
        for container in dict.fromkeys(layer.adapter_layer_names):  # PEFT's DoRA names its container twice
            entries = getattr(layer, container, {})
            if adapter_name not in entries:
                continue
            key = f"{PREFIX}{module_name}.{container}"
            if isinstance(entries, nn.ParameterDict):
                yield Place(key, entries, adapter_name, is_entry=True, anchor=anchor), layer
                continue
            module = entries[adapter_name]
            for name, _ in module.named_parameters():
                suffix = "" if container == "lora_magnitude_vector" else f".{name}"
                yield Place(key + suffix, module, name, anchor=anchor), layer


def collect(model: nn.Module, adapter_name: str, has_bases: bool = False) -> list[Target]:
    """Return the adapter's Parameters in the generator's order: those with a frozen part below them come first.

    Args:
        model: the base model with PEFT's layers.
        adapter_name: name of the adapter.
        has_bases: whether factors stand on gradient bases, of which each expert has its own.
    """
    targets: list[Target] = []
    owners: dict[int, str] = {}  # by storage: meta tensors have no address to compare
    for place, layer in _places(model, adapter_name):
        key = place.name
        owner = owners.setdefault(place.parameter.untyped_storage()._cdata, key)
        n_experts = getattr(layer, "num_experts", 1) if has_bases else 1
        slot = Slot(key, tuple(place.parameter.shape), None if owner == key else owner, n_experts)
        targets.append(Target(slot, place._replace(is_transposed=owner != key), layer))
    order = {"init": 0, "magnitude": 1, None: 2}
    return sorted(targets, key=lambda target: order[target.slot.frozen_part])


def device_of(targets: list[Target]) -> torch.device:
    """Return the device of the first Parameter that has values; a CPU if none has."""
    devices = [target.place.parameter.device for target in targets]
    return next((device for device in devices if device.type != "meta"), torch.device("cpu"))


def magnitudes_of(config: Any, targets: list[Target]) -> dict[str, Tensor]:
    """Return DoRA's magnitudes, as PEFT has made them from the base weights, by key.

    Raises:
        ValueError: if a new adapter's have no values.
    """
    wanted = [target for target in targets if target.slot.frozen_part == "magnitude"]
    found: dict[str, Tensor] = {}
    for slot, place, _ in wanted:
        if place.parameter.device.type != "meta":
            found[slot.key] = place.parameter
    if not config.is_loaded and len(found) < len(wanted):
        raise ValueError(
            "`use_dora` takes a new adapter's magnitudes from the base weights, which `low_cpu_mem_usage`=True "
            "leaves without values. Set `low_cpu_mem_usage`=False."
        )
    return found


class Layout(list[list[Any]]):
    """The slots of a model in this process, as plain lists; what a file says of another's is no `Layout`."""


def layout_of(slots: list[Slot]) -> Layout:
    """Return the slots as plain lists, as they are written to `adapter_config.json`."""
    return Layout(
        [slot.key, list(slot.shape), slot.tied_to, *([slot.n_experts] if slot.n_experts > 1 else [])] for slot in slots
    )


def slots_of(layout: list[list[Any]]) -> list[Slot]:
    """Return the slots that `layout_of` wrote."""
    return [Slot(key, tuple(shape), *rest) for key, shape, *rest in layout]


def target_names(slots: list[Slot]) -> set[str]:
    """Return the names of all adapted modules."""
    return {slot.key.removeprefix(PREFIX).rpartition(".lora_")[0] for slot in slots}


def own_slots(slots: list[Slot]) -> list[Slot]:
    """Return the slots that have numbers of their own."""
    return [slot for slot in slots if slot.tied_to is None]


def generated_slots(config: Any, slots: list[Slot]) -> list[Slot]:
    """Return what the generator's vector holds: the slots, or square cores for those on frozen bases.

    Several experts' cores are one slot of three dimensions.
    """
    own = own_slots(slots)
    if config.basis == "kaiming":
        return own
    return [
        slot if slot.frozen_part == "magnitude" else slot._replace(shape=_core_shape(slot, config.n_stages))
        for slot in own
        if slot.frozen_part != "init"
    ]


def _core_shape(slot: Slot, n_stages: int) -> tuple[int, ...]:
    side = slot.shape[1] // slot.n_experts // n_stages
    return (side, side) if slot.n_experts == 1 else (slot.n_experts, side, side)


def n_generated(config: Any, slots: list[Slot]) -> int:
    """Return how many numbers the generator must produce."""
    return sum(math.prod(slot.shape) for slot in generated_slots(config, slots))


def pieces_of(config: Any, slots: list[Slot]) -> Pieces:
    """Return how the generator's vector becomes the slots: by itself, or on frozen bases.

    Raises:
        ValueError: if one of them is no factor of a linear layer's, or has more rows than the layer.
    """
    own = own_slots(slots)
    if config.basis == "kaiming":
        return Pieces([slot.shape for slot in own])
    index = {slot.key: i for i, slot in enumerate(own)}
    pairs = []
    for slot in slots:
        if slot.frozen_part == "magnitude":
            continue
        name = slot.key.removeprefix(PREFIX).rpartition(".lora_")[0]
        if slot.tied_to or ".lora_embedding_" in slot.key or len(slot.shape) > 2:
            raise ValueError(
                f"{name} is no linear layer of its own, and only those have gradient bases. Leave it out of "
                "`target_modules`, or use basis='kaiming'."
            )
        if slot.frozen_part == "init":
            b = index[slot.key.replace(".lora_A.weight", ".lora_B.weight")]
            (n_rows, n_in), n_out = slot.shape, own[b].shape[0]
            rank = n_rows // slot.n_experts
            if slot.n_experts > 1 and config.n_stages > 1:
                raise ValueError(
                    f"{name} has experts, whose bases are found once. Set n_stages=1, or leave it out of the targets."
                )
            if rank > min(n_in, n_out):
                raise ValueError(f"Rank {rank} is more than {name} has ({min(n_in, n_out)}). Lower `r` for it.")
            pairs.append(Pair(index[slot.key], b, slot.n_experts))
    return FrozenBases([slot.shape for slot in own], pairs, config.n_stages)


def initial_values(config: Any, slots: list[Slot]) -> Tensor:
    """Return PEFT's random initialisation of all "init" slots, end to end, drawn from the configuration's seed.

    Kaiming-uniform with a = sqrt(5) or normal with standard deviation 1/r for A, standard normal for an embedding's B:
    the distributions of `LoraLayer.reset_lora_parameters`, but independent of PEFT's version and of the device.
    """
    rng = seeded(config.init_seed, "initialisation")
    parts = []
    for slot in slots:
        values = torch.empty(slot.shape, dtype=torch.float32)  # whatever torch's default is
        if slot.key.endswith(".lora_embedding_B"):
            values.normal_(generator=rng)
        elif config.init_lora_weights == "gaussian":
            values.normal_(std=1 / slot.shape[0], generator=rng)
        else:
            bound = 1 / math.sqrt(math.prod(slot.shape[1:]))
            values.uniform_(-bound, bound, generator=rng)
        parts.append(values.flatten())
    return torch.cat(parts) if parts else torch.empty(0)


def build_bank(config: Any, slots: list[Slot], magnitudes: Mapping[str, Tensor] | None = None) -> Bank:
    """Build the generator of an adapter, and the bank that hands its vector out as `slots`.

    Args:
        config: the adapter's QPAConfig.
        slots: all slots in the generator's order.
        magnitudes: DoRA's initial magnitudes by key; zeros (to be loaded) where absent.
    """
    frozen = []
    generated = generated_slots(config, slots)
    init = [slot for slot in generated if slot.frozen_part == "init"]
    if init and config.is_identity:
        frozen.append(("init", initial_values(config, init), config.save_init))
    dora = [slot for slot in generated if slot.frozen_part == "magnitude"]
    if dora:
        if config.start != "identity":
            # Without an initialisation below A, the magnitudes would lie in the wrong place of the vector.
            frozen.append(("init", torch.zeros(sum(math.prod(slot.shape) for slot in init)), False))
        known = {key: value.detach().float().cpu() for key, value in (magnitudes or {}).items()}
        values = [known[slot.key] if slot.key in known else torch.zeros(slot.shape) for slot in dora]
        frozen.append(("magnitude", torch.cat([value.flatten() for value in values]), True))
    pieces = pieces_of(config, slots)
    spec = config.generator_spec(n_generated(config, slots))
    generator = Generator(spec, frozen, pieces.n_buffer, config.n_stages)
    if not is_deepspeed_zero3_enabled():  # Trainer's checkpoints have all buffers then, and no frozen Parameters
        generator.name_frozen()
    generator.layout = hashlib.sha256(json.dumps(layout_of(slots)).encode()).hexdigest()[:16]
    return Bank(generator, pieces)


def bank_for(generator: Generator, config: Any, slots: list[Slot]) -> Bank:
    """Return a bank of an adapter's slots that reads from another generator than the adapter's own."""
    return Bank(generator, pieces_of(config, slots))


def attach_targets(bank: Bank, targets: list[Target]) -> None:
    """Replace every target's Parameter by a read from the bank."""
    groups: dict[str, list[Place]] = {slot.key: [] for slot in own_slots([target.slot for target in targets])}
    for slot, place, layer in targets:
        if "tied_adapter" in getattr(layer, "kwargs", {}):
            layer.kwargs["tied_adapter"] = {}  # views of Parameters that are about to go; they could not be copied
        groups[slot.tied_to or slot.key].append(place)
    attach(bank, list(groups.values()))


def tensors_of(bank: Bank, slots: list[Slot]) -> dict[str, Tensor]:
    """Return every generated tensor under its name in a plain LoRA checkpoint, as a contiguous CPU copy."""
    values = dict(zip((slot.key for slot in own_slots(slots)), bank.values(), strict=True))
    named = {slot.key: values[slot.tied_to].t() if slot.tied_to else values[slot.key] for slot in slots}
    return {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in named.items()}

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

from qpa_hf.circuit import seeded
from qpa_hf.generator import Bank, Basis, Generator, Pair
from qpa_hf.tuner.layers import Reader, replace_entry, replace_parameters

PREFIX = "base_model.model."


class Slot(NamedTuple):
    """One generated tensor.

    Args:
        key: the tensor's name in a plain LoRA checkpoint.
        shape: its shape.
        tied_to: key of the slot whose transpose it is, for adapters tied to an embedding's; else None.
    """

    key: str
    shape: tuple[int, ...]
    tied_to: str | None = None

    @property
    def frozen_part(self) -> str | None:
        """Name of the frozen numbers below the generated ones: "init" (random), "magnitude" (DoRA), or None (zero)."""
        if ".lora_magnitude_vector" in self.key:
            return "magnitude"
        return "init" if self.key.endswith((".lora_A.weight", ".lora_embedding_B")) else None


class Target(NamedTuple):
    """A Parameter that PEFT made and the generator replaces."""

    slot: Slot
    parameter: nn.Parameter
    layer: LoraLayer
    container: str  # attribute of the layer: lora_A, lora_embedding_B, ...
    name: str  # the Parameter's name within its module; empty for an entry of a ParameterDict


def _parameters(model: nn.Module, adapter_name: str) -> Iterator[tuple[str, nn.Parameter, LoraLayer, str, str]]:
    for module_name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        for container in dict.fromkeys(layer.adapter_layer_names):  # PEFT's DoRA names its container twice
            entries = getattr(layer, container, {})
            if adapter_name not in entries:
                continue
            key = f"{PREFIX}{module_name}.{container}"
            if isinstance(entries, nn.ParameterDict):
                yield key, entries[adapter_name], layer, container, ""
            else:
                for name, parameter in entries[adapter_name].named_parameters():
                    suffix = "" if container == "lora_magnitude_vector" else f".{name}"
                    yield key + suffix, parameter, layer, container, name


def collect(model: nn.Module, adapter_name: str) -> list[Target]:
    """Return the adapter's Parameters in the generator's order: those with a frozen part below them come first."""
    targets: list[Target] = []
    owners: dict[int, str] = {}  # by storage: meta tensors have no address to compare
    for key, parameter, layer, container, name in _parameters(model, adapter_name):
        owner = owners.setdefault(parameter.untyped_storage()._cdata, key)
        slot = Slot(key, tuple(parameter.shape), None if owner == key else owner)
        targets.append(Target(slot, parameter, layer, container, name))
    order = {"init": 0, "magnitude": 1, None: 2}
    return sorted(targets, key=lambda target: order[target.slot.frozen_part])


def layout_of(slots: list[Slot]) -> list[list[Any]]:
    """Return the slots as plain lists, as they are written to `adapter_config.json`."""
    return [[slot.key, list(slot.shape), slot.tied_to] for slot in slots]


def slots_of(layout: list[list[Any]]) -> list[Slot]:
    """Return the slots that `layout_of` wrote."""
    return [Slot(key, tuple(shape), tied_to) for key, shape, tied_to in layout]


def target_names(slots: list[Slot]) -> set[str]:
    """Return the names of all adapted modules."""
    return {slot.key.removeprefix(PREFIX).rpartition(".lora_")[0] for slot in slots}


def own_slots(slots: list[Slot]) -> list[Slot]:
    """Return the slots that have numbers of their own."""
    return [slot for slot in slots if slot.tied_to is None]


def generated_slots(config: Any, slots: list[Slot]) -> list[Slot]:
    """Return what the generator's vector holds: the slots, or square cores for those on frozen bases."""
    own = own_slots(slots)
    if config.basis == "kaiming":
        return own
    return [
        slot if slot.frozen_part == "magnitude" else slot._replace(shape=(slot.shape[1] // config.n_stages,) * 2)
        for slot in own
        if slot.frozen_part != "init"
    ]


def n_generated(config: Any, slots: list[Slot]) -> int:
    """Return how many numbers the generator must produce."""
    return sum(math.prod(slot.shape) for slot in generated_slots(config, slots))


def basis_of(config: Any, slots: list[Slot]) -> Basis | None:
    """Return how the slots stand on frozen bases, or None if they do not.

    Raises:
        ValueError: if one of them is no factor of a linear layer's, or has more rows than the layer.
    """
    if config.basis == "kaiming":
        return None
    own = own_slots(slots)
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
            (rank, n_in), n_out = slot.shape, own[b].shape[0]
            if rank > min(n_in, n_out):
                raise ValueError(f"Rank {rank} is more than {name} has ({min(n_in, n_out)}). Lower `r` for it.")
            pairs.append(Pair(index[slot.key], b))
    return Basis([slot.shape for slot in own], pairs, config.n_stages)


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
    """Build the generator of an adapter and cut its vector into `slots`.

    Args:
        config: the adapter's QPAConfig.
        slots: all slots in the generator's order.
        magnitudes: DoRA's initial magnitudes by key; zeros (to be loaded) where absent.
    """
    frozen = []
    generated = generated_slots(config, slots)
    init = [slot for slot in generated if slot.frozen_part == "init"]
    if init and config.start == "identity":
        frozen.append(("init", initial_values(config, init), config.save_init))
    dora = [slot for slot in generated if slot.frozen_part == "magnitude"]
    if dora:
        if config.start != "identity":
            # Without an initialisation below A, the magnitudes would lie in the wrong place of the vector.
            frozen.append(("init", torch.zeros(sum(math.prod(slot.shape) for slot in init)), False))
        known = magnitudes or {}
        values = [known.get(slot.key, torch.zeros(slot.shape)).detach().float().cpu().flatten() for slot in dora]
        frozen.append(("magnitude", torch.cat(values), True))
    basis = basis_of(config, slots)
    spec = config.generator_spec(n_generated(config, slots))
    generator = Generator(spec, frozen, basis.n_buffer if basis else 0, config.n_stages)
    generator.layout = hashlib.sha256(json.dumps(layout_of(slots)).encode()).hexdigest()[:16]
    return cut(generator, config, slots)


def cut(generator: Generator, config: Any, slots: list[Slot]) -> Bank:
    """Cut the vector of an adapter's generator into the adapter's slots."""
    return Bank(generator, [slot.shape for slot in own_slots(slots)], basis_of(config, slots))


def attach(bank: Bank, targets: list[Target], adapter_name: str) -> None:
    """Replace every target's Parameter by a read from the bank."""
    index = {slot.key: i for i, slot in enumerate(own_slots([target.slot for target in targets]))}
    modules: dict[int, tuple[nn.Module, dict[str, Reader]]] = {}
    for slot, _, layer, container, name in targets:
        if "tied_adapter" in getattr(layer, "kwargs", {}):
            layer.kwargs["tied_adapter"] = {}  # views of Parameters that are about to go; they could not be copied
        reader = Reader(bank, index[slot.tied_to or slot.key], slot.tied_to is not None, layer.get_base_layer())
        entries = getattr(layer, container)
        if not name:
            replace_entry(entries, adapter_name, reader)
            continue
        module = entries[adapter_name]
        modules.setdefault(id(module), (module, {}))[1][name] = reader
    for module, readers in modules.values():
        replace_parameters(module, readers)


def tensors_of(bank: Bank, slots: list[Slot]) -> dict[str, Tensor]:
    """Return every generated tensor under its name in a plain LoRA checkpoint, as a contiguous CPU copy."""
    values = dict(zip((slot.key for slot in own_slots(slots)), bank.values(), strict=True))
    named = {slot.key: values[slot.tied_to].t() if slot.tied_to else values[slot.key] for slot in slots}
    return {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in named.items()}

"""`generate`: the chosen Parameters of any module become the values of one generator."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from peft import PeftModel
from torch import Tensor, nn

from qpa_hf.checkpoint import Header
from qpa_hf.generator import (
    Bank,
    Generator,
    GeneratorSettings,
    GeneratorSpec,
    Pieces,
    ScaledPieces,
    settings_in,
)
from qpa_hf.networks.peft_model import GeneratedPeftModel
from qpa_hf.networks.refusals import active_adapter
from qpa_hf.networks.selection import select
from qpa_hf.reading import Attachment, ModelRoot, Place, install
from qpa_hf.tuners.qpa.saved import check_numbers
from qpa_hf.tuners.qpa.waste import warn_if_wasteful

Module = TypeVar("Module", bound=nn.Module)

SETTINGS = sorted(settings_in(GeneratorSettings))
DEFAULT_SCALE = 0.02  # of constant tensors where no other tensor's spread tells one: GPT-2's initialisation


def generate(module: Module, names: str | Sequence[str] | None = None, **settings: Any) -> Module:
    """Let one generator produce the chosen Parameters of a module, and train the generator in their place.

    The Parameters are laid end to end and generated together, as a `QPAConfig`'s LoRA tensors are. Everything reads
    them where they were, in their own dtype and on their own device; tied ones stay tied. The state dict has the
    generator's numbers instead of theirs. `materialize(module)` puts plain Parameters with the same values back.

    With `start="identity"` (the default) every value is the initial one, kept in float32, plus a generated part that
    starts at zero, so that nothing changes at step 0. With `start="authors"` the values are the generated ones, the
    form of Quantum-Train (https://arxiv.org/abs/2405.11304; its generation of one value at a time is `chunk_size=1`):
    the vector's mean is removed, and each tensor's part gets the standard deviation and the mean of its initial
    values, which are those of its initialiser. Constant tensors (biases, norms) get the others' mean standard
    deviation around their constant.

    A Parameter that is tied to one outside of `module` is untied from that. An embedding's padding row is generated as
    its other rows are, and does not stay zero.

    Args:
        module: changed in place. Of a PEFT model, the method's tensors are generated, whatever the method;
            `modules_to_save` and the heads of classifiers are trained as they are, unless named.
        names: names of Parameters, or of modules, which stand for all that they have; None for everything trainable.
        settings: the generator's, with the names, defaults and checks of `QPAConfig`: `chunk_size`, `n_circuits`,
            `circuit_depth`, `ansatz`, `features`, `mapping_widths`, `source`, `shots`, ... With `save_init=False` the
            initial values are not in the state dict; it then loads only into a module that starts with the same.

    Returns:
        The module.

    Raises:
        ValueError: if a name matches nothing, the module is generated already, a Parameter cannot be generated or a
            setting has a value that cannot be.
        TypeError: if a Parameter is no float tensor, or a setting is not known.

    Example:
        >>> model = generate(nn.Linear(100, 10), chunk_size=64, n_circuits=2, circuit_depth=4)
        >>> sum(p.numel() for p in model.parameters()), model.weight.shape
        (224, torch.Size([10, 100]))
    """
    for name in settings:
        if name not in SETTINGS:
            near = difflib.get_close_matches(name, SETTINGS, 1)
            hint = f"Did you mean `{near[0]}`?" if near else f"Use those of {', '.join(SETTINGS)}."
            raise TypeError(f"`generate` has no setting `{name}`. {hint}")
    bank = attach_generator(module, names, settings)
    warn_if_wasteful(GeneratorSettings(**settings), bank.generator.spec)
    return module


def attach_generator(module: nn.Module, names: str | Sequence[str] | None, settings: dict[str, Any]) -> Bank:
    """Replace the chosen Parameters by reads from a new bank, and return that."""
    checked = GeneratorSettings(**settings)
    adapter_name = active_adapter(module) if isinstance(module, PeftModel) else None
    places = select(module, names)
    if adapter_name is not None:
        _check_trained(places)
    bank = _bank(checked, places)
    root_class = ModelRoot if adapter_name is None else GeneratedPeftModel
    resolved = {name: getattr(checked, name) for name in SETTINGS}
    install(Attachment(module, resolved, bank, places, root_class, adapter_name))
    return bank


def _check_trained(places: list[list[Place]]) -> None:
    for group in places:
        if not group[0].parameter.requires_grad:
            raise ValueError(
                f"{group[0].name} is not trained by the adapter, and its checkpoint would not hold it. Name only what "
                "the adapter trains, or generate parts of the base model without an adapter."
            )


def _bank(settings: GeneratorSettings, places: list[list[Place]]) -> Bank:
    parameters = [group[0].parameter.detach() for group in places]
    spec = GeneratorSpec.of(settings, sum(p.numel() for p in parameters))
    shapes = [tuple(p.shape) for p in parameters]
    device = parameters[0].device
    if spec.is_identity:
        init = torch.cat([p.to("cpu", torch.float32).flatten() for p in parameters])
        generator = Generator(spec, [("init", init, spec.save_init)])
        if not spec.save_init:
            generator.register_buffer("init_digest", _digest(init))
            generator.register_load_state_dict_post_hook(_check_init)
        return Bank(generator.to(device), Pieces(shapes))
    generator = Generator(spec)
    spreads = torch.stack([p.to("cpu", torch.float32).std(correction=0) for p in parameters])
    usual = spreads[spreads > 0].mean() if bool((spreads > 0).any()) else torch.tensor(DEFAULT_SCALE)
    generator.register_buffer("scale", torch.where(spreads > 0, spreads, usual) / _spread(spec))
    generator.register_buffer("shift", torch.stack([p.to("cpu", torch.float32).mean() for p in parameters]))
    return Bank(generator.to(device), ScaledPieces(shapes))


def on_meta(settings: dict[str, Any], layout: list[list[Any]], there: Mapping[str, Header]) -> Generator:
    """Return the generator that `attach_generator` makes for tensors of a layout, without any numbers.

    Args:
        settings: the generator's.
        layout: [name, shape] of each tensor.
        there: kind and shape of each tensor of the checkpoint, which holds all of the generator's numbers.

    Raises:
        ValueError: if it does not.
    """
    spec = GeneratorSpec.of(GeneratorSettings(**settings), sum(math.prod(shape) for _, shape in layout))
    check_numbers(spec, there)
    with torch.device("meta"):
        if not spec.is_identity:
            generator = Generator(spec)
            for name in ("scale", "shift"):
                generator.register_buffer(name, torch.empty(len(layout)))
            return generator
        generator = Generator(spec, [("init", torch.empty(spec.n_values), spec.save_init)])
        if not spec.save_init:
            generator.register_buffer("init_digest", torch.empty(hashlib.sha256().digest_size, dtype=torch.uint8))
        return generator


def _spread(spec: GeneratorSpec) -> float:
    """Return the standard deviation of a vector at its start, without a measurement: a device's would cost a job."""
    ideal: dict[str, Any] = {"backend": "exact", "shots": None, "gradient": "exact", "noise": None, "device": None}
    with torch.no_grad():
        (vector,) = Generator(dataclasses.replace(spec, **ideal, interpolation="none"))()
    return float(vector.std(correction=0)) or 1.0  # one value alone is its own mean


def _digest(init: Tensor) -> Tensor:
    return torch.frombuffer(bytearray(hashlib.sha256(init.cpu().numpy().tobytes()).digest()), dtype=torch.uint8)


def _check_init(generator: nn.Module, keys: Any) -> None:
    """Compare the initial values of a saved generator with those of the module that it was loaded into."""
    if not torch.equal(generator.get_buffer("init_digest").cpu(), _digest(generator.get_buffer("init"))):
        raise RuntimeError(
            "The generator was trained on other initial values than this module's, and `save_init`=False did not save "
            "them. Make the module with the same weights and the same seed as then."
        )

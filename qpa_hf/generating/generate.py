"""`generate`: the chosen Parameters of any module become the values of one generator."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

import torch
from peft import LoraConfig, PeftModel
from torch import nn

from qpa_hf.generating.generation import Generation, install
from qpa_hf.generating.native import GeneratedPeftModel
from qpa_hf.generating.refusals import active_adapter
from qpa_hf.generating.selection import Place, select
from qpa_hf.generator import Bank, Generator
from qpa_hf.tuner.config import QPAConfig
from qpa_hf.tuner.layers import Whole
from qpa_hf.tuner.model import warn_if_wasteful

Module = TypeVar("Module", bound=nn.Module)

SETTINGS = sorted({f.name for f in fields(QPAConfig)} - {f.name for f in fields(LoraConfig)} - {"basis", "layout"})
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

    Args:
        module: changed in place. Of a PEFT model, the method's tensors are generated, whatever the method;
            `modules_to_save` and the heads of classifiers are trained as they are, unless named.
        names: names of Parameters, or of modules, which stand for all that they have; None for everything trainable.
        settings: the generator's, with the names, defaults and checks of `QPAConfig`: `chunk_size`, `n_circuits`,
            `circuit_depth`, `ansatz`, `features`, `mapping_widths`, `source`, `shots`, ... With `save_init=False` the
            initial values are not in the state dict; it then fits only a module that starts with the same.

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
    warn_if_wasteful(QPAConfig(**settings), put_in(module, names, settings))
    return module


def put_in(module: nn.Module, names: str | Sequence[str] | None, settings: dict[str, Any]) -> Bank:
    """Replace the chosen Parameters by reads from a new bank, and return that."""
    config = QPAConfig(**settings)
    adapter_name = active_adapter(module) if isinstance(module, PeftModel) else None
    places = select(module, names)
    bank = _bank(config, places)
    whole = Whole if adapter_name is None else GeneratedPeftModel
    install(Generation(module, settings, bank, places, whole, adapter_name))
    return bank


def _bank(config: QPAConfig, places: list[list[Place]]) -> Bank:
    parameters = [group[0].parameter.detach() for group in places]
    spec = config.generator_spec(sum(p.numel() for p in parameters))
    shapes = [tuple(p.shape) for p in parameters]
    device = parameters[0].device
    if config.start == "identity":
        init = torch.cat([p.to("cpu", torch.float32).flatten() for p in parameters])
        return Bank(Generator(spec, [("init", init, config.save_init)]).to(device), shapes)
    generator = Generator(spec)
    with torch.no_grad():
        unit = generator()[0].std(correction=0)
    spreads = torch.stack([p.to("cpu", torch.float32).std(correction=0) for p in parameters])
    usual = spreads[spreads > 0].mean() if bool((spreads > 0).any()) else torch.tensor(DEFAULT_SCALE)
    generator.register_buffer("scale", torch.where(spreads > 0, spreads, usual) / unit)
    generator.register_buffer("shift", torch.stack([p.to("cpu", torch.float32).mean() for p in parameters]))
    return Bank(generator.to(device), shapes, is_scaled=True)

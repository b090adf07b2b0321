"""Whether the weights beside a saved configuration are those of its generator."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.utils import CONFIG_NAME

from qpa_hf.checkpoint import GENERATOR_PREFIX, Header, check_tensors, check_written, tensors_in
from qpa_hf.generator import Generator, GeneratorSpec
from qpa_hf.generator.numbers import DRAWN
from qpa_hf.messages import one_line, shown
from qpa_hf.schema import check_sizes, naming
from qpa_hf.tuners.qpa.slots import Slot, build_bank, n_generated, slots_of


def check_saved(config: Any, folder: str | os.PathLike[str]) -> None:
    """Compare a generator's weights with its configuration by their names, kinds and shapes; nothing is made of them.

    Args:
        config: the adapter's QPAConfig.
        folder: that it was read from; without weights in it nothing is said.

    Raises:
        ValueError: naming what does not fit.
    """
    there = tensors_in(folder)
    if not there:
        return
    path = Path(folder) / CONFIG_NAME
    if not config.layout:
        raise ValueError(f"{path} has no `layout`, so it was not written by a trained model. Save it again.")
    with naming(path):
        check_sizes(config, [shape for _, shape, *_ in config.layout])
        slots = slots_of(config.layout)
        check_numbers(config.generator_spec(n_generated(config, slots)), there)
        generator = _without_numbers(config, slots)
    check_generator(folder, there, generator, GENERATOR_PREFIX)


def _without_numbers(config: Any, slots: list[Slot]) -> Generator:
    """Return the generator of a configuration on the meta device."""
    plain = copy.copy(config)
    if plain.backend == "torchquantum":  # which has the same tensors, and need not be installed
        plain.backend = "exact"
    with torch.device("meta"):
        return build_bank(plain, slots).generator


def check_generator_written(config: Any, folder: str | os.PathLike[str]) -> None:
    """Raise if weights that were just written lack a part of the generator.

    Args:
        config: the adapter's QPAConfig.
        folder: the folder of the weights, in either of PEFT's formats; without weights in it nothing is said.

    Raises:
        ValueError: naming the first number that is missing.
    """
    check_written(Path(folder), _without_numbers(config, slots_of(config.layout)).saved_tensors())


def check_fit(config: Any, slots: list[Slot]) -> None:
    """Compare what a loaded checkpoint generates with what this base model needs.

    Raises:
        ValueError: naming the first tensor that differs.
    """
    if not config.is_loaded:
        return
    saved = {key: tuple(shape) for key, shape, *_ in config.layout}
    needed = {slot.key: slot.shape for slot in slots}
    for key in sorted(saved.keys() | needed.keys()):
        if saved.get(key) != needed.get(key):
            raise ValueError(
                f"The checkpoint does not fit this base model: {one_line(key)} is {saved.get(key, 'absent')} in the "
                f"checkpoint and {needed.get(key, 'absent')} here. Load it onto the base model it was trained on "
                f"({one_line(config.base_model_name_or_path)})."
            )


def check_numbers(spec: GeneratorSpec, there: Mapping[str, Header]) -> None:
    """Refuse a generator with more numbers than a checkpoint, which holds all of them.

    Raises:
        ValueError: with both counts.
    """
    n_there = sum(math.prod(shape) for _, shape in there.values())
    if spec.n_saved > n_there:
        raise ValueError(
            f"its generator has {shown(spec.n_saved)} numbers, and the weights beside it have {n_there}. Save or "
            "download both again."
        )


def check_generator(
    folder: str | os.PathLike[str],
    there: Mapping[str, Header],
    generator: Generator,
    prefix: str,
    may_lack: bool = False,
) -> None:
    """Compare the tensors of a checkpoint below a prefix with those of a generator on the meta device.

    Args:
        folder: the checkpoint.
        there: kind and shape of each of its tensors.
        generator: made from its configuration.
        prefix: of the generator's tensors.
        may_lack: whether tensors that are missing are left to the reader.

    Raises:
        ValueError: naming the first that does not fit.
    """
    own = {name.removeprefix(prefix): found for name, found in there.items() if name.startswith(prefix)}
    own = {name: found for name, found in own.items() if "." not in name}  # peft 0.18 saves other adapters' beside it
    own.pop("_extra_state", None)  # the settings, as a text of any length, which older checkpoints lack
    expected = generator.saved_tensors()
    check_tensors(folder, own, expected, optional=expected if may_lack else DRAWN)

"""Generators that are no smaller than what they generate."""

from __future__ import annotations

import warnings
from typing import Any

from qpa_hf.generator import GeneratorSpec


def warn_if_wasteful(config: Any, spec: GeneratorSpec) -> None:
    """Warn where a generator has as many numbers as it generates.

    Args:
        config: the QPAConfig that asks for the generator.
        spec: the generator's sizes.
    """
    if not spec.inputs.has_mapping:
        return
    if config.chunk_size > spec.n_values:
        warnings.warn(
            f"`chunk_size`={config.chunk_size} is more than the {spec.n_values} numbers to generate, so there is one "
            f"chunk and the generator ({spec.n_trainable} numbers) is larger than what it generates. Choose a smaller "
            "`chunk_size`; `qpa_hf.plan` shows several side by side.",
            stacklevel=2,
        )
    elif spec.n_trainable >= spec.n_values:
        warnings.warn(
            f"The generator has {spec.n_trainable} trainable numbers and generates {spec.n_values}. Choose "
            "another `chunk_size`; `qpa_hf.plan` shows several side by side.",
            stacklevel=2,
        )

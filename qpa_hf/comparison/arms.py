"""The arms of `qpa compare`: configurations for a run's settings and a seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import peft
from peft import PeftConfig
from transformers import AutoConfig

from qpa_hf.training.checks import check_names
from qpa_hf.training.settings import RunSettings
from qpa_hf.tuners.qpa import QPAConfig

QPA = "QPA"
ON_GRADIENTS = "QPA, gradient bases"
OWN = (QPA, ON_GRADIENTS)  # whose differences to other arms are reported
SHARED = (
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "fan_in_fan_out",
    "bias",
    "modules_to_save",
    "task_type",
)


# The arms differ in their method, and in nothing else that a run's adapter says: where it stands, and what is trained
# beside it.
def _shared(settings: RunSettings) -> dict[str, Any]:
    given = settings.adapter_fields()
    return {name: given[name] for name in SHARED if name in given}


def _lora(r: int, **more: Any) -> Callable[[RunSettings, int], PeftConfig]:
    return lambda settings, _: peft.LoraConfig(r=r, lora_alpha=2 * r, **_shared(settings), **more)


def _qpa(**changes: Any) -> Callable[[RunSettings, int], PeftConfig]:
    def config(settings: RunSettings, seed: int) -> PeftConfig:
        adapter = settings.adapter | changes | {"init_seed": seed}
        return replace(settings, adapter=adapter).adapter_config()

    return config


def _qpa_on_gradients(**changes: Any) -> Callable[[RunSettings, int], PeftConfig]:
    """QPA on gradient bases with its own defaults, whatever the run's adapter is."""
    fixed: dict[str, Any] = {"basis": "gradient", "r": 20} | changes
    return lambda settings, seed: QPAConfig(**_shared(settings), **fixed, init_seed=seed)


def _method(name: str, **fields: Any) -> Callable[[RunSettings, int], PeftConfig]:
    """A method of PEFT; a version of PEFT without it leaves the arm out."""
    return lambda settings, _: getattr(peft, name)(**_shared(settings), **fields)


def _vb_lora(settings: RunSettings, _: int) -> PeftConfig:
    width = AutoConfig.from_pretrained(settings.model).hidden_size
    return peft.VBLoRAConfig(r=4, num_vectors=64, vector_length=math.gcd(width, 256), **_shared(settings))


# Sizes are the methods' own small ones; the table and the picture say how many trainable parameters they come to.
ARMS: dict[str, Callable[[RunSettings, int], PeftConfig]] = {
    "LoRA r=1": _lora(1),
    "LoRA r=2": _lora(2),
    "LoRA r=8": _lora(8),
    "DoRA r=1": _lora(1, use_dora=True),
    QPA: _qpa(),
    "QPA, random numbers": _qpa(source="random"),
    "QPA, basis bits": _qpa(source="bits"),
    "QPA, frozen angles": _qpa(train_circuit=False),
    ON_GRADIENTS: _qpa_on_gradients(),
    f"{ON_GRADIENTS}, random numbers": _qpa_on_gradients(source="random"),
    f"{ON_GRADIENTS}, cores trained directly": _qpa_on_gradients(source="direct"),
    "VeRA": _method("VeraConfig", r=64),
    "VB-LoRA": _vb_lora,
    "FourierFT": _method("FourierFTConfig", n_frequency=100),
    "Uni-LoRA": _method("UniLoraConfig", theta_d_length=1024),
    "TinyLoRA": _method("TinyLoraConfig"),
    "OFT": _method("OFTConfig", oft_block_size=32, block_share=True, use_cayley_neumann=True),
}


def named_arms(names: Iterable[str]) -> list[str]:
    """Return the arms that are meant by names in small or capital letters, each once.

    Raises:
        ValueError: for a name that no arm has.

    Example:
        >>> named_arms(["vera", "lora R=1", "VeRA"])
        ['VeRA', 'LoRA r=1']
    """
    by_lower = {arm.lower(): arm for arm in ARMS}
    arms = list(dict.fromkeys(by_lower.get(name.lower(), name) for name in names))
    check_names(arms, ARMS, "A comparison", "arm")
    return arms

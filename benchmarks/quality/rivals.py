"""PEFT's methods that train few numbers, each at the sizes that fall among those of the bench."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import peft
from peft import PeftConfig

from benchmarks.harness.study import Arm
from benchmarks.quality.task import Targets

# Methods of peft 0.21 that have no arm, and why.
WITHOUT_ARM = {
    "AdaLoRA": "it starts with more numbers than it keeps, and its schedule needs a training loop of its own",
    "aLoRA": "it acts only after an invocation text",
    "Arrow, X-LoRA, Poly": "they choose among adapters",
    "Cartridge, CPT, prompt, prefix and P-tuning, multitask prompts, Llama-Adapter, trainable tokens": (
        "they adapt no linear layer"
    ),
    "KaSA": "it changes the base's weights, and its loss has terms of its own",
    "OSF": "it trains most of each matrix: 885,888 numbers for query and value of three layers of MiniLM",
    "PiSSA, OLoRA, CorDA, EVA, LoRA-GA, LoftQ, VeLoRA, MonteCLoRA": "LoRA started or trained otherwise, not smaller",
    "BD-LoRA": "LoRA in diagonal blocks, for serving on several devices",
    "Shadow": "it trains a second, smaller model beside the base",
}


def _rival(name: str, seed_field: str | None = None, **fields: Any) -> Arm:
    """Name the method's own seed where it does not draw from torch's; a version of peft without it fails the arm."""

    def config(targets: Targets, seed: int) -> PeftConfig:
        if not hasattr(peft, name):
            raise ValueError(f"peft {peft.__version__} has no {name}.")
        own = {seed_field: seed} if seed_field else {}
        made = {key: value(targets) if callable(value) else value for key, value in fields.items()}
        return getattr(peft, name)(target_modules=targets.modules, task_type=targets.task_type, **own, **made)

    return Arm("PEFT", config)


def _lora(r: int, **more: Any) -> Arm:
    return _rival("LoraConfig", r=r, lora_alpha=2 * r, **more)


def _divisor(most: int) -> Any:
    """The largest length that divides all sides of all targets, at most `most`."""
    return lambda targets: math.gcd(*(side for shape in targets.shapes for side in shape), most)


def _each(n: int) -> Any:
    """Each target's share of `n` numbers."""
    return lambda targets: n // len(targets.shapes)


def core_side(n: int) -> Any:
    """The side of a square core, so that those of all targets have `n` numbers."""
    return lambda targets: math.isqrt(n // len(targets.shapes))


def _tiny_lora(n: int) -> Arm:
    """As many numbers as the core has, which then is any matrix; with fewer there would be no use for its size."""
    return _rival("TinyLoraConfig", "projection_seed", r=core_side(n), u=lambda targets: core_side(n)(targets) ** 2)


def _psoft(n: int) -> Arm:
    """An orthogonal core of side r has r (r - 1) / 2 numbers."""
    return _rival("PsoftConfig", "random_seed", r=core_side(2 * n), psoft_alpha=core_side(2 * n))


def _ln_tuning(targets: Targets, _: int) -> PeftConfig:
    if not targets.norms:
        raise ValueError("LN tuning: there is no normalisation among the targets.")
    return peft.LNTuningConfig(target_modules=targets.norms, task_type=targets.task_type)


def _ia3(targets: Targets, _: int) -> PeftConfig:
    own = {"target_modules": targets.modules, "feedforward_modules": targets.feedforward}
    return peft.IA3Config(task_type=targets.task_type, **own)


def hashing(r: int, n: int, control_of: str) -> Arm:
    """LoRA whose numbers are `n` trained ones, each reused at random places: Uni-LoRA, as a control."""
    return dataclasses.replace(
        _rival("UniLoraConfig", "proj_seed", r=r, theta_d_length=n), family="control", control_of=control_of
    )


RIVALS: dict[str, Arm] = {
    **{f"LoRA r={r}": _lora(r) for r in (1, 2, 4, 8)},
    "MiCA r=1": _lora(1, init_lora_weights="mica"),
    "DoRA r=1": _lora(1, use_dora=True),
    **{f"VeRA r={r}": _rival("VeraConfig", "projection_prng_key", r=r) for r in (64, 256)},
    "PVeRA r=64": _rival("PveraConfig", "projection_prng_key", r=64),
    **{
        f"VB-LoRA r={r}": _rival("VBLoRAConfig", r=r, num_vectors=16, vector_length=_divisor(64), topk=2)
        for r in (1, 4)
    },
    **{f"Uni-LoRA {n:,}": _rival("UniLoraConfig", "proj_seed", theta_d_length=n) for n in (512, 1152, 4096, 16384)},
    **{f"TinyLoRA {n:,}": _tiny_lora(n) for n in (600, 4000)},
    **{
        f"FourierFT {n:,}": _rival("FourierFTConfig", "random_loc_seed", n_frequency=_each(n), scaling=100.0)
        for n in (1000, 6000)
    },
    **{f"WaveFT {n:,}": _rival("WaveFTConfig", "random_loc_seed", n_frequency=_each(n)) for n in (1000, 6000)},
    "C3A": _rival("C3AConfig", block_size=_divisor(2**20), init_weights=True),
    "RandLoRA r=64": _rival("RandLoraConfig", "projection_prng_key", r=64, randlora_alpha=64 * 20),
    "LoHa r=1": _rival("LoHaConfig", r=1, alpha=1),
    **{f"LoKr r={r}": _rival("LoKrConfig", r=r, alpha=r, decompose_both=True) for r in (1, 4)},
    "IA3": Arm("PEFT", _ia3),
    "LN tuning": Arm("PEFT", _ln_tuning),
    "BEFT": _rival("BeftConfig"),
    "RoAd 1": _rival("RoadConfig", variant="road_1", group_size=_divisor(64)),
    "MiSS mini": _rival("MissConfig", r=16, mini_r=16, init_weights="mini"),
    "AdaMSS": _rival("AdamssConfig", r=20, num_subspaces=5, subspace_rank=1),
    "DEFT r=1": _rival("DeftConfig", r=1),
    "FRoD": _rival("FrodConfig", "projection_prng_key", progressbar=False),
    "DeLoRA r=1": _rival("DeloraConfig", r=1),
    "SHiRA r=1": _rival("ShiraConfig", "random_seed", r=1),
    "Super-Tuning": _rival("SupertuningConfig", sparsity=0.999),
    "HRA r=2": _rival("HRAConfig", r=2),
    "OFT, shared": _rival("OFTConfig", oft_block_size=_divisor(32), block_share=True, use_cayley_neumann=True),
    "BOFT": _rival("BOFTConfig", boft_block_size=4, boft_n_butterfly_factor=1),
    **{f"PSOFT {n:,}": _psoft(n) for n in (800, 4000)},
    "HiRA r=1": _rival("HiraConfig", r=1),
    "GraLoRA r=2": _rival("GraloraConfig", r=2, gralora_k=2, alpha=4),
    "Lily r=1": _rival("LilyConfig", r=1),
    "PEANuT r=1": _rival("PeanutConfig", r=1),
    "GLoRA r=1": _rival("GloraConfig", r=1),
}

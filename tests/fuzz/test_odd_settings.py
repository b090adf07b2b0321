"""Thousands of configurations that nobody meant: each is taken, or refused in one sentence."""

import copy
import random
from collections import Counter

import pytest
from bounds import outcome, small_memory
from models import build
from peft import get_peft_model

from benchmarks.mutations import ODD
from benchmarks.odd_settings import settings
from qpa_hf import QPAConfig
from qpa_hf.heads import HeadSettings
from qpa_hf.training import read_settings
from qpa_hf.tuners.bottleneck import BottleneckConfig

N_CASES = 2000
MOST_NUMBERS = 10**6  # of a generator that is built


def made(base, chosen):
    """Make a configuration, and the adapter if it is no larger than its user can have meant."""
    config = QPAConfig(**{"target_modules": ["c_attn"], "r": 2} | chosen)
    if config.generator_spec(400).n_trainable < MOST_NUMBERS:
        get_peft_model(copy.deepcopy(base), config)


def test_odd_configurations_are_taken_or_refused_in_one_sentence():
    base, rng, found = build("gpt2"), random.Random(0), Counter()
    with small_memory():
        for _ in range(N_CASES):
            chosen = settings(rng)
            if wrong := outcome(lambda chosen=chosen: made(base, chosen))[1]:
                found[f"{ {name: repr(value)[:80] for name, value in chosen.items()} }: {wrong}"] += 1
    assert not found, "\n".join(map(str, found.most_common()))


TRAINING = ("save_steps", "learning_rate", "max_steps", "warmup_steps", "optim", "seed", "lr_scheduler_kwargs", "bf16")
KINDS = {
    "adapter": lambda name, value: QPAConfig(**{name: value}),
    "bottleneck": lambda name, value: BottleneckConfig(**{name: value}),
    "head": lambda name, value: HeadSettings(**{"n_features": 12} | {name: value}),
    "training": lambda name, value: read_settings(model="a", data={"train": ["b"]}, training={name: value}),
    "data": lambda name, value: read_settings(model="a", data={"train": ["b"]} | {name: value}),
    "override": lambda name, value: read_settings(
        model="a", data={"train": ["b"]}, overrides=[f"training.{name}={value}"]
    ),
}
NAMES = {
    "adapter": sorted(QPAConfig.__dataclass_fields__),
    "bottleneck": sorted(BottleneckConfig.__dataclass_fields__),
    "head": sorted(HeadSettings.__dataclass_fields__),
    "training": TRAINING,
    "data": ("train", "validation", "dataset", "text_column", "block_length"),
    "override": TRAINING,
}
WRITTEN = (
    "1e400",
    "[",
    "!!bool x",
    "&a [*a]",
    "a: 1",
    "{a: 1, a: 2}",
    "[" * 400,
    "1" * 5000,
    "2020-99-99",
    ".nan",
    "?",
)


@pytest.mark.parametrize("kind", KINDS)
def test_each_field_with_each_odd_value(kind):
    values = WRITTEN if kind == "override" else ODD
    cases = [(name, value) for name in NAMES[kind] for value in values]
    found = {f"{name}={value!r:.80}": outcome(lambda c=(name, value): KINDS[kind](*c))[1] for name, value in cases}
    assert not {case: wrong for case, wrong in found.items() if wrong}

"""Settings of a `QPAConfig` that nobody meant, beside some that are right."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from benchmarks.mutations import ODD

# Fields with values of which some are right, so that most of a configuration is.
FIELDS: dict[str, Sequence[Any]] = {
    "r": (1, 2, 4, 0, -1, 10**7, 2**62),
    "lora_alpha": (1, 8.5, 0, 10**400, "8"),
    "lora_dropout": (0, 0.5, 1, -1, 1e308),
    "target_modules": (["c_attn"], "c_attn", "all-linear", "(", ["("], ".*attn", ["nothing"], []),
    "exclude_modules": (["c_proj"], "(", ".*", 5),
    "rank_pattern": ({}, {"c_attn": 2}, {"(": 2}, {"c_attn": 10**7}, {5: 4}, {"c_attn": 0}),
    "alpha_pattern": ({}, {"c_attn": 2}, {"(": 2}, {"c_attn": 10**400}),
    "modules_to_save": (["lm_head"], [], "lm_head", [5]),
    "layers_to_transform": ([0], 0, [10**9], "0", [-1]),
    "layers_pattern": ("h", ["h"], "(", 5),
    "use_rslora": (True, False, 1),
    "use_dora": (True, False, "yes"),
    "fan_in_fan_out": (True, False, None),
    "bias": ("none", "all", "some", ["none"]),
    "init_lora_weights": (True, "gaussian", "pissa", 5, []),
    "task_type": ("CAUSAL_LM", "SEQ_CLS", "OTHER", 5),
    "inference_mode": (True, False, 2),
    "trainable_token_indices": ([0, 1], {"wte": [0]}, {}, "0", [10**9]),
    "target_parameters": (None, [], ["weight"], "weight"),
    "megatron_config": (None, {}, {"a": 1}, 5),
    "loftq_config": ({}, {"loftq_bits": 4}, 5),
    "monteclora_config": (None, {}, {"a": 1}, 5),
    "layer_replication": (None, [[0, 1]], 5),
    "chunk_size": (1, 8, 64, 0, 10**12, 2**63, 2.5),
    "n_circuits": (1, 2, 0, 10**9, True),
    "circuit_depth": (1, 3, 0, 10**9, "3"),
    "ansatz": ("ry_cnot", "rx_cnot", "rx_rz_cnot", "x", []),
    "features": ("standardized", "authors", "probability", "x", {}),
    "use_basis_bits": (True, False, 0),
    "mapping_widths": ((), (4,), [4, 4], (0,), (10**9,), "4", (2.5,)),
    "activation": ("none", "relu", "x", None),
    "start": ("identity", "authors", "x"),
    "source": ("circuit", "random", "free", "bits", "direct", "x"),
    "basis": ("kaiming", "gradient", "x"),
    "n_stages": (1, 2, 0, 3, 10**9),
    "train_circuit": (True, False, "no"),
    "backend": ("exact", "torchquantum", "x"),
    "shots": (None, 100, "20x", "0x", "x", -1, 10**400, "9" * 5000 + "x"),
    "gradient": (None, "exact", "spsa", "parameter_shift", "none", "x"),
    "noise": (None, "torino", "x"),
    "interpolation": ("none", "network", "laplace", "x"),
    "init_seed": (0, 7, -1, 2**63, 2.5),
    "save_init": (True, False, None),
    "layout": (None, 5, [], [5], [["a", [1], None]], [["a", [0], None]], [["a", [2.5], None]], [["a", [], None]]),
    "misspelt": (1,),
}  # fmt: skip


def settings(rng: random.Random) -> dict[str, Any]:
    """Return keyword arguments of `QPAConfig`: some fields, each with one of its values or, seldom, any other."""
    names = rng.sample(sorted(FIELDS), rng.randint(1, 6))
    return {name: rng.choice(ODD if rng.random() < 0.2 else FIELDS[name]) for name in names}

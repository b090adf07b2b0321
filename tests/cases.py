"""Adapters of every kind of target and setting, over small models, and the paper's counts."""

from helpers import adapted

PAPER_COUNTS = {256: 47_248, 512: 55_656, 1024: 72_512, 2048: 106_264, 4096: 173_808, 8192: 308_936}  # by chunk size
LM = {"task_type": "CAUSAL_LM"}
GRADIENT = {"basis": "gradient", "chunk_size": 4}
CASES = {
    "lm_head": ("untied", {"target_modules": ["lm_head"], **LM}),
    "tied lm_head": ("gpt2", {"target_modules": ["lm_head"], **LM}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True, **LM}),
    "embedding": ("untied", {"target_modules": ["wte"], **LM}),
    "embedding and linear": ("untied", {"target_modules": ["wte", "c_fc"], "fan_in_fan_out": True, **LM}),
    "tied": ("gpt2", {"target_modules": ["wte", "lm_head"], "ensure_weight_tying": True, **LM}),
    "all-linear": ("llama", {"target_modules": "all-linear", **LM}),
    "regex": ("llama", {"target_modules": r".*layers\.0.*\.(q|v)_proj", **LM}),
    "layers_to_transform": ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [1], **LM}),
    "exclude_modules": ("llama", {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r".*0.*v_proj", **LM}),
    "rank and alpha patterns": (
        "llama",
        {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}, **LM},
    ),
    "dora": ("llama", {"target_modules": ["q_proj", "v_proj"], "use_dora": True, **LM}),
    "dora conv1d": ("gpt2", {"target_modules": ["c_attn"], "use_dora": True, "fan_in_fan_out": True, **LM}),
    "rslora": ("llama", {"target_modules": ["q_proj"], "use_rslora": True, **LM}),
    "lora_bias": ("bert", {"target_modules": ["query"], "lora_bias": True, "task_type": "SEQ_CLS"}),
    "modules_to_save": ("bert", {"target_modules": ["query"], "modules_to_save": ["classifier"]}),
    "encoder-decoder": ("t5", {"target_modules": ["q", "v", "wo"]}),
    "gaussian": ("llama", {"target_modules": ["q_proj"], "init_lora_weights": "gaussian", **LM}),
    "conv2d": ("mlp", {"target_modules": ["conv"]}),
    "mlp": ("mlp", {"target_modules": ["embedding", "conv", "hidden"]}),
    "target_parameters": ("mixture", {"target_modules": [], "target_parameters": ["experts.weights"]}),
    "seed only": ("llama", {"target_modules": ["q_proj"], "save_init": False, **LM}),
    "random control": ("llama", {"target_modules": ["q_proj"], "source": "random", **LM}),
    "bits control": ("llama", {"target_modules": ["q_proj"], "source": "bits", **LM}),
    "frozen circuit": ("llama", {"target_modules": ["q_proj"], "train_circuit": False, **LM}),
    "free control": ("llama", {"target_modules": ["q_proj"], "source": "free", **LM}),
    "direct control": ("llama", {"target_modules": ["q_proj"], "source": "direct", **LM}),
    "gradient basis": ("llama", {"target_modules": ["q_proj", "down_proj"], **GRADIENT, **LM}),
    "gradient basis, conv1d": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True, **GRADIENT, **LM}),
    "gradient basis, dora": ("llama", {"target_modules": ["q_proj"], "use_dora": True, **GRADIENT, **LM}),
    "gradient basis, direct": ("llama", {"target_modules": ["q_proj"], "source": "direct", **GRADIENT, **LM}),
    "gradient basis, ranks": (
        "llama",
        {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}, **GRADIENT, **LM},
    ),
    "mapping model": ("llama", {"target_modules": ["q_proj"], "mapping_widths": (8, 8), "activation": "silu", **LM}),
}


def make(case, **kwargs):
    """Return a base model's name, and it with the adapter of a case whose numbers have been moved from their start."""
    name, settings = CASES[case]
    return name, adapted(name, **(settings | kwargs))

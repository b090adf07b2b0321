"""Settings of adapters and heads that are tried on a device that is not there."""

from qpa_hf.circuit import ANSATZE
from qpa_hf.generator import ACTIVATIONS, SOURCES
from qpa_hf.generator.features import FEATURES
from qpa_hf.measurement import ESTIMATORS
from qpa_hf.measurement.interpolation import INTERPOLATIONS

LM = {"task_type": "CAUSAL_LM"}
QV = {"target_modules": ["q_proj", "v_proj"], **LM}
GRADIENT = {"basis": "gradient", "chunk_size": 4, **QV}
SHOTS = {"shots": 50, **QV}
CONV1D = {"fan_in_fan_out": True, **LM}

ADAPTERS = {
    **{f"source {name}": ("llama", {"source": name, **QV}) for name in SOURCES},
    **{f"features {name}": ("llama", {"features": name, **QV}) for name in FEATURES},
    **{f"ansatz {name}": ("llama", {"ansatz": name, **QV}) for name in ANSATZE},
    **{f"activation {name}": ("llama", {"activation": name, "mapping_widths": (8, 8), **QV}) for name in ACTIVATIONS},
    "frozen angles": ("llama", {"train_circuit": False, **QV}),
    "basis bits": ("llama", {"use_basis_bits": True, **QV}),
    "authors' start": ("llama", {"start": "authors", **QV}),
    "many qubits": ("llama", {"chunk_size": 1, "target_modules": "all-linear", **LM}),
    "rank pattern": ("llama", {"rank_pattern": {"q_proj": 2}, **QV}),
    "gradient basis": ("llama", GRADIENT),
    "gradient basis, direct": ("llama", {"source": "direct", **GRADIENT}),
    "gradient basis, stages": ("llama", {"n_stages": 2, **GRADIENT}),
    "gradient basis, DoRA": ("llama", {"use_dora": True, **GRADIENT}),
    "DoRA": ("llama", {"use_dora": True, **QV}),
    "DoRA, Conv1D": ("gpt2", {"target_modules": ["c_attn"], "use_dora": True, **CONV1D}),
    "head": ("untied", {"target_modules": ["lm_head"], **LM}),
    "tied head": ("gpt2", {"target_modules": ["lm_head"], **LM}),
    "tied head and embedding": ("gpt2", {"target_modules": ["wte", "lm_head"], "ensure_weight_tying": True, **LM}),
    "embedding": ("untied", {"target_modules": ["wte"], **LM}),
    "Conv1D": ("gpt2", {"target_modules": ["c_attn", "c_fc"], **CONV1D}),
    "Conv2d": ("mlp", {"target_modules": ["embedding", "conv", "hidden"]}),
    "experts": ("mixture", {"target_modules": [], "target_parameters": ["experts.weights"]}),
    "encoder-decoder": ("t5", {"target_modules": ["q", "v", "wo"]}),
    "modules to save": ("bert", {"target_modules": ["query"], "modules_to_save": ["classifier"]}),
    "shots per state": ("llama", {"shots": "20x", **QV}),
    **{f"shots, gradient {name}": ("llama", {"gradient": name, **SHOTS}) for name in ESTIMATORS},
    **{f"shots, {name}": ("llama", {"interpolation": name, "gradient": "exact", **SHOTS}) for name in INTERPOLATIONS},
    "noise": ("llama", {"noise": "torino", **QV}),
    "noise and shots": ("llama", {"noise": "torino", **SHOTS}),
}

HEADS = {
    "exact": {},
    "two encoders": {"n_encoders": 2},
    "wide blocks": {"connectivity": 2},
    "shots": {"shots": 100},
    "noise": {"noise": "torino"},
}

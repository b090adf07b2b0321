"""One adapter of every PEFT method, on small models."""

from dataclasses import fields

import torch
from models import build, output
from peft import get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

LM = {"task_type": "CAUSAL_LM"}
QV = {"target_modules": ["q_proj", "v_proj"], **LM}
VIRTUAL = {"num_virtual_tokens": 3, **LM}
LABELS = {"task_type": "SEQ_CLS"}
TASKS = {"task_ids": [0, 1]}

# Method, which other libraries' names may follow: model, settings.
CASES = {
    "LORA": ("llama", {"r": 4, **QV}),
    "LORA, DoRA": ("llama", {"r": 4, "use_dora": True, **QV}),
    "ADAMSS": ("llama", {"r": 4, "num_subspaces": 2, **QV}),
    "ADAPTION_PROMPT": ("llama", {"adapter_len": 3, "adapter_layers": 1, **LM}),
    "BEFT": ("llama", QV),
    "BOFT": ("llama", {"boft_block_size": 4, **QV}),
    "BONE": ("llama", {"r": 4, **QV}),
    "C3A": ("llama", {"block_size": 8, **QV}),
    "CARTRIDGE": ("llama", {"num_frozen_tokens": 1, **VIRTUAL}),
    "DEFT": ("llama", {"r": 4, **QV}),
    "DELORA": ("llama", {"r": 4, **QV}),
    "FOURIERFT": ("llama", {"n_frequency": 20, **QV}),
    "FROD": ("llama", {"progressbar": False, **QV}),
    "GLORA": ("llama", {"r": 4, **QV}),
    "GRALORA": ("llama", {"r": 4, **QV}),
    "HIRA": ("llama", {"r": 4, **QV}),
    "HRA": ("llama", {"r": 4, **QV}),
    "IA3": ("llama", {"target_modules": ["v_proj", "down_proj"], "feedforward_modules": ["down_proj"], **LM}),
    "IA3, classifier": ("bert", {"target_modules": ["value"], "feedforward_modules": [], **LABELS}),
    "LILY": ("llama", {"r": 4, **QV}),
    "LN_TUNING": ("llama", LM),
    "LOHA": ("llama", {"r": 4, **QV}),
    "LOKR": ("llama", {"r": 4, **QV}),
    "MISS": ("llama", {"r": 4, **QV}),
    "MULTITASK_PROMPT_TUNING": ("llama", {"num_tasks": 2, **VIRTUAL}),
    "OFT": ("llama", {"oft_block_size": 4, **QV}),
    "PEANUT": ("llama", {"r": 4, **QV}),
    "POLY": ("llama", {"r": 2, "n_tasks": 2, "n_skills": 2, **QV}),
    "PREFIX_TUNING": ("llama", VIRTUAL),
    "PREFIX_TUNING, projection": ("llama", {"prefix_projection": True, "encoder_hidden_size": 16, **VIRTUAL}),
    "PROMPT_TUNING": ("llama", VIRTUAL),
    "PROMPT_TUNING, classifier": ("bert", {"num_virtual_tokens": 3, **LABELS}),
    "PSOFT": ("llama", {"r": 4, **QV}),
    "PVERA": ("llama", {"r": 4, **QV}),
    "P_TUNING": ("llama", {"encoder_hidden_size": 16, **VIRTUAL}),
    "P_TUNING, LSTM": ("llama", {"encoder_reparameterization_type": "LSTM", "encoder_hidden_size": 8, **VIRTUAL}),
    "RANDLORA": ("llama", {"r": 4, **QV}),
    "ROAD": ("llama", {"group_size": 4, **QV}),
    "SHADOW": ("llama", LM),
    "SHIRA": ("llama", {"r": 2, "random_seed": 3, **QV}),
    "SUPERTUNING": ("llama", QV),
    "TINYLORA": ("llama", {"r": 2, **QV}),
    "TRAINABLE_TOKENS": ("llama", {"token_indices": [*range(3, 40)], "target_modules": ["embed_tokens"], **LM}),
    "UNILORA": ("llama", {"r": 4, **QV}),
    "VBLORA": ("llama", {"r": 4, "num_vectors": 8, "vector_length": 4, **QV}),
    "VERA": ("llama", {"r": 4, **QV}),
    "WAVEFT": ("llama", {"n_frequency": 20, **QV}),
}
# Method: model, settings, the reason.
REFUSED = {
    "ADALORA": ("llama", {"init_r": 4, "total_step": 9, **QV}, "writes zeros into the tensors in place at each step"),
    "ADAMSS, use_asa": (
        "llama",
        {"r": 4, "num_subspaces": 2, "use_asa": True, "init_warmup": 1, "final_warmup": 2, **QV},
        "deletes the gradients of single tensors",
    ),
    "CPT": (
        "llama",
        {"cpt_token_ids": [3, 4], "cpt_mask": [1, 1], "cpt_tokens_type_mask": [1, 2], **LM},
        "it writes its tensor in place at each step",
    ),
    "LORA, ensure_weight_tying": (
        "gpt2",
        {"target_modules": ["wte", "lm_head"], "ensure_weight_tying": True, **LM},
        "PEFT does not load what it saves",
    ),
    "OFT, coft": ("llama", {"oft_block_size": 4, "coft": True, **QV}, "in place at each step, to keep them small"),
    "OSF": ("llama", {"effective_rank": 4, **QV}, "the base model's own singular vectors"),
    "SHIRA, no seed": ("llama", {"r": 2, **QV}, "Set `random_seed`"),
    "XLORA": ("llama", None, "PEFT loses its classifier's first layers"),
}


def _has(case, settings):
    """Whether the installed peft knows a case's method and its settings; older versions lack some."""
    config = PEFT_TYPE_TO_CONFIG_MAPPING.get(case.partition(",")[0])
    return config is not None and set(settings or ()) <= {field.name for field in fields(config)}


CASES, REFUSED = ({case: row for case, row in rows.items() if _has(case, row[1])} for rows in (CASES, REFUSED))


def inputs_of(case):
    """Return what a method's model takes beside the usual inputs, as numbers."""
    return TASKS if case.partition(",")[0] in ("MULTITASK_PROMPT_TUNING", "POLY") else {}


def answer(model, case):
    """Return the logits of a case's model."""
    more = {key: torch.tensor(numbers) for key, numbers in inputs_of(case).items()}
    return output(model, CASES[case][0], **more)


def make(case, seed=0):
    """Return a small model with an adapter as PEFT makes it, in eval mode."""
    name, settings, *_ = (CASES | REFUSED)[case]
    torch.manual_seed(seed)
    config = PEFT_TYPE_TO_CONFIG_MAPPING[case.partition(",")[0]](**settings)
    return get_peft_model(build(name), config).eval()


def experts(folder):
    """Return a model with X-LoRA over two adapters that are saved in `folder`."""
    config = PEFT_TYPE_TO_CONFIG_MAPPING["LORA"](r=2, **QV)
    for number in range(2):
        get_peft_model(build("llama"), config).save_pretrained(folder / str(number))
    base = build("llama")
    base.config.use_cache = False
    adapters = {str(number): str(folder / str(number)) for number in range(2)}
    return get_peft_model(base, PEFT_TYPE_TO_CONFIG_MAPPING["XLORA"](hidden_size=16, adapters=adapters, **LM))

"""The portable form of a LoRA: every scale is in B, so that readers of PEFT's format need no setting but the rank."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from peft import LoraConfig
from peft.utils.other import get_pattern_key
from torch import Tensor
from torch.nn.functional import pad

from qpa_hf.messages import one_line, shown
from qpa_hf.networks.plain import Plain
from qpa_hf.tuners.qpa.refusals import VARIANTS
from qpa_hf.tuners.qpa.slots import PREFIX

FACTORS = {".lora_A.weight": ".lora_B.weight", ".lora_embedding_A": ".lora_embedding_B"}
# Fields of LoraConfig with which the change of the weights is more than B A.
BEYOND = {
    "use_dora": "DoRA scales the sum of the base weights and B A",
    "lora_bias": "B has a bias",
    "modules_to_save": "other modules are saved beside A and B",
    "trainable_token_indices": "embeddings of tokens are saved beside A and B",
    "target_parameters": "it changes parameters that are no layer's weight, such as experts",
} | VARIANTS
CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # how `init_lora_weights` begins then
# What is kept of the configuration; the rest either went into the numbers or says how they were trained.
KEPT = ("task_type", "base_model_name_or_path", "revision", "auto_mapping", "fan_in_fan_out", "lora_dropout")
CHOOSE_LAYERS = ("exclude_modules", "layers_to_transform", "layers_pattern")


class Portable(NamedTuple):
    """A LoRA that is its factors and nothing else.

    Args:
        pairs: (A, B) by the layer's name in the base model.
        config: what is left of the configuration.
    """

    pairs: dict[str, tuple[Tensor, Tensor]]
    config: LoraConfig


def portable_form(plain: Plain) -> Plain:
    """Fold every scale of a LoRA into its B, and pad all layers to one rank.

    PEFT multiplies B A by `lora_alpha / r`, by `lora_alpha / sqrt(r)` with rsLoRA, and by each layer's own alpha and
    rank where patterns give it some. Afterwards `lora_alpha` is `r`, so that this factor is 1 whether a reader divides
    by the configured rank or by that of the tensors. A scale that is a power of two is folded exactly; with any other
    each number of B is rounded once more, by at most half a unit in its last place (6e-8 of it in float32).

    Args:
        plain: the LoRA as PEFT saves it.

    Returns:
        A LoRA with one rank, `lora_alpha` = `r`, and neither rsLoRA nor patterns.

    Raises:
        ValueError: if the adapter is no LoRA, or changes more than its layers' weights by B A.
    """
    config = plain.config
    _refuse(config)
    pairs = _pairs(plain.tensors)
    rank = max((plain.tensors[a].shape[0] for a in pairs), default=config.r)
    tensors: dict[str, Tensor] = {}
    for a, b in pairs.items():
        factor, other = plain.tensors[a], plain.tensors[b]
        n_missing = rank - factor.shape[0]
        tensors[a] = _padded(factor, 0, n_missing)
        tensors[b] = _padded(_scaled(other, _scale(config, _layer(a), factor.shape[0])), 1, n_missing)
    kept = {name: getattr(config, name) for name in KEPT}
    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=_targets(config, tensors), **kept)
    lora.inference_mode = config.inference_mode
    return plain._replace(tensors=tensors, config=lora, is_portable=True)


def _refuse(config: Any) -> None:
    found = next((name for name in BEYOND if getattr(config, name, None)), None)
    if type(config) is not LoraConfig:
        _raise(f"readers of LoRA know no {one_line(config.peft_type.value)}")
    if config.bias != "none":
        _raise(f"with `bias`={shown(config.bias)} biases are saved beside A and B")
    if isinstance(config.init_lora_weights, str) and config.init_lora_weights.startswith(CHANGE_THE_BASE):
        _raise(f"`init_lora_weights`={shown(config.init_lora_weights)} changes the base weights, too")
    if found:
        _raise(f"with `{found}` {BEYOND[found]}")


def _raise(reason: str) -> NoReturn:
    raise ValueError(
        f"The adapter has no portable form, because {reason}. Merge it into its base model (`merge_and_unload()` and "
        "`save_pretrained`) for readers other than PEFT, or leave `portable` out."
    )


def _pairs(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Return the key of each A with that of its B."""
    pairs: dict[str, str] = {}
    for key in tensors:
        for a, b in FACTORS.items():
            if key.endswith(a):
                pairs[key] = key.removesuffix(a) + b
    if others := sorted(tensors.keys() ^ {*pairs, *pairs.values()}):
        _raise(f"{one_line(others[0])} belongs to no pair of factors A and B")
    return pairs


def pairs_of(plain: Plain) -> dict[str, tuple[str, str]]:
    """Return the keys of each A and its B by the layer's name in the base model."""
    return {_layer(a): (a, b) for a, b in _pairs(plain.tensors).items()}


def _layer(key: str) -> str:
    return key.removeprefix(PREFIX).rpartition(".lora_")[0]


def _scale(config: LoraConfig, layer: str, rank: int) -> float:
    """Return what PEFT multiplies a layer's B A by."""
    pattern: dict[str, Any] = config.alpha_pattern or {}
    alpha = pattern.get(get_pattern_key(list(pattern), layer), config.lora_alpha)
    return alpha / (rank**0.5 if config.use_rslora else rank)


def _scaled(tensor: Tensor, scale: float) -> Tensor:
    return tensor if scale == 1 else (tensor.double() * scale).to(tensor.dtype)


def _padded(tensor: Tensor, dim: int, n_missing: int) -> Tensor:
    if not n_missing:
        return tensor
    # Sizes are given from the last dimension to the first, two for each: before and behind.
    sizes = [0, 0] * (tensor.dim() - dim - 1) + [0, n_missing]
    return pad(tensor, sizes).contiguous()


def _targets(config: LoraConfig, tensors: dict[str, Tensor]) -> list[str]:
    """Return the adapted layers by names: those that the user gave, or the full ones where a rule chose them."""
    if isinstance(config.target_modules, str) or any(getattr(config, name, None) for name in CHOOSE_LAYERS):
        return sorted({_layer(key) for key in tensors})
    return sorted(config.target_modules or ())

"""A bottleneck without a nonlinearity is a LoRA: its tensors and its configuration."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from qpa_hf.accelerators import off_mps
from qpa_hf.tuners.bottleneck.config import BottleneckConfig
from qpa_hf.tuners.bottleneck.layer import BottleneckLayer


def folded(model: nn.Module, config: BottleneckConfig, adapter_name: str) -> tuple[dict[str, Tensor], LoraConfig]:
    """Return the LoRA that an adapter without a nonlinearity is.

    W (x + U (D x + a) + b) = W x + (W U) D x + W (U a + b), so A = D, B = W U, and B's bias is W (U a + b); computed
    in float64.

    Args:
        model: a `PeftModel` with the adapter.
        config: the adapter's configuration.
        adapter_name: the adapter's name.

    Returns:
        The tensors by their names in a LoRA checkpoint, and the configuration.

    Raises:
        ValueError: if a base layer's weight is quantised.
    """
    tensors: dict[str, Tensor] = {}
    names: list[str] = []
    is_conv1d = False
    for name, layer in model.named_modules():
        if isinstance(layer, BottleneckLayer) and adapter_name in layer.bottleneck_down:
            tensors |= {f"{name}.{key}": value for key, value in _factors(name, layer, adapter_name).items()}
            names.append(name.removeprefix("base_model.model."))
            is_conv1d |= isinstance(layer.get_base_layer(), Conv1D)
    size = config.bottleneck_size
    kept = ("task_type", "base_model_name_or_path", "revision", "inference_mode", "modules_to_save", "auto_mapping")
    lora = LoraConfig(
        r=size,
        lora_alpha=size,
        lora_bias=config.use_bias,
        target_modules=names,
        fan_in_fan_out=is_conv1d,
        **{field: getattr(config, field) for field in kept},
    )
    return tensors, lora


def _factors(name: str, layer: BottleneckLayer, adapter_name: str) -> dict[str, Tensor]:
    base: Any = layer.get_base_layer()
    if not base.weight.is_floating_point():
        raise ValueError(
            f"The weight of {name} is quantised, and folding needs its numbers. Load the base unquantised."
        )
    weight = _double(base.weight.t() if isinstance(base, Conv1D) else base.weight)  # (out, in)
    down: Any = layer.bottleneck_down[adapter_name]
    up: Any = layer.bottleneck_up[adapter_name]
    factors = {"lora_A.weight": down.weight, "lora_B.weight": weight @ _double(up.weight)}
    if down.bias is not None:
        factors["lora_B.bias"] = weight @ (_double(up.weight) @ _double(down.bias) + _double(up.bias))
    dtype = down.weight.dtype
    return {key: value.detach().to("cpu", dtype, copy=True).contiguous() for key, value in factors.items()}


def _double(tensor: Tensor) -> Tensor:
    return off_mps(tensor.detach()).double()

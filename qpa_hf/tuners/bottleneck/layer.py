"""A linear layer with bottlenecks before it."""

from __future__ import annotations

import math
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

from qpa_hf.generator.mapping import ACTIVATIONS
from qpa_hf.reproducible import seeded
from qpa_hf.tuners.bottleneck.config import BottleneckConfig


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """Gives its base layer x + U f(D x + a) + b, summed over the active adapters.

    Args:
        base_layer: an `nn.Linear`, or GPT-2's `Conv1D`.
        adapter_name: the first adapter.
        config: its configuration.
        key: the layer's name in the base model.

    Raises:
        TypeError: if the base layer is neither.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("activation",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig, key: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        linear = self.get_base_layer()
        # MultiheadAttention reads its output layer's weight and never calls it.
        if not isinstance(linear, (nn.Linear, Conv1D)) or isinstance(linear, NonDynamicallyQuantizableLinear):
            raise TypeError(
                f"{key} is a {type(base_layer).__name__}, and a bottleneck stands before linear layers that "
                "are called. Leave it out of `target_modules`."
            )
        self.activation: dict[str, str] = {}
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, key)

    @property
    def n_in(self) -> int:
        """Width of the input."""
        base: Any = self.get_base_layer()
        return base.weight.shape[0] if isinstance(base, Conv1D) else base.in_features

    def update_layer(self, adapter_name: str, config: BottleneckConfig, key: str) -> None:
        """Add an adapter."""
        down = nn.Linear(self.n_in, config.bottleneck_size, bias=config.use_bias)
        up = nn.Linear(config.bottleneck_size, self.n_in, bias=config.use_bias)
        bound, rng = 1 / math.sqrt(self.n_in), seeded(config.init_seed, key)
        with torch.no_grad():
            for parameter in down.parameters():
                parameter.copy_(torch.empty(parameter.shape, device="cpu").uniform_(-bound, bound, generator=rng))
            for parameter in up.parameters():
                parameter.zero_()
        self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name] = down, up
        self.activation[adapter_name] = config.activation
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        adapted = x
        for name in [] if self.disable_adapters else self.active_adapters:
            if name in self.bottleneck_down:
                down: Any = self.bottleneck_down[name]
                inner = ACTIVATIONS[self.activation[name]](down(x.to(down.weight.dtype)))
                adapted = adapted + self.bottleneck_up[name](inner).to(x.dtype)
        return self.base_layer(adapted, *args, **kwargs)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: what stands before a layer with a nonlinearity is no change of its weight.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "A bottleneck cannot be merged into a weight, because of the nonlinearity in it. Keep it beside the base "
            "model; or, with activation='none', `materialize` it, and merge the LoRA that it then is (with "
            "`use_bias`=False where the base's layers have no biases)."
        )

    def unmerge(self) -> None:
        """Do nothing: no bottleneck was ever merged."""

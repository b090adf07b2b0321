"""`BottleneckModel`: a base model with bottlenecks before some of its linear layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft.tuners.tuners_utils import BaseTuner
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn

from qpa_hf.tuners.bottleneck.layer import BottleneckLayer


class BottleneckModel(BaseTuner):
    """A base model with feed-forward adapters, made by `get_peft_model(base, BottleneckConfig(...))`.

    Args:
        model: the base model.
        config: configurations by adapter name.
        adapter_name: the first adapter.
        low_cpu_mem_usage: whether the adapter's tensors are made on the meta device, to be loaded.
    """

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING  # type: ignore[assignment]

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        # PEFT takes `adapter_names` away before it calls a layer that would not know them.
        if (names := kwargs.get("adapter_names")) is not None:
            raise ValueError(
                f"`adapter_names`={names!r} is not possible, because a feed-forward adapter is the same for the whole "
                "batch. Pass each adapter's rows by themselves, after `set_adapter`."
            )
        yield

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config, current_key)
            return
        layer = BottleneckLayer(target, adapter_name, peft_config, current_key)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

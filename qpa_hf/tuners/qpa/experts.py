"""Experts that share a Parameter: their old names, which PEFT translates for LoRA alone, and their gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from peft.utils.peft_types import PeftType
from torch import Tensor, nn

try:
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
except ImportError:  # peft 0.18, or transformers 4, which have nothing to translate
    _translate: Callable[..., None] | None = None
else:
    _translate = convert_peft_config_for_transformers

TRANSLATED = ("target_modules", "target_parameters", "rank_pattern", "alpha_pattern")


def translate_experts(config: Any, model: nn.Module) -> None:
    """Translate experts' names among the targets, in place, as PEFT does for a LoRA.

    Args:
        config: the adapter's QPAConfig.
        model: the base model.
    """
    if _translate is None:
        return
    found = copy.deepcopy(config)
    found.peft_type = PeftType.LORA
    _translate(found, model=model, conversions=None)
    for name in TRANSLATED:
        setattr(config, name, getattr(found, name))


class _Watched(torch.autograd.Function):
    """A Parameter as it is, whose gradient goes to functions, one for each expert, and is held no longer."""

    @staticmethod
    def forward(ctx: Any, parameter: Tensor, _: Tensor, seen: Callable[[Tensor], None]) -> Tensor:
        ctx.seen = seen
        return parameter.view_as(parameter)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.seen(gradients[0])
        return None, None, None


def watched(wrapper: Any, name: str, receivers: Sequence[Callable[[Tensor], None]]) -> list[Any]:
    """Hook a module of experts so that each batch's gradient of one of its Parameters is seen.

    How the module multiplies by it is its own affair, so no tokens are seen; the gradient of the whole Parameter is
    there for a moment in each backward pass.

    Args:
        wrapper: PEFT's `ParamWrapper` of the Parameter.
        name: what messages call it.
        receivers: for each expert, a function of its gradient, shape (n_out, n_in).

    Returns:
        The hooks' handles.

    Raises:
        ValueError: by the hooks, where the Parameter is not on the device that computes or has no gradient.
    """
    module, key = wrapper.get_base_layer(), wrapper.parameter_name
    # PEFT takes weights of one expert each for (n_in, n_out), unless the module's class says that they are turned.
    is_out_first = wrapper.get_param().dim() == 2 or getattr(wrapper, "_did_swap_in_out_features", False)

    def seen(gradient: Tensor) -> None:
        with torch.autocast(gradient.device.type, enabled=False):
            for receive, part in zip(receivers, gradient.view(-1, *gradient.shape[-2:]), strict=True):
                receive((part if is_out_first else part.T).float())

    def begin(*_: Any) -> None:
        parameter = module._parameters[key]
        if parameter.device.type == "meta" or not parameter.is_floating_point():
            raise ValueError(
                f"{key} of {name} is offloaded or quantised, and experts' gradients are seen only through weights "
                "that are in place and of floating-point numbers. Load it whole, or use basis='kaiming' for experts."
            )
        if torch.is_grad_enabled():
            anchor = torch.zeros((), device=parameter.device, requires_grad=True)
            # In the instance's own dictionary it hides the Parameter, which stays where everybody else looks for it.
            module.__dict__[key] = _Watched.apply(parameter, anchor, seen)

    def end(*_: Any) -> None:
        module.__dict__.pop(key, None)

    return [module.register_forward_pre_hook(begin), module.register_forward_hook(end, always_call=True)]

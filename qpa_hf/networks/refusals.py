"""PEFT methods whose tensors a generator cannot stand in for, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peft import PeftModel

# By method: when it is refused, and why. Most of these write to a tensor or hook its gradient, and a generated tensor
# has neither memory to write to nor a gradient of its own.
REFUSALS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "ADALORA": (
        lambda config: True,
        "its rank allocation writes zeros into the tensors in place at each step. Use LoRA with `rank_pattern`.",
    ),
    "ADAMSS": (
        lambda config: config.use_asa,
        "with `use_asa` it reads and deletes the gradients of single tensors at each step. Set `use_asa`=False.",
    ),
    "CPT": (
        lambda config: True,
        "it writes its tensor in place at each step, to keep it near the prompt. Use prompt tuning.",
    ),
    "LORA": (
        lambda config: getattr(config, "ensure_weight_tying", False),
        "PEFT does not load what it saves with `ensure_weight_tying`. Use QPAConfig, which can.",
    ),
    "OFT": (
        lambda config: config.coft,
        "with `coft` it writes its tensors in place at each step, to keep them small. Set `coft`=False.",
    ),
    "OSF": (
        lambda config: True,
        "it trains the base model's own singular vectors and changes each one's gradient by a hook. Use LoRA.",
    ),
    "SHIRA": (
        lambda config: config.random_seed is None,
        "it draws the positions of its values anew each time. Set `random_seed`.",
    ),
    "XLORA": (
        lambda config: True,
        "PEFT loses its classifier's first layers when it saves them, taking their indices for its experts' names. "
        "Generate the experts.",
    ),
}


def active_adapter(model: PeftModel) -> str:
    """Return the name of the adapter whose tensors can be generated.

    Raises:
        ValueError: if several adapters are active, or if the active one's method is refused.
    """
    kinds = {name: str(getattr(c.peft_type, "value", c.peft_type)) for name, c in model.peft_config.items()}
    # X-LoRA calls its experts active, not itself.
    active = [name for name, kind in kinds.items() if kind == "XLORA"] or model.active_adapters
    if len(active) != 1:
        raise ValueError(f"The adapters {active} are active, but one generator serves one. Call `set_adapter` first.")
    refuse_method(kinds[active[0]], model.peft_config[active[0]])
    return active[0]


def refuse_method(kind: str, config: Any) -> None:
    """Raise ValueError if the tensors of a method cannot be generated."""
    is_refused, reason = REFUSALS.get(kind, (lambda config: False, ""))
    if is_refused(config):
        raise ValueError(f"The tensors of {kind} cannot be generated, because {reason}")

"""The numbers of a generator: which are trained, which are frozen, and which a checkpoint must hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

RECORDED = ("shares", "shares_angles", "shares_draw")  # what a device measured, of which angles, in which draw
DRAWN = ("draw", *RECORDED)  # written while the model runs


def uniform(shape: tuple[int, ...], bound: float, rng: torch.Generator) -> Tensor:
    """Return numbers from -bound to bound, in float32 whatever torch's default is."""
    return torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=rng)


class Numbers(nn.Module):
    """A flat module of float32 numbers; some of its Parameters are named, but never trained."""

    def __init__(self) -> None:
        super().__init__()
        self.named_frozen: set[str] = set()  # Parameters that are never trained (`name_frozen`)
        self._must_load = False  # its first checkpoint must be whole, for it stands for nothing before

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters(recurse=False)).device

    def add_parameter(self, name: str, values: Tensor) -> None:
        """Make a Parameter of values."""
        # Not `register_parameter`: PEFT's `low_cpu_mem_usage` patches it to throw values away, and a generator's are
        # few, and needed where a checkpoint does not hold them.
        self._parameters[name] = nn.Parameter(values)

    def name_frozen(self) -> None:
        """Make frozen Parameters of the buffers that a checkpoint holds, but for what is written in a forward.

        Much code takes an adapter to be its named parameters, and copies or saves those alone. A count gets a
        dimension, because FSDP2 shards no scalars.
        """
        for name in [n for n in self._buffers if n not in self._non_persistent_buffers_set and n not in DRAWN]:
            values = self._buffers.pop(name)
            assert values is not None
            self._parameters[name] = nn.Parameter(torch.atleast_1d(values), requires_grad=False)
            self.named_frozen.add(name)

    def saved_tensors(self) -> dict[str, Tensor]:
        """Return by name all that a checkpoint must hold, also on the meta device, where there is no state."""
        buffers = dict(self.named_buffers(recurse=False))
        kept = {name: buffer for name, buffer in buffers.items() if name not in self._non_persistent_buffers_set}
        return {**dict(self.named_parameters(recurse=False)), **kept}

    def expect_checkpoint(self) -> None:
        """Refuse a first checkpoint that is not whole, for the numbers of now stand for nothing."""
        self._must_load = True

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the Parameters that are trained at present, by name."""
        named = self.named_parameters(recurse=False)
        return {name: p for name, p in named if p.requires_grad and name not in self.named_frozen}

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Train or freeze all that can be trained."""
        for name, parameter in self.named_parameters(recurse=False):
            parameter.requires_grad_(requires_grad and name not in self.named_frozen)
        return self

    def frozen(self, name: str) -> Tensor:
        """Return frozen numbers, also where somebody has asked for gradients of all Parameters."""
        return getattr(self, name).detach()

    def check_whole(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Refuse a part of a checkpoint where this generator has nothing yet that the part could be put to."""
        # The network that interpolates may be new to the checkpoint.
        needed = [prefix + name for name in self._parameters if not name.startswith("f_")]
        missing = [key for key in needed if key not in state_dict]
        if not self._must_load or len(missing) == len(needed):
            return
        if missing:
            raise ValueError(
                f"The checkpoint lacks {missing[0]}, without which it is another adapter. Save it again with "
                "`model.save_pretrained(folder)`, without a `state_dict` of some parameters."
            )
        self._must_load = False

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move to another device, but keep float32: a bfloat16 angle would be off by up to 0.01 rad."""

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if moved.dtype == tensor.dtype or not tensor.is_floating_point():
                return moved
            return tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

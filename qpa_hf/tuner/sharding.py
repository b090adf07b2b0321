"""Models whose numbers are spread over several processes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from qpa_hf.generator import Bank, Generator


def is_fsdp(model: nn.Module) -> bool:
    """Whether FSDP2 keeps only a part of the parameters in this process."""
    # The modules as well: a forward pass without gradients leaves whole parameters behind until the next backward.
    return any(isinstance(m, FSDPModule) for m in model.modules()) or any(
        isinstance(p, DTensor) for p in model.parameters()
    )


def is_zero3(model: nn.Module) -> bool:
    """Whether DeepSpeed's ZeRO-3 keeps the parameters outside of the model."""
    return any(hasattr(p, "ds_id") for p in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """Return the whole of a tensor; for one that FSDP2 has spread, every process must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_generator(generator: Generator) -> Generator:
    """Return a generator that this process can run alone: itself, or a shallow copy with gathered parameters."""
    if not is_fsdp(generator):
        return generator
    gathered = copy.copy(generator)
    gathered._parameters = {name: nn.Parameter(whole(p.detach())) for name, p in generator.named_parameters()}
    return gathered


def whole_bank(bank: Bank) -> Bank:
    """Return a bank that this process can read alone; for a sharded one, every process must call this together."""
    return Bank(whole_generator(bank.generator), bank.shapes, bank.basis) if is_fsdp(bank.generator) else bank


def on_first_process(write: Callable[[], None]) -> None:
    """Run `write` in the first process while the others wait; its error is raised in every one of them."""
    failure: list[Exception | None] = [None]
    if dist.get_rank() == 0:
        try:
            write()
        except Exception as error:  # a process that raised alone would leave the others waiting for ever
            failure = [error]
    dist.broadcast_object_list(failure)
    if failure[0] is not None:
        raise failure[0]

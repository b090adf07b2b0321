"""Models whose numbers are spread over several processes."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

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


def gathered(tensor: Tensor) -> Tensor:
    """Return the whole of a tensor; for one that FSDP2 has spread, every process must call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def write(parameter: Tensor, values: Tensor) -> None:
    """Write the whole of a tensor in place; for one that FSDP2 has spread, every process must call this together."""
    if isinstance(parameter, DTensor):
        values = distribute_tensor(values, parameter.device_mesh, parameter.placements)
    with torch.no_grad():
        parameter.copy_(values)


def gathered_generator(generator: Generator) -> Generator:
    """Return a generator that this process can run alone: itself, or a shallow copy with gathered parameters."""
    if not is_fsdp(generator):
        return generator
    alone = copy.copy(generator)
    alone._parameters = {
        name: nn.Parameter(gathered(p.detach()), requires_grad=p.requires_grad)
        for name, p in generator.named_parameters()
    }
    return alone


def gathered_bank(bank: Bank) -> Bank:
    """Return a bank that this process can read alone; for a sharded one, every process must call this together."""
    return Bank(gathered_generator(bank.generator), bank.pieces) if is_fsdp(bank.generator) else bank


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

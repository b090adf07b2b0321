"""Models whose numbers are spread over several processes."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from qpa_hf.generator import Generator


def is_fsdp(model: nn.Module) -> bool:
    """Whether FSDP2 keeps only a part of the parameters in this process."""
    return any(isinstance(p, DTensor) for p in model.parameters())


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

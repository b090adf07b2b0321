"""How many processes work together, and which of them this one is."""

from __future__ import annotations

import torch.distributed as dist


def is_distributed() -> bool:
    """Whether torch has joined this process with others, or with none but itself."""
    return dist.is_available() and dist.is_initialized()


def is_one_of_several() -> bool:
    """Whether other processes run the same program beside this one."""
    return is_distributed() and dist.get_world_size() > 1


def is_first_process() -> bool:
    """Whether this process is the first of several, or the only one."""
    return not is_distributed() or dist.get_rank() == 0

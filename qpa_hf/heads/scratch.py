"""Working memory that is used again: on a CPU the first touch of fresh memory takes as long as computing in it."""

from __future__ import annotations

from collections import OrderedDict

import torch

MOST_BYTES = 2**28  # of one buffer that is kept; larger ones go back to the system
MOST_BUFFERS = 8

_free: OrderedDict[tuple[tuple[int, ...], torch.dtype], torch.Tensor] = OrderedDict()


class Scratch:
    """A tensor of undefined contents, whose memory is used again when nobody holds this object any more.

    Args:
        shape: the shape of `tensor`.
        like: a tensor that has its dtype and device.
    """

    def __init__(self, shape: tuple[int, ...], like: torch.Tensor) -> None:
        self._key = (shape, like.dtype)
        known = _free.pop(self._key, None) if like.device.type == "cpu" else None
        with torch.inference_mode(False):  # else it could be written in inference mode only
            self.tensor = torch.empty(shape, dtype=like.dtype, device=like.device) if known is None else known

    # What holds the object holds the memory: a graph frees it after its backward pass, and then it can be used again.
    def __del__(self) -> None:
        if self.tensor.device.type == "cpu" and self.tensor.nbytes <= MOST_BYTES:
            _free[self._key] = self.tensor
            while len(_free) > MOST_BUFFERS:
                _free.popitem(last=False)

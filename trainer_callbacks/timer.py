"""Time a training step and the generation within it, without waiting for the device while the step runs."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from qpa_hf.generator import Generator


class GenerationTimer:
    """From its making until `stop`, the time of one step; within it, the forward and backward passes of a generator.

    On a CPU the clock is read; on an accelerator events are put into its stream, and waited for only in `share`. The
    backward pass counts from the first gradient of a generated tensor to the last one of a trained number.

    Args:
        generator: it is watched until `release`.
    """

    def __init__(self, generator: Generator) -> None:
        self._device = generator.device
        self._forward: list[list[Any]] = []  # [start, end]
        self._backward: list[list[Any]] = []  # [start, end]; the end moves on with each number's gradient
        parameters = [p for p in generator.parameters() if p.requires_grad]
        self._handles = [
            generator.register_forward_pre_hook(self._start_forward),
            generator.register_forward_hook(self._end_forward),
            *(p.register_post_accumulate_grad_hook(self._move_end) for p in parameters),
        ]
        self._begin = self._now()
        self._end: Any = None

    def _now(self) -> Any:
        if self._device.type == "cpu":
            return time.perf_counter()
        event = torch.Event(self._device, enable_timing=True)
        event.record()
        return event

    def _start_forward(self, generator: Generator, sizes: Any) -> None:
        if not torch.compiler.is_compiling():
            self._forward.append([self._now(), None])

    def _end_forward(self, generator: Generator, sizes: Any, pieces: tuple[Tensor, ...]) -> None:
        if torch.compiler.is_compiling():
            return
        self._forward[-1][1] = self._now()
        if pieces[0].grad_fn is not None:
            pieces[0].grad_fn.register_prehook(lambda _: self._backward.append([self._now(), None]))

    def _move_end(self, _: Tensor) -> None:
        if self._backward:
            self._backward[-1][1] = self._now()

    def release(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()

    def stop(self) -> None:
        """End the step."""
        self._end = self._now()

    @property
    def has_ended(self) -> bool:
        """Whether the step has ended."""
        return self._end is not None

    def share(self) -> float | None:
        """Return generation's share of the step; waits for the device.

        None where it cannot be told: generation inside a compiled graph, or gradients that are not accumulated in the
        generator's own parameters (FSDP).
        """
        if self._end is None or not self._backward or any(end is None for _, end in self._backward):
            return None
        parts = [*self._forward, *self._backward]
        return sum(self._seconds(start, end) for start, end in parts) / self._seconds(self._begin, self._end)

    def _seconds(self, start: Any, end: Any) -> float:
        if self._device.type == "cpu":
            return end - start
        end.synchronize()
        return start.elapsed_time(end) / 1000

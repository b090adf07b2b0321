"""Until when generated values hold: as long as the numbers that they come from are still the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from qpa_hf.generator.generator import Generator

# So many of a tensor's frozen numbers are compared, evenly spread over it: all the bases of a large adapter, or the
# initial values of a whole model, would take as long as a token.
SAMPLE = 2**14


class _Steps:
    """Counts the steps of all optimizers."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, *_: Any) -> None:
        self.n += 1


steps = _Steps()
register_optimizer_step_post_hook(steps)


def version(tensor: Tensor) -> int:
    """Return how often a tensor has been written; one that was made in inference mode does not count."""
    try:
        return tensor._version
    except RuntimeError:
        return 0


def in_backward() -> bool:
    """Return whether a backward pass is running."""
    return torch._C._current_graph_task_id() != -1


class Snapshot:
    """What some tensors held, to tell whether they still do.

    A tensor's version is not enough: it does not see who writes through `.data`, as most helpers that average weights
    or copy adapters do, nor who gives the tensor another storage. So the numbers themselves are compared with a copy.

    Args:
        tensors: parameters of a generator.
        frozen: parameters and buffers that nobody trains, which are written as a whole, if at all: of large ones a
            sample is compared.
    """

    def __init__(self, tensors: Sequence[Tensor], frozen: Sequence[Tensor] = ()) -> None:
        # References, and no weak ones, with which `torch.utils.swap_tensors` would refuse them: the address of one
        # that is gone may be another's (`functional_call`).
        self.tensors = [*tensors, *frozen]
        self._marks = [_mark(tensor) for tensor in self.tensors]
        self._copies = None
        if _can_be_read(self.tensors):
            self._copies = [part.clone() for part in _parts(tensors, frozen)]

    def hold(self, tensors: Sequence[Tensor], frozen: Sequence[Tensor] = (), is_same_unread: bool = False) -> bool:
        """Return whether `tensors` have these numbers; on a GPU this waits once for all that was asked of it before.

        Args:
            tensors: in the same order.
            frozen: in the same order.
            is_same_unread: what to answer where they cannot be read (a shard of FSDP2's, of which every process would
                think for itself; a part of ZeRO-3's; a wrapper of `torch.func`) and nothing has been written either.
        """
        every = [*tensors, *frozen]
        if [_mark(tensor) for tensor in every] != self._marks:
            return False
        if _is_captured(every):  # a CUDA graph, in which nothing can be read
            return True
        if self._copies is None or not _can_be_read(every):
            return is_same_unread
        return all(torch.equal(part, kept) for part, kept in zip(_parts(tensors, frozen), self._copies, strict=True))

    def are_of(self, tensors: Sequence[Tensor]) -> bool:
        """Return whether the first of them are these very tensors, to which a graph leads."""
        return all(mine is theirs for mine, theirs in zip(self.tensors, tensors, strict=False))


class Freshness:
    """Whether the kept values still come from the numbers that the generator has.

    The numbers are compared at the first read in each pass, forward of the whole model or backward, through which they
    stay the same. Outside of both, each read compares them.

    Args:
        generator: the generator whose values are kept.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self.is_inside = False  # a forward of the whole model runs
        self._n_forwards = 0
        self._numbers: Snapshot | None = None  # from which the kept values come
        self._looked_in: tuple[str, int] | None = None  # the pass in which the numbers were last compared

    @property
    def is_kept(self) -> bool:
        """Whether the numbers of the kept values are known."""
        return self._numbers is not None

    def begin_forward(self) -> None:
        """Begin a forward of the whole model."""
        self.is_inside = True
        self._n_forwards += 1

    def end_forward(self) -> None:
        """End a forward of the whole model."""
        self.is_inside = False

    def keep(self) -> None:
        """Take the present numbers for those that the kept values come from."""
        self._numbers = Snapshot(*_numbers_of(self._generator))
        self._looked_in = self._pass()

    def forget(self) -> None:
        """Keep no numbers, as there are no values of them any more."""
        self._numbers = None

    def is_lost(self) -> bool:
        """Return whether the numbers have changed since they were kept."""
        if self._numbers is None:
            return False
        here = self._pass()
        if here is not None and here == self._looked_in:
            return False
        self._looked_in = here
        return not self._numbers.hold(*_numbers_of(self._generator))

    def is_of_parameters(self) -> bool:
        """Return whether the kept numbers are those of the very parameters that the generator has now."""
        return self._numbers is not None and self._numbers.are_of(_numbers_of(self._generator)[0])

    def _pass(self) -> tuple[str, int] | None:
        if self.is_inside:
            return "forward", self._n_forwards
        return ("backward", torch._C._current_graph_task_id()) if in_backward() else None


class Draws:
    """When circuits are measured anew: once for each step of training, all of whose forwards share the draw.

    Args:
        generator: the generator whose circuits are measured.
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._drawn_for: tuple[int, Snapshot] | None = None  # the number of the step, and the numbers in it

    def draw_for_step(self) -> None:
        """Draw anew if an optimizer has made a step since the last draw, or somebody has written a parameter."""
        if not self._is_measuring():
            return
        parameters = list(self._generator.trained().values())
        if self._drawn_for is not None:
            n_steps, numbers = self._drawn_for
            if n_steps == steps.n and numbers.hold(parameters, is_same_unread=True):
                return
        self._drawn_for = steps.n, Snapshot(parameters)
        self._generator.draw_anew()

    def draw_in_graph(self) -> None:
        """Draw anew in each forward of a compiled model, whose graph can ask for no optimizer's steps."""
        if self._is_measuring():
            self._generator.draw_anew()

    def _is_measuring(self) -> bool:
        generator = self._generator
        is_step = generator.training and torch.is_grad_enabled()
        return generator.spec.is_measured and is_step and bool(generator.trained())


def _numbers_of(generator: Generator) -> tuple[list[Tensor], list[Tensor]]:
    """Return what can be trained, and what is frozen."""
    named = dict(generator.named_parameters(recurse=False))
    frozen = [named.pop(name) for name in sorted(generator.named_frozen)]
    return list(named.values()), [*frozen, *generator.buffers(recurse=False)]


def _mark(tensor: Tensor) -> tuple[Any, ...]:
    return version(tensor), tensor.requires_grad, tensor.shape, tensor.dtype, tensor.device


def _can_be_read(tensors: Sequence[Tensor]) -> bool:
    return not any(
        type(tensor) not in (Tensor, nn.Parameter)
        or tensor.is_meta
        or hasattr(tensor, "ds_id")
        or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        for tensor in tensors
    )


def _is_captured(tensors: Sequence[Tensor]) -> bool:
    return any(tensor.is_cuda for tensor in tensors) and torch.cuda.is_current_stream_capturing()


def _parts(tensors: Sequence[Tensor], frozen: Sequence[Tensor]) -> list[Tensor]:
    """Return the numbers to compare: on a CPU where they are, elsewhere end to end, to wait for one answer."""
    sampled = [t.detach().reshape(-1)[:: max(1, t.numel() // SAMPLE)] for t in frozen]
    read = [*(t.detach() for t in tensors), *sampled]
    if all(tensor.device.type == "cpu" for tensor in read):
        return read
    dtypes = dict.fromkeys(tensor.dtype for tensor in read)
    return [torch.cat([tensor.reshape(-1) for tensor in read if tensor.dtype == dtype]) for dtype in dtypes]

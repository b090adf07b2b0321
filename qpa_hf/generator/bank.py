"""The bank: a generator's flat vector cut into slots, one for each generated tensor, kept as long as it is valid."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from qpa_hf.generator.basis import Basis
from qpa_hf.generator.generator import Generator


def _unchanged(x: Any) -> Any:
    return x


class _Steps:
    """Counts the steps of all optimizers: some write new numbers without a parameter's version telling so."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, *_: Any) -> None:
        self.n += 1


_steps = _Steps()
register_optimizer_step_post_hook(_steps)


def _version(tensor: Tensor) -> int:
    """Return how often a tensor has been written; one that was made in inference mode does not count."""
    try:
        return tensor._version
    except RuntimeError:
        return 0


class _Same:
    """Compares tensors by identity, also when one is gone and another has its address (`functional_call`).

    Assigning to `.data` gives a tensor other numbers, which only the storage tells; it is kept, so that no other one
    has its address meanwhile.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = weakref.ref(tensor)
        self.storage: torch.UntypedStorage | None = None
        try:
            self.storage = tensor.untyped_storage()
        except (RuntimeError, NotImplementedError):
            pass  # a wrapper, torch.func's for instance

    def __eq__(self, other: object) -> bool:
        tensor = self.tensor()
        if tensor is None or not isinstance(other, _Same) or tensor is not other.tensor():
            return False
        return (self.storage and self.storage._cdata) == (other.storage and other.storage._cdata)


def _trained_in(generator: Generator) -> list[Tensor]:
    return [p for p in generator.parameters(recurse=False) if p.requires_grad]


def _is_plain(parameter: Tensor) -> bool:
    return isinstance(parameter, nn.Parameter) and not isinstance(parameter, DTensor)


class _Regenerated(torch.autograd.Function):
    """All slots of a bank, with a graph that any number of backward passes can go through."""

    @staticmethod
    def forward(ctx: Any, bank: Bank, *parameters: Tensor) -> tuple[Tensor, ...]:
        # A copy of the bank, which keeps no values: the bank keeps this graph, and nothing would ever free the two.
        ctx.bank, ctx.versions = copy.copy(bank), [(id(p), _version(p)) for p in parameters]
        ctx.set_materialize_grads(False)
        with torch.enable_grad():  # which tells the slots with a graph from those of a frozen basis
            slots, _ = bank._generate()
        values = tuple(slot.detach() for slot in slots)
        ctx.mark_non_differentiable(
            *(value for value, slot in zip(values, slots, strict=True) if not slot.requires_grad)
        )
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        parameters = _trained_in(ctx.bank.generator)
        if [(id(p), _version(p)) for p in parameters] != ctx.versions:
            raise RuntimeError(
                "The generator was trained between a forward and its backward pass. Call `backward` before the "
                "optimizer's step, or the model again after it."
            )
        with torch.enable_grad():
            slots, _ = ctx.bank._generate()
        pairs = [(slot, g) for slot, g in zip(slots, gradients, strict=True) if g is not None and slot.requires_grad]
        outputs, inner = zip(*pairs, strict=True)
        return (None, *torch.autograd.grad(outputs, parameters, inner, allow_unused=True))


class Bank:
    """Cuts the vector of a `Generator` into tensors and decides when it must be generated again.

    - With gradients on, a generated vector serves every reader until a backward pass has gone through it, a parameter
      has changed, or the next forward of the whole model begins.
    - Without gradients it is kept until a parameter or buffer changes, so that decoding does not run the circuit for
      every token.
    - Parts of a model that are called by themselves may have losses of their own, one after the other: for them the
      generator runs again in each backward pass.
    - Readers inside a running backward pass (activation checkpointing recomputes its blocks there) get detached
      leaves; the generator's own backward then runs once, when the pass ends.

    Args:
        generator: produces the vector.
        shapes: shape of each slot, in the order of the vector.
        basis: how slots come from frozen bases and generated cores; None if the vector holds the slots themselves.
        is_scaled: whether slot i is its part of the vector times the generator's buffer `scale[i]`, plus `shift[i]`.
    """

    def __init__(
        self,
        generator: Generator,
        shapes: Sequence[tuple[int, ...]],
        basis: Basis | None = None,
        is_scaled: bool = False,
    ) -> None:
        self.generator = generator
        self.shapes = [torch.Size(shape) for shape in shapes]
        self.basis = basis
        self.is_scaled = is_scaled
        self._clear()

    def _clear(self) -> None:
        self._is_inside = False  # a forward of the whole model runs
        self._forward_key: Any = None  # its key, from the first reader on
        self._live: list[Tensor] | None = None  # tensors with the generator's graph behind them
        self._live_key: Any = None
        self._constant: list[Tensor] | None = None  # the same values without a graph
        self._constant_key: Any = None
        self._versions: list[int] = []  # of the constants, which nobody else may write
        self._leaves: dict[int, Tensor] = {}  # what readers inside a backward pass were given
        self._trained: list[bool] = []  # which live tensors have a graph; a frozen basis has none
        self._drawn_for: Any = None  # the state of training for which the circuits were last measured
        self._counted: Any = None  # the buffer that tells how many bases are known, as it was when last read
        self._traced: list[Tensor] | None = None  # torch.compile's, valid within one traced forward

    def __getstate__(self) -> dict[str, Any]:
        # A graph can be neither copied nor pickled; values are generated again on the other side.
        return {name: self.__dict__[name] for name in ("generator", "shapes", "basis", "is_scaled")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._clear()

    def refresh(self) -> None:
        """Forget every generated value; needed only where a forward follows in-place edits of `.data`."""
        self._clear()

    def begin_forward(self) -> None:
        """Call at the start of a forward of the whole model: with gradients on, generate anew.

        A step of training measures the circuits with other shots, once for all its forwards, since a checkpointed
        block must find again what it has read; evaluation keeps those of the last step.
        """
        if torch.compiler.is_compiling():
            if self._is_measuring():
                self.generator.draw_anew()
            self._traced = self._shaped(self._pieces())
        elif torch.is_grad_enabled() and torch._C._current_graph_task_id() == -1:
            self._draw_anew()
            # Values without a graph go as well: FSDP2 and ZeRO-3 write new numbers into the parameters of the next
            # step without a version telling so.
            self._live, self._leaves, self._constant = None, {}, None
        if not torch.compiler.is_compiling():
            self._is_inside, self._forward_key = True, None

    def _draw_anew(self) -> None:
        if not self._is_measuring():
            return
        state = (_steps.n, [_version(p) for p in self.generator.parameters(recurse=False)])
        if state != self._drawn_for:
            self._drawn_for = state
            self.generator.draw_anew()

    def _is_measuring(self) -> bool:
        generator = self.generator
        return generator.spec.is_measured and generator.training and torch.is_grad_enabled() and self._is_trainable()

    def end_forward(self) -> None:
        """Call at the end of a forward of the whole model."""
        self._traced = None
        if not torch.compiler.is_compiling():
            self._is_inside = False

    def read(self, index: int) -> Tensor:
        """Return slot `index` as a float32 tensor of its shape."""
        if torch.compiler.is_compiling():
            # A part of the model that is compiled by itself does not pass through `begin_forward`.
            slots = self._traced if self._traced is not None else self._shaped(self._pieces())
            return slots[index]
        if not (torch.is_grad_enabled() and self._is_trainable()):
            return self._unwritten(index)
        if torch._C._current_graph_task_id() != -1:
            return self._leaf(index)
        key = (self._is_inside, self._key())
        if self._live is None or self._live_key != key:
            self._live, self._live_key = self._generate_live(), key
        return self._live[index]

    def values(self) -> list[Tensor]:
        """Return every slot without a graph, to be kept: generated anew, since no counter sees edits of `.data`.

        Raises:
            RuntimeError: if somebody has written into one.
        """
        if self._constant is not None and self._constant_key == self._key():
            for index in range(len(self._constant)):
                self._unwritten(index)
        self._constant = None
        return list(self._constants())

    def _constants(self) -> list[Tensor]:
        key = self._key()
        if self._constant is None or self._constant_key != key:
            # Tensors made in inference mode could not be used in a later forward with gradients.
            with torch.inference_mode(False), torch.no_grad():
                self._constant, self._constant_key = self._generate()[0], key
                self._versions = [_version(tensor) for tensor in self._constant]
        return self._constant

    def _unwritten(self, index: int) -> Tensor:
        tensor = self._constants()[index]
        if _version(tensor) != self._versions[index]:
            self._clear()
            raise RuntimeError(
                "A generated tensor was written in place, which changes nothing: its values come from the generator. "
                "Leave it out of what is generated, or call `materialize` first."
            )
        return tensor

    def _is_trainable(self) -> bool:
        return any(p.requires_grad for p in self.generator.parameters(recurse=False))

    def _key(self) -> tuple[Any, ...]:
        """Return what values are valid for; within a forward of the whole model, found once."""
        if not self._is_inside:
            return self._found_key()
        if self._forward_key is None:
            self._forward_key = self._found_key()
        return self._forward_key

    def _found_key(self) -> tuple[Any, ...]:
        tensors = [*self.generator.parameters(recurse=False), *self.generator.buffers(recurse=False)]
        return (self.generator.epoch, _steps.n, *((_Same(t), _version(t), t.requires_grad) for t in tensors))

    def _n_bases(self) -> int:
        """Return how many stages have bases, also where something else than loading has written the buffers."""
        generator = self.generator
        if not torch.compiler.is_compiling():
            buffer = generator.get_buffer("stage" if "stage" in generator._buffers else "basis")
            counted = (_Same(buffer), _version(buffer))
            if counted != self._counted:
                self._counted, generator.n_bases = counted, generator.count_bases()
        return generator.n_bases

    def _pieces(self) -> tuple[Tensor, ...]:
        return self.generator(self.shapes if self.basis is None else self.basis.generated_shapes)

    def _shaped(self, pieces: Sequence[Tensor]) -> list[Tensor]:
        if self.basis is not None:
            n_bases = self._n_bases()
            if not n_bases:
                raise RuntimeError(
                    "The adapter's gradient bases are not known yet. Call `qpa_hf.initialize_basis(model, "
                    "dataloader)` once, before training."
                )
            return self.basis.tensors(self.generator.basis, pieces, n_bases)
        if not self.is_scaled:
            return list(pieces)
        scale, shift = self.generator.get_buffer("scale"), self.generator.get_buffer("shift")
        return [piece * scale[i] + shift[i] for i, piece in enumerate(pieces)]

    def _generate(self) -> tuple[list[Tensor], set[Any]]:
        """Return every slot, and the generator's nodes in the graph: one for all, or without a mapping model many."""
        # The innermost hooks win, so a checkpointed block that happens to read first does not try to recompute the
        # generator as if it were part of that block.
        with saved_tensors_hooks(_unchanged, _unchanged):
            pieces = self._pieces()
            return self._shaped(pieces), {piece.grad_fn for piece in pieces} - {None}

    def _generate_live(self) -> list[Tensor]:
        parameters = _trained_in(self.generator)
        # Others are a shard, or stand in a parameter's place for one call (`functional_call`).
        if not self._is_inside and all(map(_is_plain, parameters)):
            slots = list(_Regenerated.apply(self, *parameters))
            self._trained = [slot.requires_grad for slot in slots]
            return slots
        slots, nodes = self._generate()
        self._trained = [slot.requires_grad for slot in slots]
        bank = weakref.ref(self)

        def forget(_: Any) -> None:
            if (owner := bank()) is not None:
                owner._live = None

        for node in nodes:
            node.register_prehook(forget)
        return slots

    def _leaf(self, index: int) -> Tensor:
        if not self._leaves:
            Variable._execution_engine.queue_callback(self._backward_from_leaves)
        if index not in self._leaves:
            source = self._live[index] if self._live is not None else self._unwritten(index)
            self._leaves[index] = source.detach().requires_grad_(not self._trained or self._trained[index])
        return self._leaves[index]

    def _backward_from_leaves(self) -> None:
        leaves, self._leaves = self._leaves, {}
        with_grad = {i: leaf.grad for i, leaf in leaves.items() if leaf.grad is not None}
        if not with_grad:
            return
        if any(isinstance(p, DTensor) for p in self.generator.parameters(recurse=False)):
            raise RuntimeError(
                "Reentrant checkpointing cannot be used under FSDP2, which has sharded the generator again when the "
                "backward pass through it begins. Set `use_reentrant=False`."
            )
        with torch.enable_grad():
            slots, _ = self._generate()
        with_grad = {i: grad for i, grad in with_grad.items() if slots[i].requires_grad}  # a frozen basis has no use
        torch.autograd.backward([slots[i] for i in with_grad], list(with_grad.values()))

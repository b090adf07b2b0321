"""`probabilities`: exact measurement probabilities of a batch of circuits, with gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qpa_hf.accelerators import warn_of_missing_kernels
from qpa_hf.circuit.ansatz import find_ansatz
from qpa_hf.circuit.simulators import Simulator, find_running, find_simulator, is_traceable

if TYPE_CHECKING:
    from jaxtyping import Float

CHECKED_FROM_BYTES = 2**30  # below, asking the machine would cost more than it saves


def _without_autocast(simulate: Callable[..., Any]) -> Callable[..., Any]:
    """Keep autocast out: states in bfloat16 would be off by a per cent."""

    @functools.wraps(simulate)
    def wrapped(angles: Tensor, *args: Any) -> Any:
        if not torch.is_autocast_enabled(angles.device.type):
            return simulate(angles, *args)
        with torch.autocast(angles.device.type, enabled=False):
            return simulate(angles, *args)

    return wrapped


@_without_autocast
def _forward(angles: Tensor, ansatz: str, name: str | None) -> tuple[Tensor, Any, Simulator]:
    """Return the probabilities, what the backward pass needs, and whose backward pass that is."""
    n_circuits, depth, _, n_qubits = angles.shape
    pattern = find_ansatz(ansatz)
    warn_of_missing_kernels(angles.device)
    simulator = find_running(pattern, n_qubits, n_circuits, angles.device, angles.dtype, name)
    check_memory(n_qubits, depth, n_circuits, ansatz, str(angles.device), angles.dtype, simulator.name)
    assert simulator.module is not None
    return *simulator.module.forward(angles, pattern), simulator


@_without_autocast
def _backward(angles: Tensor, kept: Any, simulator: Simulator, grad: Tensor, ansatz: str) -> Tensor:
    assert simulator.module is not None
    return simulator.module.backward(angles, kept, grad.contiguous(), find_ansatz(ansatz))


class _Probabilities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, angles: Tensor, ansatz: str, name: str | None) -> Tensor:
        p, *ctx.kept = _forward(angles, ansatz, name)
        ctx.ansatz = ansatz
        ctx.name = name
        ctx.save_for_backward(angles)
        return p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (angles,) = ctx.saved_tensors
        # Given away, not lent: many qubits overwrite it, and a living `p` must not hold it. Only a second backward
        # pass, through a retained graph, makes it anew.
        kept, ctx.kept = ctx.kept, None
        if kept is None:
            _, *kept = _forward(angles, ctx.ansatz, ctx.name)
        return _backward(angles, *kept, grad, ctx.ansatz), None, None


# torch.compile sees the circuit as one operation, so its tables never enter a traced graph. What the forward pass
# keeps differs between the forms, so a compiled backward pass makes it anew.
@torch.library.custom_op("qpa_hf::probabilities", mutates_args=())
def _traced_forward(angles: Tensor, ansatz: str, name: str | None) -> Tensor:
    return _forward(angles, ansatz, name)[0]


@_traced_forward.register_fake
def _(angles: Tensor, ansatz: str, name: str | None) -> Tensor:
    return angles.new_empty(angles.shape[0], 2 ** angles.shape[-1])


@torch.library.custom_op("qpa_hf::probabilities_backward", mutates_args=())
def _traced_backward(angles: Tensor, grad: Tensor, ansatz: str, name: str | None) -> Tensor:
    _, *kept = _forward(angles, ansatz, name)
    return _backward(angles, *kept, grad, ansatz).contiguous()


@_traced_backward.register_fake
def _(angles: Tensor, grad: Tensor, ansatz: str, name: str | None) -> Tensor:
    return torch.empty_like(angles, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    angles, ctx.ansatz, ctx.name = inputs
    ctx.save_for_backward(angles)


def _propagate(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return _traced_backward(ctx.saved_tensors[0], grad, ctx.ansatz, ctx.name), None, None


_traced_forward.register_autograd(_propagate, setup_context=_keep)
# Autograd has no place inside of a custom operation, so what needs it breaks the graph.
_untraced = torch.compiler.disable(_Probabilities.apply)


def flat_angles(
    angles: Float[Tensor, "*batch n_qubits"], ansatz: str, n_states: int | None = None
) -> tuple[Float[Tensor, "n_circuits depth n_rotations n_qubits"], torch.Size]:
    """Return angles as (n_circuits, depth, rotations a layer, n_qubits), and the leading dimensions that they had.

    Raises:
        TypeError, ValueError: as `probabilities` does, for a wrong type, ansatz, shape or number of states, or angles
            that are not finite.
    """
    # A layer of one rotation has no axis for it, as in the paper; inside, every ansatz has one.
    n_rotations = len(find_ansatz(ansatz).rotations)
    if not isinstance(angles, Tensor) or angles.dtype not in (torch.float32, torch.float64):
        got = angles.dtype if isinstance(angles, Tensor) else type(angles).__name__
        raise TypeError(f"`angles` must be a float32 or float64 tensor, got {got}. Convert it with `.float()`.")
    layer_dims = 2 if n_rotations == 1 else 3
    shape = tuple(angles.shape)
    if angles.dim() < layer_dims or 0 in shape or (n_rotations > 1 and shape[-2] != n_rotations):
        wanted = "(..., depth, n_qubits)" if n_rotations == 1 else f"(..., depth, {n_rotations}, n_qubits)"
        raise ValueError(f"`angles` of ansatz {ansatz!r} must have shape {wanted}, got {shape}. Reshape them.")
    if n_states is not None and not 1 <= n_states <= 2 ** shape[-1]:
        n_qubits = shape[-1]
        raise ValueError(
            f"`n_states`={n_states} is not allowed for {n_qubits} qubits. Set it from 1 to {2**n_qubits}, or to None."
        )
    # On a GPU the question would make the host wait for the device at every step.
    is_checked = angles.device.type == "cpu" and not torch.compiler.is_compiling()
    if is_checked and not math.isfinite(angles.detach().sum().item()):  # half the operations of isfinite().all()
        raise ValueError("`angles` has NaN or infinite values; all must be finite. Lower the learning rate.")
    depth = shape[-layer_dims]
    batch = angles.shape[:-layer_dims]
    return angles.reshape(math.prod(batch), depth, n_rotations, shape[-1]), batch


def memory_bytes(
    n_qubits: int,
    depth: int,
    n_circuits: int,
    ansatz: str,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    simulator: str | None = None,
) -> int:
    """Return about how many bytes one forward and backward pass takes at its peak.

    Memory does not grow with depth for many qubits, whose layers are undone instead of stored. One array is to spare,
    for what the caller makes of the probabilities.

    Args:
        n_qubits: the number of qubits of each circuit.
        depth: the number of layers.
        n_circuits: the number of circuits in the batch.
        ansatz: the gate pattern, a key of `ANSATZE`.
        dtype: the dtype of the angles, which sets the size of every real number.
        device: the device that simulates.
        simulator: the name of an entry of `SIMULATORS`; None for the fastest that can.

    Example:
        >>> memory_bytes(10, 8, 8, "ry_cnot", simulator="reference")  # 30 arrays for each circuit
        983040
    """
    pattern = find_ansatz(ansatz)
    found = find_simulator(pattern, n_qubits, n_circuits, torch.device(device), dtype, simulator)
    assert found.module is not None
    return found.module.n_arrays(pattern, depth, n_qubits, n_circuits) * dtype.itemsize * 2**n_qubits


def check_memory(
    n_qubits: int,
    depth: int,
    n_circuits: int,
    ansatz: str,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    simulator: str | None = None,
) -> None:
    """Raise if the circuits would not fit in the device's free memory.

    Raises:
        MemoryError: with the bytes needed and the bytes there are.

    Example:
        >>> check_memory(10, 8, 8, "ry_cnot")  # eight circuits of ten qubits fit everywhere
    """
    # The system would kill the process, or swap for hours, where a sentence can still say what to change.
    needed = memory_bytes(n_qubits, depth, n_circuits, ansatz, dtype, device, simulator)
    if needed < CHECKED_FROM_BYTES:
        return
    if torch.device(device).type == "cuda":
        there = torch.cuda.mem_get_info(device)[0]
    else:  # Apple's GPUs use the computer's memory; of others nothing is known
        there = psutil.virtual_memory().available
    if needed > there:
        raise MemoryError(
            f"{n_circuits} circuit(s) of {n_qubits} qubits need about {needed:,} bytes, but {there:,} are free. "
            "Use a larger `chunk_size` (fewer qubits) or fewer `n_circuits`."
        )


def probabilities(
    angles: Float[Tensor, "*batch n_qubits"],
    ansatz: str = "ry_cnot",
    n_states: int | None = None,
    simulator: str | None = None,
) -> Float[Tensor, "*batch n_states"]:
    """Return the exact measurement probabilities of parameterized circuits that start in |0...0>.

    Each of the `depth` layers rotates every qubit and then applies CNOT(q, q+1) for q = 0 .. n_qubits-2, an open
    chain; an ansatz of several rotations does so once for each, and one of your own (`register_ansatz`) may have
    another entangler. The simulation is exact and differentiable (once), and gives the same bits with and without
    gradients.

    Source: Eq. 1 and 12-14 of https://huggingface.co/papers/2410.09846.

    Args:
        angles: the rotation angles in radians, float32 or float64, shape (..., depth, n_qubits), or (..., depth,
            n_rotations, n_qubits) for an ansatz of several rotations; leading dimensions are independent circuits.
        ansatz: the gate pattern, a key of `ANSATZE`.
        n_states: the number of basis states to return, the first ones; all 2**n_qubits if None.
        simulator: the name of an entry of `qpa_hf.circuit.simulators.SIMULATORS`; None for the fastest that can.

    Returns:
        Probabilities, shape (..., 2**n_qubits) or (..., n_states), of the angles' dtype. Qubit 0 is the most
        significant bit of the index (PennyLane's order; Qiskit's is reversed).

    Raises:
        TypeError: if `angles` is not a float32 or float64 tensor.
        ValueError: for an unknown ansatz, a wrong shape, more states than there are, angles that are not finite, or a
            simulator that is unknown or cannot simulate such circuits.
        ImportError: if what the named simulator needs is not installed.
        MemoryError: if the states do not fit in memory.

    Example:
        >>> probabilities(torch.tensor([[torch.pi, 0.0]])).round(decimals=3)  # |00> -> |10> -> |11>
        tensor([0., 0., 0., 1.])
    """
    # All leading dimensions are circuits of one batch, because one call costs as much as many circuits of few qubits.
    flat, batch = flat_angles(angles, ansatz, n_states)
    if not torch.is_grad_enabled():
        flat = flat.detach()  # so that a simulator that needs a graph of its own builds none
    if not torch.compiler.is_compiling():
        p = _Probabilities.apply(flat, ansatz, simulator)
    elif is_traceable(simulator):
        p = _traced_forward(flat, ansatz, simulator)
    else:
        p = _untraced(flat, ansatz, simulator)
    return (p if n_states is None else p[:, :n_states]).reshape(*batch, -1)

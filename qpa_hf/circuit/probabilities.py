"""`probabilities`: exact measurement probabilities of a batch of circuits, with gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qpa_hf.circuit import folded, grouped, walsh
from qpa_hf.circuit.ansatz import ANSATZE, Ansatz, find_ansatz
from qpa_hf.circuit.fused import fused

# Measured growth of a process, as arrays of 2**n_qubits real numbers (a complex state is two), rounded up to the next
# whole array: probabilities, their gradient, and a form's own.
GROUPED_STATES = 2  # adjoint and one to spare, beside each circuit's last state
WALSH_ARRAYS = 14
FUSED_ARRAYS, FUSED_STATES = 4, 4  # of each circuit, beside its last state; of all together
FOLDED_STATES_PER_LAYER = {1: 17, 2: 22}  # by rotations a layer: its matrices outweigh the states it keeps
FUSED = {"cuda": ("triton", "qpa_hf.circuit.kernels"), "cpu": ("numba", "qpa_hf.circuit.compiled")}
CHECKED_FROM_BYTES = 2**30  # below, asking the machine would cost more than it saves


def _simulator(n_qubits: int, ansatz: Ansatz, n_circuits: int, device_type: str) -> ModuleType:
    """Return the fastest way to simulate."""
    axes, kernels = ansatz.rotations, fused(*FUSED[device_type]) if device_type in FUSED else None
    if kernels is not None and n_qubits <= kernels.MAX_QUBITS:
        return kernels
    if axes == ("x",):
        return walsh
    is_foldable = axes in (("y",), ("x", "z"), ("y", "z"))
    n_numbers = n_circuits * 2**n_qubits * (1 if ansatz.is_real else 2)
    is_small = n_qubits <= folded.FEW_QUBITS or (n_qubits <= folded.MAX_QUBITS and n_numbers <= folded.MAX_NUMBERS)
    return folded if is_foldable and is_small else grouped


def _without_autocast(simulate: Callable[..., Any]) -> Callable[..., Any]:
    """Keep autocast out: states in bfloat16 would be off by a per cent."""

    @functools.wraps(simulate)
    def wrapped(angles: Tensor, *args: Any) -> Any:
        if not torch.is_autocast_enabled(angles.device.type):
            return simulate(angles, *args)
        with torch.autocast(angles.device.type, enabled=False):
            return simulate(angles, *args)

    return wrapped


def _simulator_for(angles: Tensor, ansatz: str) -> ModuleType:
    return _simulator(angles.shape[-1], ANSATZE[ansatz], len(angles), angles.device.type)


@_without_autocast
def _forward(angles: Tensor, ansatz: str) -> tuple[Tensor, Any]:
    n_circuits, depth, _, n_qubits = angles.shape
    check_memory(n_qubits, depth, n_circuits, ansatz, str(angles.device), angles.dtype)
    return _simulator_for(angles, ansatz).forward(angles, ANSATZE[ansatz].rotations)


@_without_autocast
def _backward(angles: Tensor, kept: Any, grad: Tensor, ansatz: str) -> Tensor:
    return _simulator_for(angles, ansatz).backward(angles, kept, grad, ANSATZE[ansatz].rotations)


class _Probabilities(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, angles: Tensor, ansatz: str) -> Tensor:
        p, ctx.kept = _forward(angles, ansatz)
        ctx.ansatz = ansatz
        ctx.save_for_backward(angles)
        return p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (angles,) = ctx.saved_tensors
        # Given away, not lent: many qubits overwrite it, and a living `p` must not hold it. Only a second backward
        # pass, through a retained graph, makes it anew.
        kept, ctx.kept = ctx.kept, None
        if kept is None:
            kept = _forward(angles, ctx.ansatz)[1]
        return _backward(angles, kept, grad.contiguous(), ctx.ansatz), None


# torch.compile sees the circuit as one operation, so its tables never enter a traced graph. What the forward pass
# keeps differs between the forms, so a compiled backward pass makes it anew.
@torch.library.custom_op("qpa_hf::probabilities", mutates_args=())
def _traced_forward(angles: Tensor, ansatz: str) -> Tensor:
    return _forward(angles, ansatz)[0]


@_traced_forward.register_fake
def _(angles: Tensor, ansatz: str) -> Tensor:
    return angles.new_empty(angles.shape[0], 2 ** angles.shape[-1])


@torch.library.custom_op("qpa_hf::probabilities_backward", mutates_args=())
def _traced_backward(angles: Tensor, grad: Tensor, ansatz: str) -> Tensor:
    return _backward(angles, _forward(angles, ansatz)[1], grad.contiguous(), ansatz).contiguous()


@_traced_backward.register_fake
def _(angles: Tensor, grad: Tensor, ansatz: str) -> Tensor:
    return torch.empty_like(angles, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.ansatz = inputs[1]


def _propagate(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return _traced_backward(ctx.saved_tensors[0], grad, ctx.ansatz), None


_traced_forward.register_autograd(_propagate, setup_context=_keep)


def flat_angles(angles: Tensor, ansatz: str, n_states: int | None = None) -> tuple[Tensor, torch.Size]:
    """Return angles as (n_circuits, depth, rotations a layer, n_qubits), and the leading dimensions that they had.

    Raises:
        TypeError, ValueError: as `probabilities` does, for a wrong type, ansatz, shape or number of states, or angles
            that are not finite.
    """
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
    depth, batch = shape[-layer_dims], angles.shape[:-layer_dims]
    return angles.reshape(math.prod(batch), depth, n_rotations, shape[-1]), batch


def memory_bytes(
    n_qubits: int,
    depth: int,
    n_circuits: int,
    ansatz: str,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> int:
    """Return about how many bytes one forward and backward pass takes at its peak.

    The angles' `dtype` sets the size of a number. Memory does not grow with depth for many qubits, whose layers are
    undone instead of stored. One array is to spare, for what the caller makes of the probabilities.
    """
    rotations, is_real = find_ansatz(ansatz).rotations, ANSATZE[ansatz].is_real
    simulator = _simulator(n_qubits, ANSATZE[ansatz], n_circuits, torch.device(device).type)
    arrays_a_state = 1 if is_real else 2
    if simulator is walsh:
        arrays = n_circuits * WALSH_ARRAYS
    elif simulator is grouped:
        is_stored = n_circuits * 2**n_qubits <= grouped.MAX_STORED
        kept, together = (depth, n_circuits) if is_stored else (1, 1)  # states of each circuit, circuits at a time
        arrays = n_circuits * (kept * arrays_a_state + 3) + together * GROUPED_STATES * arrays_a_state
    elif simulator is folded:
        arrays = n_circuits * (FOLDED_STATES_PER_LAYER[len(rotations)] * depth * arrays_a_state + 3)
    else:
        arrays = n_circuits * (FUSED_ARRAYS + arrays_a_state) + FUSED_STATES * arrays_a_state
    return arrays * dtype.itemsize * 2**n_qubits


def check_memory(
    n_qubits: int,
    depth: int,
    n_circuits: int,
    ansatz: str,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Raise if the circuits would not fit in the device's free memory.

    Raises:
        MemoryError: with the bytes needed and the bytes there are.
    """
    needed = memory_bytes(n_qubits, depth, n_circuits, ansatz, dtype, device)
    if needed < CHECKED_FROM_BYTES:
        return
    if device == "cpu":
        there = psutil.virtual_memory().available
    else:
        there = torch.cuda.mem_get_info(device)[0]
    if needed > there:
        raise MemoryError(
            f"{n_circuits} circuit(s) of {n_qubits} qubits need about {needed:,} bytes, but {there:,} are free. "
            "Use a larger `chunk_size` (fewer qubits) or fewer `n_circuits`."
        )


def probabilities(angles: Tensor, ansatz: str = "ry_cnot", n_states: int | None = None) -> Tensor:
    """Return the exact measurement probabilities of parameterized circuits that start in |0...0>.

    Each of the `depth` layers rotates every qubit and then applies CNOT(q, q+1) for q = 0 .. n_qubits-2, an open
    chain; the two-rotation ansätze do so twice. The simulation is exact and differentiable (once), keeps amplitudes
    real where the ansatz is real, and gives the same bits with and without gradients.

    Source: Eq. 1 and 12-14 of https://huggingface.co/papers/2410.09846.

    Args:
        angles: float32 or float64, radians, shape (..., depth, n_qubits), or (..., depth, 2, n_qubits) for the
            two-rotation ansätze; leading dimensions are independent circuits.
        ansatz: a key of `ANSATZE`.
        n_states: return only the first `n_states` basis states; all 2**n_qubits if None.

    Returns:
        Probabilities, shape (..., 2**n_qubits) or (..., n_states), of the angles' dtype. Qubit 0 is the most
        significant bit of the index (PennyLane's order; Qiskit's is reversed).

    Raises:
        TypeError: if `angles` is not a float32 or float64 tensor.
        ValueError: for an unknown ansatz, a wrong shape, more states than there are, or angles that are not finite.
        MemoryError: if the states do not fit in memory.

    Example:
        >>> probabilities(torch.tensor([[torch.pi, 0.0]])).round(decimals=3)  # |00> -> |10> -> |11>
        tensor([0., 0., 0., 1.])
    """
    flat, batch = flat_angles(angles, ansatz, n_states)
    if torch.compiler.is_compiling():
        p = _traced_forward(flat, ansatz)
    else:
        p = _Probabilities.apply(flat, ansatz)
    return (p if n_states is None else p[:, :n_states]).reshape(*batch, -1)

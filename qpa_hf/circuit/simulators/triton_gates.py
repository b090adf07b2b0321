# mypy: disallow-untyped-defs=False
"""Small circuits on a GPU: one Triton kernel forward and one backward, for all circuits together.

What costs time there is the number of kernels that are launched, not the arithmetic. One program simulates one
circuit, its 2**n_qubits amplitudes spread over the registers of its threads. The backward pass undoes the gates,
beginning with the final state, so that nothing is kept of the layers between.

A rotation about an axis sigma is cos(a/2) - i sin(a/2) sigma: the state is mixed with what -i sigma makes of it, which
takes each amplitude from the partner whose index differs in the qubit's bit. For N = 2, qubit 0 has the bit 2, and
|00> and |10> are partners.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from qpa_hf.circuit.ansatz import Ansatz
from qpa_hf.circuit.simulators import compilers

if TYPE_CHECKING:
    from qpa_hf.circuit.simulators.shapes import Angles, Probabilities

MAX_QUBITS = 12  # state and adjoint, complex: 64 registers a thread with 8 warps


@triton.jit
def _generated(re, im, index, bit, AXIS: tl.constexpr, IS_REAL: tl.constexpr):
    """Return -i * sigma applied to the qubit whose bit of the index is `bit`, as real and imaginary part."""
    # -i X |0> = -i |1> exchanges partners, and real with imaginary parts. -i Y exchanges partners and stays real. -i Z
    # exchanges real with imaginary parts alone.
    is_one = (index & bit) != 0
    if AXIS == "z":
        return tl.where(is_one, -im, im), tl.where(is_one, re, -re)
    partner = index ^ bit
    if AXIS == "x":
        return tl.gather(im, partner, 0), -tl.gather(re, partner, 0)
    flipped = tl.gather(re, partner, 0)
    of_re = tl.where(is_one, flipped, -flipped)
    if IS_REAL:
        return of_re, im
    flipped = tl.gather(im, partner, 0)
    return of_re, tl.where(is_one, flipped, -flipped)


@triton.jit
def _permuted(re, im, source, IS_REAL: tl.constexpr):
    # A gather through shared memory: an amplitude's partner may be in the registers of any thread.
    re = tl.gather(re, source, 0)
    if not IS_REAL:
        im = tl.gather(im, source, 0)
    return re, im


@triton.jit
def _rotated(re, im, index, angles, N: tl.constexpr, AXIS: tl.constexpr, IS_REAL: tl.constexpr):
    for qubit in range(N):
        half = tl.load(angles + qubit) / 2
        gen_re, gen_im = _generated(re, im, index, 1 << (N - 1 - qubit), AXIS, IS_REAL)
        re = tl.cos(half) * re + tl.sin(half) * gen_re
        if not IS_REAL:
            im = tl.cos(half) * im + tl.sin(half) * gen_im
    # The chain of CNOTs is a prefix XOR of the bits, so each new amplitude comes from the Gray code of its index.
    return _permuted(re, im, index ^ (index >> 1), IS_REAL)


@triton.jit
def _unrotated(
    re, im, adj_re, adj_im, index, angles, grads, N: tl.constexpr, AXIS: tl.constexpr, IS_REAL: tl.constexpr
):
    """Undo the chain and the rotations on state and adjoint, and store the gradients of the angles."""
    # The prefix XOR in doubling steps, as `chain_target` does it.
    source = index ^ (index >> 1)
    source = source ^ (source >> 2)
    source = source ^ (source >> 4)
    source = source ^ (source >> 8)  # enough for 16 qubits
    re, im = _permuted(re, im, source, IS_REAL)
    adj_re, adj_im = _permuted(adj_re, adj_im, source, IS_REAL)
    for qubit in range(N):
        half = tl.load(angles + qubit) / 2
        bit = 1 << (N - 1 - qubit)
        # The generator commutes with its rotation, so the slope is the same before and after it is undone.
        gen_re, gen_im = _generated(re, im, index, bit, AXIS, IS_REAL)
        overlap = adj_re * gen_re
        if not IS_REAL:
            overlap += adj_im * gen_im
        tl.store(grads + qubit, 0.5 * tl.sum(overlap, 0))
        re = tl.cos(half) * re - tl.sin(half) * gen_re
        gen_adj_re, gen_adj_im = _generated(adj_re, adj_im, index, bit, AXIS, IS_REAL)
        adj_re = tl.cos(half) * adj_re - tl.sin(half) * gen_adj_re
        if not IS_REAL:
            im = tl.cos(half) * im - tl.sin(half) * gen_im
            adj_im = tl.cos(half) * adj_im - tl.sin(half) * gen_adj_im
    return re, im, adj_re, adj_im


@triton.jit(do_not_specialize=["depth"])  # compiled once for all depths
def forward_kernel(
    angles, states, p, depth, N: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, IS_REAL: tl.constexpr
):
    """angles (C, depth, R, N) -> states (C, 2 or 1, 2**N) and p (C, 2**N)."""
    SIZE: tl.constexpr = 1 << N
    ROTATIONS: tl.constexpr = 1 if SECOND == "" else 2
    circuit = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, SIZE)
    # The circuit starts in |0...0>, which is real, and stays so if IS_REAL: `im` is then never touched.
    re = tl.where(index == 0, 1.0, 0.0).to(angles.dtype.element_ty)
    im = tl.zeros_like(re)
    angles += circuit * depth * ROTATIONS * N
    for layer in range(depth):
        re, im = _rotated(re, im, index, angles + layer * ROTATIONS * N, N, FIRST, IS_REAL)
        if ROTATIONS == 2:
            re, im = _rotated(re, im, index, angles + (2 * layer + 1) * N, N, SECOND, IS_REAL)
    probability = re * re
    if IS_REAL:
        tl.store(states + circuit * SIZE + index, re)
    else:
        tl.store(states + 2 * circuit * SIZE + index, re)
        tl.store(states + (2 * circuit + 1) * SIZE + index, im)
        probability += im * im
    tl.store(p + circuit * SIZE + index, probability)


@triton.jit(do_not_specialize=["depth"])
def backward_kernel(
    angles,
    states,
    grad_p,
    grads,
    depth,
    N: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    IS_REAL: tl.constexpr,
):
    """states as `forward_kernel` left them and grad_p (C, 2**N) -> grads (C, depth, R, N)."""
    SIZE: tl.constexpr = 1 << N
    ROTATIONS: tl.constexpr = 1 if SECOND == "" else 2
    circuit = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, SIZE)
    # p is the square of an amplitude: the adjoint is twice the gradient of p times the state.
    twice = 2 * tl.load(grad_p + circuit * SIZE + index)
    if IS_REAL:
        re = tl.load(states + circuit * SIZE + index)
        im = re
    else:
        re = tl.load(states + 2 * circuit * SIZE + index)
        im = tl.load(states + (2 * circuit + 1) * SIZE + index)
    adj_re, adj_im = twice * re, twice * im
    angles += circuit * depth * ROTATIONS * N
    grads += circuit * depth * ROTATIONS * N
    for undone in range(depth):
        start = (depth - 1 - undone) * ROTATIONS * N
        if ROTATIONS == 2:
            re, im, adj_re, adj_im = _unrotated(
                re, im, adj_re, adj_im, index, angles + start + N, grads + start + N, N, SECOND, IS_REAL
            )
        re, im, adj_re, adj_im = _unrotated(
            re, im, adj_re, adj_im, index, angles + start, grads + start, N, FIRST, IS_REAL
        )


def compile_options(axes: tuple[str, ...], n_qubits: int) -> tuple[dict[str, object], dict[str, object]]:
    """Return the kernels' constants for an ansatz' rotation axes, and the compiler's options."""
    second = axes[1] if len(axes) == 2 else ""
    constants = {"N": n_qubits, "FIRST": axes[0], "SECOND": second, "IS_REAL": axes == ("y",)}
    # 8 to 16 amplitudes a thread, where there are so many. Fused multiply-adds round once less.
    return constants, {"num_warps": min(8, max(1, 2**n_qubits // 256)), "enable_fp_fusion": True}


def _launch(kernel: Any, tensors: tuple[Tensor, ...], axes: str) -> None:
    n_circuits, depth, _, n_qubits = tensors[0].shape
    constants, options = compile_options(tuple(axes), n_qubits)
    # Triton launches on the current device, which is not always that of the tensors.
    with torch.cuda.device_of(tensors[0]):
        kernel[(n_circuits,)](*tensors, depth, **constants, **options)


# Torch is told of both launches and of what they return, so that a step can be traced where there is no GPU.
_LIBRARY = torch.library.Library("qpa_hf", "FRAGMENT")
_LIBRARY.define("triton_forward(Tensor angles, str axes) -> (Tensor, Tensor)")
_LIBRARY.define("triton_backward(Tensor angles, Tensor states, Tensor grad, str axes) -> Tensor")


@torch.library.register_fake("qpa_hf::triton_forward", lib=_LIBRARY)
def _forward_made(angles: Tensor, axes: str) -> tuple[Tensor, Tensor]:
    n_circuits, n_states = len(angles), 2 ** angles.shape[-1]
    states = angles.new_empty(n_circuits, 1 if axes == "y" else 2, n_states)
    return angles.new_empty(n_circuits, n_states), states


@torch.library.register_fake("qpa_hf::triton_backward", lib=_LIBRARY)
def _backward_made(angles: Tensor, states: Tensor, grad: Tensor, axes: str) -> Tensor:
    return torch.empty_like(angles, memory_format=torch.contiguous_format)


@torch.library.impl(_LIBRARY, "triton_forward", "CompositeExplicitAutograd")
def _forward(angles: Tensor, axes: str) -> tuple[Tensor, Tensor]:
    p, states = _forward_made(angles, axes)
    _launch(forward_kernel, (angles, states, p), axes)
    return p, states


@torch.library.impl(_LIBRARY, "triton_backward", "CompositeExplicitAutograd")
def _backward(angles: Tensor, states: Tensor, grad: Tensor, axes: str) -> Tensor:
    grads = _backward_made(angles, states, grad, axes)
    _launch(backward_kernel, (angles, states, grad, grads), axes)
    return grads


def can(ansatz: Ansatz, n_qubits: int, n_circuits: int) -> bool:
    """Return whether a layer has one rotation or two, about any axes, each before the chain of CNOTs."""
    return n_qubits <= MAX_QUBITS and len(ansatz.rotations) <= 2 and ansatz.is_cnot_chain


n_arrays = compilers.n_arrays


def forward(angles: Angles, ansatz: Ansatz) -> tuple[Probabilities, Tensor]:
    """Return the probabilities (C, 2**N) and the final states, given angles (C, L, R, N)."""
    return torch.ops.qpa_hf.triton_forward(angles.contiguous(), "".join(ansatz.rotations))


def backward(angles: Angles, states: Tensor, grad: Probabilities, ansatz: Ansatz) -> Angles:
    """Return the gradient of the angles (C, L, R, N), given that of the probabilities (C, 2**N)."""
    return torch.ops.qpa_hf.triton_backward(angles.contiguous(), states, grad, "".join(ansatz.rotations))

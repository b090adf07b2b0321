"""TorchQuantum, the simulator that the paper used, gate by gate as the authors do; it is taken by name alone.

It computes in complex64 and keeps every state for its backward pass: depth * n_qubits states and more.
"""

from __future__ import annotations

import re
import warnings
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qpa_hf.circuit.ansatz import Ansatz

if TYPE_CHECKING:
    from qpa_hf.circuit.simulators.shapes import Angles, Probabilities

# Of a circuit, from its peak of 4.5 GB with 20 qubits and 8 layers of R_Y: each rotation and its CNOT keep states.
ARRAYS_A_ROTATION = 7
ARRAYS = 6

# What TorchQuantum 0.1.8 needs and does not install, or installs in a version that it does not work with, by what its
# failed import says; the first that matches.
REMEDIES = {
    r"No module named 'torchquantum'": "Install it alone: pip install --no-deps torchquantum==0.1.8.",
    r"No module named 'qiskit_ibm_runtime'": "Install that too: pip install qiskit-ibm-runtime==0.20.0.",
    r"No module named 'pkg_resources'": 'Install an older setuptools: pip install "setuptools<80".',
    r"qiskit": "It needs qiskit before 1.0: pip install qiskit==0.46.3 qiskit-aer==0.14.2 qiskit-ibm-runtime==0.20.0.",
    r"No module named 'torchvision'": "Install the torchvision that was released with your torch.",
    r"torchvision": "Your torchvision was made for another torch: install the one that was released with yours.",
    r"": "Its tested requirements are in benchmarks/torchquantum.",
}


def load_torchquantum() -> ModuleType:
    """Import TorchQuantum.

    Raises:
        ImportError: one sentence that says what to install.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations of the old qiskit that it needs
            import torchquantum
    # A torchvision made for another torch fails with RuntimeError or OSError, inside its compiled parts.
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        remedy = next(advice for pattern, advice in REMEDIES.items() if re.search(pattern, str(error)))
        raise ImportError(
            f"`backend`='torchquantum' cannot import TorchQuantum ({reason}). {remedy} `make torchquantum` makes an "
            "environment with all of it; backend='exact' gives the same numbers without it."
        ) from error
    return torchquantum


def can(ansatz: Ansatz, n_qubits: int, n_circuits: int) -> bool:
    """Return True: TorchQuantum has the gates of every ansatz."""
    return True


def n_arrays(ansatz: Ansatz, depth: int, n_qubits: int, n_circuits: int) -> int:
    """Return the memory of a forward and a backward pass, in arrays of 2**n_qubits real numbers."""
    return n_circuits * (ARRAYS_A_ROTATION * depth * len(ansatz.rotations) * n_qubits + ARRAYS)


def forward(angles: Angles, ansatz: Ansatz) -> tuple[Probabilities, tuple[Tensor, Tensor]]:
    """Return the probabilities, and the angles and probabilities that TorchQuantum's graph connects."""
    tq = load_torchquantum()
    gates = {"x": tq.functional.rx, "y": tq.functional.ry, "z": tq.functional.rz}
    n_circuits, _, _, n_qubits = angles.shape
    leaf = angles.detach().requires_grad_(angles.requires_grad)
    # TorchQuantum has no backward pass but autograd's, so that its graph is made here, inside of our own operation.
    with torch.set_grad_enabled(leaf.requires_grad):
        device = tq.QuantumDevice(n_wires=n_qubits, bsz=n_circuits, device=angles.device)
        for layer in leaf.unbind(1):
            for axis, row in zip(ansatz.rotations, layer.unbind(1), strict=True):
                for qubit, angle in enumerate(row.unbind(1)):  # (n_circuits,)
                    gates[axis](device, wires=qubit, params=angle)
                for gate, control, target in ansatz.entangling_gates(n_qubits):
                    getattr(tq.functional, gate)(device, wires=[control, target])
        p = device.get_states_1d().abs().square().to(angles.dtype)
    return p.detach(), (leaf, p)


def backward(
    angles: Angles,
    kept: tuple[Tensor, Tensor],
    grad: Probabilities,
    ansatz: Ansatz,
) -> Angles:
    """Return the gradient of the angles, given that of the probabilities."""
    # The graph is freed here; through a retained graph `probabilities` runs the forward pass anew.
    leaf, p = kept
    return torch.autograd.grad(p, leaf, grad)[0]

"""The same probabilities from TorchQuantum, the simulator that the paper used."""

from __future__ import annotations

import re
import warnings
from types import ModuleType

import torch
from torch import Tensor

from qpa_hf.circuit.ansatz import ANSATZE
from qpa_hf.circuit.probabilities import flat_angles

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


def torchquantum_probabilities(angles: Tensor, ansatz: str = "ry_cnot", n_states: int | None = None) -> Tensor:
    """Return what `probabilities` returns, gate by gate on a `torchquantum.QuantumDevice`, as the authors do.

    TorchQuantum computes in complex64 and keeps every state for its backward pass: depth * n_qubits states and more.

    Args:
        angles: float32 or float64, radians, shape (..., depth, n_qubits), or (..., depth, 2, n_qubits) for the
            two-rotation ansätze; leading dimensions are one batch of the device.
        ansatz: a key of `ANSATZE`.
        n_states: return only the first `n_states` basis states; all 2**n_qubits if None.

    Returns:
        Probabilities, shape (..., 2**n_qubits) or (..., n_states), of the angles' dtype.

    Raises:
        ImportError: if TorchQuantum cannot be imported.
        TypeError: if `angles` is not a float32 or float64 tensor.
        ValueError: for an unknown ansatz, a wrong shape, more states than there are, or angles that are not finite.
    """
    layers, batch = flat_angles(angles, ansatz, n_states)
    tq = load_torchquantum()
    gates = {"x": tq.functional.rx, "y": tq.functional.ry, "z": tq.functional.rz}
    rotations, n_qubits = ANSATZE[ansatz].rotations, angles.shape[-1]
    with torch.autocast(angles.device.type, enabled=False):
        device = tq.QuantumDevice(n_wires=n_qubits, bsz=len(layers), device=angles.device)
        for layer in layers.unbind(1):
            for axis, row in zip(rotations, layer.unbind(1), strict=True):
                for qubit, angle in enumerate(row.unbind(1)):  # (n_circuits,)
                    gates[axis](device, wires=qubit, params=angle)
                for qubit in range(n_qubits - 1):
                    tq.functional.cnot(device, wires=[qubit, qubit + 1])
        p = device.get_states_1d().abs().square().to(angles.dtype)
    return p[:, :n_states].reshape(*batch, -1)

"""Noise and devices: which ansätze they take, and that they run these and no others."""

import itertools

import pytest
import torch

from qpa_hf import QPAConfig
from qpa_hf.circuit import ENTANGLERS, Ansatz, register_ansatz
from qpa_hf.circuit.simulators import reference
from qpa_hf.measurement.device import aer_probabilities, sample
from qpa_hf.measurement.device.circuits import native_qiskit_circuit
from qpa_hf.measurement.device.job import job_key
from qpa_hf.measurement.noise import find_snapshot, noisy_probabilities
from qpa_hf.measurement.noise.trajectories import trajectory_probabilities

PATTERNS = [axes for n in (1, 2, 3) for axes in itertools.product("xyz", repeat=n)]
DEPTH = 2


def draw(axes, n_qubits):
    rng = torch.Generator().manual_seed(n_qubits)
    return torch.randn(1, DEPTH, len(axes), n_qubits, dtype=torch.float64, generator=rng) * 2


def own(axes, angles):
    """Register a pattern; return its name, its angles in the shape that it has, and its ideal probabilities."""
    ansatz, name = Ansatz(axes), f"own_{''.join(axes)}"
    register_ansatz(name, ansatz)
    shaped = angles.squeeze(2) if len(axes) == 1 else angles
    return name, shaped, reference.forward(angles, ansatz)[0]


@pytest.mark.parametrize("n_qubits", [1, 2, 3, 4, 5])
def test_without_errors_a_device_gives_every_pattern_s_ideal_probabilities(n_qubits, registry):
    silent = find_snapshot("fez").scaled(0)
    for axes in PATTERNS:
        name, angles, expected = own(axes, draw(axes, n_qubits))
        torch.testing.assert_close(noisy_probabilities(angles, name, silent), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n_qubits", [1, 3])
def test_without_errors_a_trajectory_is_every_pattern_s_ideal_state(n_qubits, registry):
    silent = find_snapshot("fez").scaled(0)
    for axes in PATTERNS:
        name, angles, expected = own(axes, draw(axes, n_qubits))
        found = trajectory_probabilities(angles.reshape(1, -1, n_qubits), name, silent, 1, seed=0)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n_qubits", [1, 2, 3, 4, 5])
def test_a_device_s_gates_make_every_pattern(n_qubits, registry):
    quantum_info = pytest.importorskip("qiskit.quantum_info")
    for axes in PATTERNS:
        name, angles, expected = own(axes, draw(axes, n_qubits))
        circuit = native_qiskit_circuit(name, DEPTH, n_qubits).remove_final_measurements(inplace=False)
        bound = circuit.assign_parameters(angles.flatten().tolist())
        p = quantum_info.Statevector(bound.reverse_bits()).probabilities()
        torch.testing.assert_close(torch.tensor(p)[None], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("entangler", [name for name in ENTANGLERS if name != "cnot_chain"])
def test_what_a_line_of_qubits_cannot_run_is_refused(entangler, registry, tmp_path):
    register_ansatz("own", Ansatz(("y",), entangler))
    angles = torch.zeros(1, 2, 3)
    calls = {
        "noise": lambda: noisy_probabilities(angles, "own"),
        "device": lambda: sample(angles, "own", 10, "fake_fez", tmp_path),
        "Aer": lambda: aer_probabilities(angles, "own"),
        "config with noise": lambda: QPAConfig(ansatz="own", noise="fez"),
        "config with a device": lambda: QPAConfig(ansatz="own", backend="ibm", device="ibm_fez", shots=10),
    }
    for call in calls.values():
        with pytest.raises(ValueError, match=f"`ansatz`='own' has the entangler '{entangler}', but noise and devices"):
            call()


def test_counts_of_a_name_are_not_those_of_another_pattern_of_that_name(registry):
    angles, keys = torch.zeros(1, 2, 3), set()
    for axes in ("y", "x"):
        registry.clear()
        register_ansatz("own", Ansatz((axes,)))
        keys.add(job_key(angles, "own", 10, "fake_fez", 0))
    assert len(keys) == 2

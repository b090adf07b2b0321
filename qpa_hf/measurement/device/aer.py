"""The reference: Qiskit Aer with a device's calibration, on the circuit as Qiskit's transpiler makes it."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qpa_hf.circuit.export import to_qiskit
from qpa_hf.circuit.probabilities import flat_angles
from qpa_hf.measurement.noise.channels import readout_matrix
from qpa_hf.measurement.noise.native import find_native
from qpa_hf.measurement.noise.snapshot import DEVICES, find_snapshot

if TYPE_CHECKING:
    from jaxtyping import Float

FAKES = {"torino": "FakeTorino", "fez": "FakeFez"}
# Level 1 merges neighbouring one-qubit gates and nothing else, so that all circuits of an ansatz have the same gates;
# the layout, which level 1 would not choose by the qubits' errors, is the snapshot's.
OPTIMIZATION_LEVEL, TRANSPILER_SEED = 1, 0


def fake_backend(device: str) -> Any:
    """Return qiskit-ibm-runtime's fake backend of a device.

    Raises:
        ImportError: if qiskit-ibm-runtime is not installed.
        ValueError: if `device` is not known.
    """
    if device not in FAKES:
        known = ", ".join(map(repr, DEVICES))
        raise ValueError(f"`device`={device!r} is not a known device. Choose one of {known}.")
    return _backend(device)


@lru_cache(maxsize=len(FAKES))
def _backend(device: str) -> Any:
    try:
        from qiskit_ibm_runtime import fake_provider
    except ImportError as error:
        raise ImportError(
            "The calibration of a device comes with qiskit-ibm-runtime. Install it with `pip install 'qpa-hf[noise]'`."
        ) from error
    return getattr(fake_provider, FAKES[device])()


def qiskit_circuit(angles: Float[Tensor, "*layers n_qubits"], ansatz: str) -> Any:
    """Return one circuit as a `QuantumCircuit` that measures every qubit.

    Args:
        angles: the rotation angles in radians, shape (depth, n_qubits), or (depth, n_rotations, n_qubits) for an
            ansatz of several rotations.
        ansatz: the gate pattern, a key of `ANSATZE`.
    """
    circuit = to_qiskit(angles, ansatz)
    circuit.measure_all()
    return circuit


def transpile_circuits(circuits: list[Any], backend: Any, line: tuple[int, ...]) -> list[Any]:
    """Return circuits in the device's gates, scheduled as late as possible, with their idle times as delays.

    Args:
        circuits: the circuits, all of the same number of qubits.
        backend: the device to transpile for.
        line: the physical qubits that the circuits' qubits are laid out on.
    """
    from qiskit import transpile

    return transpile(
        circuits,
        backend,
        initial_layout=list(line),
        optimization_level=OPTIMIZATION_LEVEL,
        seed_transpiler=TRANSPILER_SEED,
        scheduling_method="alap",
    )


def import_aer() -> Any:
    """Import Qiskit Aer.

    Raises:
        ImportError: one sentence that says what to install.
    """
    try:
        import qiskit_aer
    except ImportError as error:
        raise ImportError(
            "Aer's noise model needs qiskit-aer. Install it with `pip install 'qpa-hf[noise]'`; "
            "`noisy_probabilities` needs neither."
        ) from error
    return qiskit_aer


def restrict(backend: Any, line: tuple[int, ...]) -> Any:
    """Return a backend with the gates and calibration of some of a device's qubits, under their own numbers.

    Nothing else of the device can change a circuit there, but Aer would prepare the errors of all its gates anew for
    every job, which takes seconds.
    """
    from qiskit.providers import BackendV2, Options
    from qiskit.transpiler import Target

    whole = backend.target
    part = Target(num_qubits=whole.num_qubits, dt=whole.dt, qubit_properties=whole.qubit_properties)
    for name in ("sx", "x", "rz", "cz", "delay", "measure"):
        there = {where: how for where, how in whole[name].items() if set(where) <= set(line)}
        part.add_instruction(whole.operation_from_name(name), there)

    class Restricted(BackendV2):
        target, max_circuits = part, None

        @classmethod
        def _default_options(cls) -> Any:
            return Options()

        def run(self, run_input: Any, **options: Any) -> Any:
            raise NotImplementedError("Aer runs the circuits; this only describes the device.")

    return Restricted(name=backend.name)


@lru_cache(maxsize=64)
def aer_simulator(device: str, n_qubits: int) -> Any:
    """Return Aer's density-matrix simulator with the noise model that Aer makes of a device's calibration.

    Args:
        device: the device's name, "torino" or "fez".
        n_qubits: the number of qubits of each circuit; they run on the snapshot's line of so many qubits.

    Raises:
        ImportError: if Aer or qiskit-ibm-runtime is missing.
        ValueError: if the device is not known, or too small.
    """
    qiskit_aer = import_aer()
    backend = fake_backend(device)
    part = restrict(backend, find_snapshot(device).line(n_qubits))
    return qiskit_aer.AerSimulator.from_backend(part, method="density_matrix", max_parallel_threads=1)


def aer_probabilities(
    angles: Float[Tensor, "*batch n_qubits"], ansatz: str = "ry_cnot", device: str = "torino"
) -> Float[Tensor, "*batch n_states"]:
    """Return the probabilities that Aer computes for circuits on a device, readout error included.

    Every circuit is transpiled to the device's gates and coupling map, on the snapshot's line of qubits, and runs as
    a density matrix with Aer's own model of the device: this is what `noisy_probabilities` is measured against. It
    has no gradient.

    Args:
        angles: the rotation angles in radians, float32 or float64, shape (..., depth, n_qubits), or (..., depth,
            n_rotations, n_qubits) for an ansatz of several rotations.
        ansatz: the gate pattern, a key of `ANSATZE`.
        device: the device's name, "torino" or "fez".

    Returns:
        Probabilities, shape (..., 2**n_qubits), float64. Qubit 0 is the most significant bit.

    Raises:
        ImportError: if Qiskit, Aer or qiskit-ibm-runtime is missing.
        TypeError: if `angles` is not a float32 or float64 tensor.
        ValueError: for an unknown ansatz or device, an entangler that is no chain of CNOTs, a wrong shape, or a
            circuit wider than the device.
    """
    flat, batch = flat_angles(angles, ansatz)
    find_native(ansatz)  # another entangler would be routed, and its qubits be read in another order
    n_qubits = angles.shape[-1]
    simulator = aer_simulator(device, n_qubits)
    snapshot = find_snapshot(device)
    line = snapshot.line(n_qubits)
    circuits = transpile_circuits([qiskit_circuit(one.squeeze(1), ansatz) for one in flat], fake_backend(device), line)
    for index, circuit in enumerate(circuits):
        circuits[index] = circuit.remove_final_measurements(inplace=False)
        circuits[index].save_probabilities(list(reversed(line)))  # Qiskit's first qubit is the least significant bit
    result = simulator.run(circuits).result()
    rows = [torch.as_tensor(result.data(index)["probabilities"]) for index in range(len(circuits))]
    p = torch.stack(rows)  # (C, 2**N)
    # Aer applies readout errors to measurements alone, and saved probabilities come before any: they follow here.
    for index, qubit in enumerate(snapshot.line_qubits(n_qubits)):
        p = p.view(len(circuits), 2**index, 2, -1)
        p = readout_matrix(qubit.false_one, qubit.false_zero) @ p
    return p.reshape(*batch, -1)

"""The devices: fake ones, which Aer simulates here, and those of an IBM Quantum account."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from qpa_hf.circuit.noise.aer import aer_simulator, fake_backend
from qpa_hf.circuit.noise.calibration import choose_line
from qpa_hf.circuit.noise.snapshot import find_snapshot

FAKE_MACHINES = {"fake_torino": "torino", "fake_fez": "fez"}
REAL_PREFIX = "ibm_"


def require_extra(name: str) -> None:
    """Raise if a library that a device needs is not installed; none is imported.

    Args:
        name: of the device; the fake ones are simulated by Aer.

    Raises:
        ImportError: one sentence that names them and says what to install.
    """
    needed = ["qiskit", "qiskit_ibm_runtime", *(["qiskit_aer"] if name in FAKE_MACHINES else [])]
    missing = [library.replace("_", "-") for library in needed if importlib.util.find_spec(library) is None]
    if missing:
        raise ImportError(
            f"`device`={name!r} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed. Install the extra with `pip install 'qpa-hf[noise]'`, or use backend='exact'."
        )


@dataclass(frozen=True, eq=False)
class Machine:
    """A device that jobs can be sent to.

    Args:
        name: its name.
        backend: what circuits are transpiled for.
        mode: what SamplerV2 runs them on.
        line: physical qubits of a circuit's qubits.
        service: the account's service; None for a fake device.
    """

    name: str
    backend: Any
    mode: Any
    line: tuple[int, ...]
    service: Any = None

    def submit(self, circuit: Any, values: Any, shots: int, seed: int, tag: str) -> Any:
        """Send one job: a parameterized circuit and all its angles, (C, n_angles).

        Args:
            circuit: in the device's gates.
            values: radians.
            shots: of each circuit.
            seed: of a fake device's draws; a real one has none.
            tag: by which `find` finds the job again.
        """
        from qiskit_ibm_runtime import SamplerV2

        options = {"environment": {"job_tags": [tag]}}
        if self.service is None:
            options = {"simulator": {"seed_simulator": seed + 1}}  # type: ignore[dict-item]  # 0 would mean none
        with warnings.catch_warnings():
            # Announced for a successor that qiskit-ibm-runtime 0.51 still imports from elsewhere.
            warnings.filterwarnings("ignore", "The SamplerV2 class is deprecated", DeprecationWarning)
            sampler = SamplerV2(mode=self.mode, options=options)
        return sampler.run([(circuit, values)], shots=shots)

    def find(self, tag: str) -> Any:
        """Return the job that was submitted with a tag, or None; fake devices keep none."""
        if self.service is None:
            return None
        jobs = self.service.jobs(limit=1, job_tags=[tag], backend_name=self.name)
        return jobs[0] if jobs else None


def _known() -> str:
    return f"{', '.join(map(repr, FAKE_MACHINES))} (simulated here) or {REAL_PREFIX + '...'!r} (of your account)"


def _connect() -> Any:
    """Return the service of the saved account."""
    try:
        from qiskit_ibm_runtime import QiskitRuntimeService
        from qiskit_ibm_runtime.accounts import AccountNotFoundError
    except ImportError as error:
        raise ImportError(
            "IBM's devices need qiskit-ibm-runtime. Install it with `pip install 'qpa-hf[noise]'`."
        ) from error
    try:
        return QiskitRuntimeService()
    except AccountNotFoundError as error:
        raise RuntimeError(
            "No IBM Quantum account is saved on this computer. Save yours once with "
            "`QiskitRuntimeService.save_account(token=...)`, or use a device that is simulated here: "
            f"{', '.join(map(repr, FAKE_MACHINES))}."
        ) from error


def _real_machine(name: str, n_qubits: int) -> Machine:
    service = _connect()
    from qiskit.providers.exceptions import QiskitBackendNotFoundError

    try:
        backend = service.backend(name)
    except QiskitBackendNotFoundError as error:
        there = ", ".join(repr(backend.name) for backend in service.backends()) or "none"
        raise ValueError(
            f"`device`={name!r} is not in your account, which has {there}. Choose one of those."
        ) from error
    if n_qubits > backend.num_qubits:
        raise ValueError(
            f"A circuit of {n_qubits} qubits does not fit on `device`={name!r}, which has {backend.num_qubits}. "
            "Use fewer qubits: a larger `chunk_size` needs fewer."
        )
    return Machine(name, backend, backend, tuple(choose_line(backend, n_qubits)), service)


@lru_cache(maxsize=16)
def find_machine(name: str, n_qubits: int) -> Machine:
    """Return the device called `name`, for circuits of `n_qubits`.

    Raises:
        ImportError: if Qiskit, Aer or qiskit-ibm-runtime is missing.
        RuntimeError: if the device is IBM's and no account is saved.
        ValueError: if there is no such device, or the circuit is wider than it.
    """
    if name in FAKE_MACHINES:
        device = FAKE_MACHINES[name]
        line = find_snapshot(device).line(n_qubits)
        return Machine(name, fake_backend(device), aer_simulator(device, n_qubits), line)
    if not name.startswith(REAL_PREFIX):
        raise ValueError(f"`device`={name!r} is not known. Choose {_known()}.")
    return _real_machine(name, n_qubits)

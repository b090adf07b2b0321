"""The devices: fake ones, which Aer simulates here, and those of an IBM Quantum account."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from qpa_hf.measurement.device.aer import aer_simulator, fake_backend
from qpa_hf.measurement.device.calibration import choose_line
from qpa_hf.measurement.device.faults import JobFailed, JobRefused, ask, reason
from qpa_hf.measurement.noise.snapshot import find_snapshot

FAKE_MACHINES = {"fake_torino": "torino", "fake_fez": "fez"}
REAL_PREFIX = "ibm_"
SUNSET_CHANNEL = "'ibm_quantum'"  # of accounts before July 2025
SAVE_ACCOUNT = (
    "Save yours with `QiskitRuntimeService.save_account(token=..., overwrite=True)`, or use a device that is "
    f"simulated here: {', '.join(map(repr, FAKE_MACHINES))}"
)
DAMAGED = (ValueError, TypeError, AttributeError, LookupError, PermissionError, IsADirectoryError, FileExistsError)


def require_extra(name: str) -> None:
    """Raise if a library that a device needs is not installed; none is imported.

    Args:
        name: the device's name; the fake ones are simulated by Aer.

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
        name: the device's name.
        backend: the backend that circuits are transpiled for.
        mode: the backend or simulator that SamplerV2 runs them on.
        line: the physical qubits that a circuit's qubits are laid out on.
        service: the service of the account; None for a fake device.
    """

    name: str
    backend: Any
    mode: Any
    line: tuple[int, ...]
    service: Any = None

    def submit(self, circuit: Any, values: Any, shots: int, seed: int, tag: str) -> Any:
        """Send one job: a parameterized circuit and all its angles, (C, n_angles).

        Args:
            circuit: the circuit in the device's gates.
            values: the angles in radians.
            shots: the number of shots of each circuit.
            seed: the seed of a fake device's draws; a real one has none.
            tag: the tag by which `find` finds the job again.
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

    def find(self, tag: str, job_id: str | None) -> Any:
        """Return the job that was submitted with a tag, or None; fake devices keep none.

        Its id is asked for first, if it is known: a list of jobs may lag behind.
        """
        if self.service is None:
            return None
        if job_id is not None:
            from qiskit_ibm_runtime.exceptions import RuntimeJobNotFound

            with contextlib.suppress(RuntimeJobNotFound):
                return self.service.job(job_id)
        jobs = self.service.jobs(limit=1, job_tags=[tag], backend_name=self.name)
        return jobs[0] if jobs else None


def _known() -> str:
    return f"{', '.join(map(repr, FAKE_MACHINES))} (simulated here) or {REAL_PREFIX + '...'!r} (of your account)"


def _connect() -> Any:
    """Return the service of the saved account.

    Raises:
        JobRefused: if there is no account, or none that IBM takes.
        JobFailed: if IBM could not be reached.
    """
    try:
        from qiskit_ibm_runtime import QiskitRuntimeService
    except ImportError as error:
        raise ImportError(
            "IBM's devices need qiskit-ibm-runtime. Install it with `pip install 'qpa-hf[noise]'`."
        ) from error
    try:
        return ask("IBM's service could not be reached", QiskitRuntimeService)
    except RuntimeError as error:
        if (why := _account_fault(error)) is None:
            raise
        raise JobRefused(f"{why}. {SAVE_ACCOUNT}.") from error.__cause__


def _account_fault(error: RuntimeError) -> str | None:
    """Return what is wrong with the account, in IBM's eyes or in its file; None if something else is."""
    from qiskit_ibm_runtime.accounts import AccountNotFoundError
    from qiskit_ibm_runtime.exceptions import IBMError
    from requests import RequestException

    # The client has no class of its own for a damaged file of accounts, which fails in whatever reads it first.
    cause = error.__cause__
    if isinstance(cause, AccountNotFoundError):
        return "No IBM Quantum account is saved on this computer"
    if SUNSET_CHANNEL in str(cause):
        return f"The saved IBM Quantum account is of the channel {SUNSET_CHANNEL}, which IBM has shut down"
    if isinstance(cause, DAMAGED) and not isinstance(cause, (IBMError, RequestException)):
        kind = type(cause).__name__
        return f"The file of IBM Quantum accounts is damaged or cannot be read ({kind}: {reason(cause)}). Remove it"
    if isinstance(error, JobRefused):
        return f"IBM does not take the account that is saved on this computer ({reason(cause or error)})"
    return None


def _backend(service: Any, name: str) -> Any:
    from qiskit.providers.exceptions import QiskitBackendNotFoundError

    try:
        return ask(f"{name} could not be looked for", service.backend, name)
    except JobFailed as error:
        if not isinstance(error.__cause__, QiskitBackendNotFoundError):
            raise
        there = ask("The account's devices could not be listed", service.backends)
        if not there:  # the client says so, too, where the network was away meanwhile
            raise JobFailed(f"IBM's service shows no devices in your account, so {name} is not among them") from error
        raise ValueError(
            f"`device`={name!r} is not in your account, which has {', '.join(repr(one.name) for one in there)}. "
            "Choose one of those."
        ) from error


def _real_machine(name: str, n_qubits: int) -> Machine:
    service = _connect()
    backend = _backend(service, name)
    if n_qubits > backend.num_qubits:
        raise ValueError(
            f"A circuit of {n_qubits} qubits does not fit on `device`={name!r}, which has {backend.num_qubits}. "
            "Use fewer qubits: a larger `chunk_size` needs fewer."
        )
    line = ask(f"{name} could not be asked for its qubits", choose_line, backend, n_qubits)
    return Machine(name, backend, backend, tuple(line), service)


@lru_cache(maxsize=16)
def find_machine(name: str, n_qubits: int) -> Machine:
    """Return the device called `name`, for circuits of `n_qubits`.

    Raises:
        ImportError: if Qiskit, Aer or qiskit-ibm-runtime is missing.
        JobRefused: if the device is IBM's, and there is no account that it takes.
        JobFailed: if IBM could not be reached.
        ValueError: if there is no such device, or the circuit is wider than it.
    """
    if name in FAKE_MACHINES:
        device = FAKE_MACHINES[name]
        line = find_snapshot(device).line(n_qubits)
        return Machine(name, fake_backend(device), aer_simulator(device, n_qubits), line)
    if not name.startswith(REAL_PREFIX):
        raise ValueError(f"`device`={name!r} is not known. Choose {_known()}.")
    return _real_machine(name, n_qubits)

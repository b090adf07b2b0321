"""An account's service in the place of IBM's."""

import pytest


@pytest.fixture
def service(tmp_path, monkeypatch):
    """Let "ibm_torino" be a machine of a stand-in service, whose circuits need no transpiler."""
    pytest.importorskip(
        "qiskit_ibm_runtime", reason="qiskit-ibm-runtime is not installed: pip install 'qpa-hf[noise]'"
    )
    from service import Service, remote

    service = Service(tmp_path / "service")
    machine = remote(service)
    monkeypatch.setattr("qpa_hf.measurement.device.sampling.find_machine", lambda name, n_qubits: machine)
    monkeypatch.setattr("qpa_hf.measurement.device.sampling.device_circuit", lambda *args: None)
    return service

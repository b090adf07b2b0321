"""What the tests of measurements share."""

import pytest


@pytest.fixture
def trajectories(monkeypatch):
    """Draw the errors of small circuits, too, as those of more than 10 qubits: tests would take long with these."""
    monkeypatch.setattr("qpa_hf.measurement.noise.noisy.MAX_DENSITY_QUBITS", 0)

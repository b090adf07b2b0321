"""What the tests of heads share."""

from importlib.util import find_spec

import pytest


@pytest.fixture(params=["compiled", "torch"])
def form(request, monkeypatch):
    """Run a test with the simulation that Numba compiles, and with the one that there is without it."""
    if request.param == "torch":
        monkeypatch.setattr("qpa_hf.heads.circuit.load", lambda *_: None)
    elif find_spec("numba") is None:
        pytest.skip("Numba is not installed")
    return request.param

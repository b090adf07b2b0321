"""Offline before any library asks, and one seed for every test."""

import importlib
import os
from importlib.util import find_spec

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=["compiled", "torch"])
def form(request, monkeypatch):
    """Run a test with the simulations that Numba compiles, and with those that there are without it."""
    if request.param == "torch":
        for room in ("qpa_hf.circuit.probabilities", "qpa_hf.heads.circuit"):
            monkeypatch.setattr(importlib.import_module(room), "fused", lambda *_: None)
    elif find_spec("numba") is None:
        pytest.skip("Numba is not installed")
    return request.param

"""Offline before any library asks, and one seed for every test."""

import os
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch

from qpa_hf.files import unfinished


def pytest_addoption(parser):
    parser.addoption("--strict-warnings", action="store_true", help="make each warning an error, as the gate does")


def pytest_configure(config):
    if config.getoption("--strict-warnings"):
        config.getini("filterwarnings").insert(0, "error")  # first, so that what setup.cfg ignores stays ignored


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def gone():
    """What the names of unfinished files say of a process that there is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with unfinished(Path("any")) as path:
        writer = path.name.split(".")[2]
    computer, _, start, rest = writer.split("-")
    return f"{computer}-{process.pid}-{start}-{rest}"


@pytest.fixture
def registry(monkeypatch):
    """Give a test an empty table of registered ansätze of its own."""
    table = {}
    monkeypatch.setattr("qpa_hf.circuit.ansatz._registered", table)
    return table


@pytest.fixture(autouse=True)
def _trainer_settings():
    """Forget the precision and the compiler of a test's Trainer, which transformers 4 keeps for all later ones."""
    yield
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]

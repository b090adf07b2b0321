"""Without the `noise` extra: torch alone must do, and what needs more must say which."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import importlib.abc, json, sys, tempfile
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"qiskit", "qiskit_aer", "qiskit_ibm_runtime"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
import torch
from qpa_hf.measurement.device import aer_probabilities, sample
from qpa_hf.measurement.noise import noisy_probabilities
angles, said = torch.zeros(1, 2), {}
for name, call in {
    "own noise": lambda: noisy_probabilities(angles),
    "aer": lambda: aer_probabilities(angles),
    "fake device": lambda: sample(angles, "ry_cnot", 10, "fake_torino", tempfile.mkdtemp()),
    "real device": lambda: sample(angles, "ry_cnot", 10, "ibm_torino", tempfile.mkdtemp()),
}.items():
    try:
        call()
        said[name] = "done"
    except ImportError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def test_own_noise_needs_torch_alone(said):
    assert said["own noise"] == "done"


@pytest.mark.parametrize("name", ["aer", "fake device", "real device"])
def test_missing_extra_is_named(said, name):
    assert "pip install 'qpa-hf[noise]'" in said[name]

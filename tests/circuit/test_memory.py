"""Memory of the simulation: announced, measured, and refused before anything is allocated."""

import os
import subprocess
import sys

import pytest
import torch

from qpa_hf.circuit import check_memory, memory_bytes


def test_too_many_qubits_are_refused_before_allocating():
    needed = memory_bytes(45, 8, 1, "ry_cnot")
    with pytest.raises(MemoryError, match=f"45 qubits need about {needed:,} bytes, but .* are free"):
        check_memory(45, 8, 1, "ry_cnot")


PEAK = """
import torch
from qpa_hf.circuit import angles_shape, probabilities

def read(key):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))

def run(n_circuits, n_qubits):
    shape = n_circuits, *angles_shape({ansatz!r}, 3, n_qubits)
    angles = torch.randn(shape, dtype={dtype}, requires_grad=True)
    p = probabilities(angles, {ansatz!r})
    torch.autograd.grad(p, angles, torch.ones_like(p))

torch.set_num_threads(1)
for n_qubits in (14, 18):  # libraries load and make their workspaces
    run(1, n_qubits)
before = read("VmHWM")
run({n_circuits}, {n_qubits})
print(read("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads a process's peak from /proc")
@pytest.mark.parametrize(("n_circuits", "n_qubits"), [(1, 22), (64, 16)])
@pytest.mark.parametrize(
    ("ansatz", "dtype"), [("ry_cnot", torch.float32), ("ry_cnot", torch.float64), ("ry_rz_cnot", torch.float32)]
)
def test_measured_peak_stays_below_the_announced_one(ansatz, dtype, n_circuits, n_qubits):
    code = PEAK.format(ansatz=ansatz, dtype=dtype, n_circuits=n_circuits, n_qubits=n_qubits)
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}  # large arrays are given back, and leave no holes
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    announced = memory_bytes(n_qubits, 3, n_circuits, ansatz, dtype)
    assert announced / 3 < int(done.stdout) < announced


@pytest.mark.parametrize("n_qubits", [10, 20])
def test_announced_memory_doubles_with_double_precision(n_qubits):
    single, double = (memory_bytes(n_qubits, 8, 1, "ry_cnot", dtype) for dtype in (torch.float32, torch.float64))
    assert double == 2 * single

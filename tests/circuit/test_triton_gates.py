"""The Triton kernels: in Triton's interpreter, compiled for GPUs that need not be there, and on one that is."""

import itertools
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from qpa_hf.circuit import ANSATZE, ENTANGLERS, Ansatz, angles_shape, probabilities

pytest.importorskip("triton", reason="Triton is not installed; it exists for Linux")

PATTERNS = [axes for n in (1, 2) for axes in itertools.product("xyz", repeat=n)]  # all that the kernels know
# Every number of qubits that the kernels are chosen for, with depths and numbers of circuits that take turns.
SIZES = [(n_qubits, 1 + n_qubits % 2, 1 + n_qubits % 3) for n_qubits in range(1, 11)] + [(11, 1, 1), (12, 1, 1)]
CASES = [
    (ansatz.rotations, *size, dtype)
    for ansatz in ANSATZE.values()
    for size in [*SIZES, (3, 8, 1), (1, 1, 16)]
    for dtype in ("float32", "float64")
]
CASES += [(axes, n_qubits, 2, 1, "float64") for axes in PATTERNS for n_qubits in range(1, 6)]
TOLERANCE = {"float32": 1e-6, "float64": 1e-13}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def interpreted():
    script = Path(__file__).with_name("interpreted_triton.py")
    run = subprocess.run(
        [sys.executable, script, json.dumps(CASES)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return dict(zip(CASES, json.loads(run.stdout), strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_equal_the_plain_form_in_the_interpreter(case, interpreted):
    assert max(interpreted[case]) <= TOLERANCE[case[-1]]


def test_kernels_know_one_rotation_or_two_before_the_chain():
    from qpa_hf.circuit.simulators.triton_gates import MAX_QUBITS, can

    all_axes = [axes for n in (1, 2, 3) for axes in itertools.product("xyz", repeat=n)]
    known = [(axes, entangler) for axes in all_axes for entangler in ENTANGLERS if can(Ansatz(axes, entangler), 5, 1)]
    assert known == [(axes, "cnot_chain") for axes in PATTERNS]
    assert not can(Ansatz(("y",)), MAX_QUBITS + 1, 1)


def compiled(kernel, ansatz, n_qubits, capability, dtype):
    """Compile a kernel for a GPU that need not be there."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from qpa_hf.circuit.simulators.triton_gates import compile_options

    constants, options = compile_options(ANSATZE[ansatz].rotations, n_qubits)
    signature = dict.fromkeys(kernel.arg_names, {"float32": "*fp32", "float64": "*fp64"}[dtype])
    signature |= {"depth": "i32"} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ptxas drops old targets in newer versions of CUDA
        return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(code, folder):
    """Return what ptxas has given a kernel: registers of a thread, and bytes of its stack, which spills are in."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.is_file():
        pytest.skip("this Triton brings no cuobjdump")
    (folder / "kernel.cubin").write_bytes(code.asm["cubin"])
    command = [tool, "-res-usage", folder / "kernel.cubin"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(re.search(rf"{name}:(\d+)", found)[1]) for name in ("REG", "STACK")}


# Of the largest circuits, with a real state and with a complex one: registers of a thread, and bytes of its stack. In
# float64 the 40 bytes are those of sines of large angles, in which nothing is spilled.
BOUNDS = {("ry_cnot", "float32"): (128, 24), ("ry_rz_cnot", "float32"): (240, 0)}
BOUNDS |= {("ry_cnot", "float64"): (200, 40), ("ry_rz_cnot", "float64"): (255, 304)}


@pytest.mark.parametrize("capability", [70, 80, 90, 100], ids=lambda c: f"sm_{c}")
@pytest.mark.parametrize(("ansatz", "dtype"), BOUNDS, ids=str)
def test_kernels_compile_to_machine_code(ansatz, dtype, capability, tmp_path):
    from qpa_hf.circuit.simulators.triton_gates import MAX_QUBITS, backward_kernel, forward_kernel

    most, spilled = BOUNDS[ansatz, dtype]
    for kernel, n_qubits in itertools.product((forward_kernel, backward_kernel), (1, MAX_QUBITS)):
        code = compiled(kernel, ansatz, n_qubits, capability, dtype)
        assert code.metadata.shared <= 48 * 1024  # what every GPU gives a kernel without asking
        assert "cos.approx" not in code.asm["ptx"]  # off by 1e-6 near pi
        found = resources(code, tmp_path)
        assert found["REG"] <= most
        assert found["STACK"] <= spilled


@needs_gpu
@pytest.mark.parametrize("ansatz", ANSATZE)
@pytest.mark.parametrize("n_qubits", [1, 5, 10, 12])
def test_kernels_equal_the_cpu_on_a_gpu(ansatz, n_qubits):
    angles = torch.randn(3, *angles_shape(ansatz, 8, n_qubits), generator=torch.Generator().manual_seed(0))
    results = []
    for device in ("cpu", "cuda"):
        leaf = angles.to(device).requires_grad_()
        p = probabilities(leaf, ansatz)
        (gradient,) = torch.autograd.grad(p.square().sum(), leaf)
        results.append((p.detach().cpu(), gradient.cpu()))
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=0, atol=2e-6)


@needs_gpu
@pytest.mark.parametrize("ansatz", ANSATZE)
def test_all_circuits_take_one_kernel_each_way_and_never_wait(ansatz):
    leaf = torch.randn(8, *angles_shape(ansatz, 8, 10), device="cuda", requires_grad=True)
    cotangent = torch.randn(8, 2**10, device="cuda")
    torch.autograd.grad(probabilities(leaf, ansatz), leaf, cotangent)  # compiled here
    torch.cuda.set_sync_debug_mode("error")
    try:
        with profile(activities=[ProfilerActivity.CUDA]) as found:
            torch.autograd.grad(probabilities(leaf, ansatz), leaf, cotangent)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert sum(event.count for event in found.key_averages() if event.self_device_time_total > 0) == 2

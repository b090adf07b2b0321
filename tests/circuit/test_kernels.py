"""The Triton kernels: in Triton's interpreter, compiled for GPUs that need not be there, and on one that is."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from qpa_hf.circuit import ANSATZE, angles_shape, probabilities

pytest.importorskip("triton", reason="Triton is not installed; it exists for Linux")

CASES = [
    (ansatz, n_qubits, depth, n_circuits, dtype)
    for ansatz in ANSATZE
    for n_qubits, depth, n_circuits in ((1, 2, 1), (2, 1, 2), (3, 3, 2), (5, 2, 3), (9, 2, 1), (12, 1, 1))
    for dtype in ("float32", "float64")
]
TOLERANCE = {"float32": 1e-6, "float64": 1e-13}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def interpreted():
    script = Path(__file__).with_name("interpreted_kernels.py")
    run = subprocess.run(
        [sys.executable, script, json.dumps(CASES)],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return dict(zip(CASES, json.loads(run.stdout), strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_kernels_equal_the_torch_form_in_the_interpreter(case, interpreted):
    assert max(interpreted[case]) <= TOLERANCE[case[-1]]


def compiled(kernel, ansatz, n_qubits, capability):
    """Compile a kernel for a GPU that need not be there."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from qpa_hf.circuit.kernels import compile_options

    constants, options = compile_options(ANSATZE[ansatz].rotations, n_qubits)
    signature = dict.fromkeys(kernel.arg_names, "*fp32")
    signature |= {"depth": "i32"} | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ptxas drops old targets in newer versions of CUDA
        return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@pytest.mark.parametrize("capability", [70, 80, 90], ids=lambda c: f"sm_{c}")
@pytest.mark.parametrize(("ansatz", "n_qubits"), [("ry_cnot", 1), ("ry_cnot", 12), ("rx_rz_cnot", 12)])
def test_kernels_compile_to_machine_code(ansatz, n_qubits, capability):
    from qpa_hf.circuit.kernels import backward_kernel, forward_kernel

    for kernel in (forward_kernel, backward_kernel):
        code = compiled(kernel, ansatz, n_qubits, capability)
        assert code.asm["cubin"]
        assert code.metadata.shared <= 48 * 1024  # what every GPU gives a kernel without asking
        assert "cos.approx" not in code.asm["ptx"]  # off by 1e-6 near pi


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

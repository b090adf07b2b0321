"""The paper's simulator: its numbers against ours, and what it says where it cannot be imported."""

import json
import sys
from pathlib import Path

import pytest
import torch
from helpers import adapted, logits
from models import build
from peft import PeftModel

from qpa_hf import QPAConfig
from qpa_hf.circuit import ANSATZE, angles_shape, probabilities
from qpa_hf.circuit.simulators.torchquantum import load_torchquantum
from qpa_hf.measurement import BACKENDS

TABLE = json.loads(Path(__file__).with_name("torchquantum_table.json").read_text(encoding="utf-8"))["cases"]

try:
    load_torchquantum()
    MISSING = ""
except ImportError as error:
    MISSING = str(error)
needs_torchquantum = pytest.mark.skipif(
    bool(MISSING), reason="needs `make torchquantum`: TorchQuantum is not installed"
)


@pytest.mark.parametrize("case", TABLE, ids=lambda c: f"{c['ansatz']}, {len(c['probabilities'])} states")
def test_probabilities_equal_torchquantum_s_table(case):
    angles = torch.tensor(case["angles"], dtype=torch.float64)
    expected = torch.tensor(case["probabilities"], dtype=torch.float64)
    torch.testing.assert_close(probabilities(angles, case["ansatz"]), expected, rtol=0, atol=1e-12)


FAILURES = {
    "raise ModuleNotFoundError(\"No module named 'qiskit_ibm_runtime'\")": "pip install qiskit-ibm-runtime",
    "raise ModuleNotFoundError(\"No module named 'pkg_resources'\")": "setuptools<80",
    "raise ImportError(\"cannot import name 'execute' from 'qiskit' (somewhere)\")": "qiskit before 1.0",
    "raise ModuleNotFoundError(\"No module named 'qiskit_aer'\")": "qiskit before 1.0",
    "raise ModuleNotFoundError(\"No module named 'torchvision'\")": "released with your torch",
    'raise RuntimeError("operator torchvision::nms does not exist")': "made for another torch",
    "import no_such_module": "benchmarks/torchquantum",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failed_import_says_what_to_install(failure, tmp_path, monkeypatch):
    (tmp_path / "torchquantum.py").write_text(failure)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchquantum"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=FAILURES[failure]):
        load_torchquantum()


@pytest.mark.skipif(not MISSING, reason="TorchQuantum is installed")
def test_missing_torchquantum_is_named_when_the_adapter_is_made():
    with pytest.raises(ImportError, match=r"pip install --no-deps torchquantum==0\.1\.8.*backend='exact'"):
        adapted("llama", target_modules=["q_proj"], backend="torchquantum")


def test_checkpoint_of_the_other_backend_loads_after_setting_it(tmp_path):
    model = adapted("llama", target_modules=["q_proj"])
    model.peft_config["default"].backend = "torchquantum"
    model.save_pretrained(tmp_path)
    config = QPAConfig.from_pretrained(str(tmp_path))
    assert config.backend == "torchquantum"
    config.backend = "exact"
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path, config=config)
    assert torch.equal(logits(loaded, "llama"), logits(model, "llama"))


@needs_torchquantum
@pytest.mark.parametrize("ansatz", ANSATZE)
@pytest.mark.parametrize(("n_qubits", "depth", "batch"), [(1, 2, ()), (2, 1, (2,)), (5, 8, (2, 3)), (8, 3, (4,))])
def test_probabilities_and_gradients_equal_torchquantum_s(ansatz, n_qubits, depth, batch):
    rng = torch.Generator().manual_seed(0)
    angles = torch.randn(*batch, *angles_shape(ansatz, depth, n_qubits), generator=rng).requires_grad_()
    weights = torch.randn(*batch, 2**n_qubits, generator=rng)
    results = []
    for backend in ("torchquantum", "exact"):
        p = BACKENDS[backend].probabilities(angles, ansatz, None)
        results.append((p.detach(), *torch.autograd.grad(p, angles, weights)))
    for theirs, ours in zip(*results, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=0, atol=2e-6)


@needs_torchquantum
def test_model_gives_the_same_logits_with_either_backend():
    outputs = []
    for backend in ("exact", "torchquantum"):
        model = adapted("llama", target_modules=["q_proj"], backend=backend)
        outputs.append(logits(model, "llama"))
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-5)

"""GPUs that torch has no kernels for are named, and MPS is asked for nothing that it has not."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from helpers import start
from models import build, inputs
from mps import MPS, mps
from peft import get_peft_model

from qpa_hf import BottleneckConfig, accelerators, materialize
from qpa_hf.accelerators import KnownNumber, check_kernels, missing_kernels, warn_of_missing_kernels
from qpa_hf.circuit import ANSATZE, angles_shape, check_memory, probabilities
from qpa_hf.demo.arms import ARMS, trainer_for
from qpa_hf.generator import Moments, scaled_bases
from qpa_hf.heads import QuantumHead
from qpa_hf.measurement.noise import noisy_probabilities
from qpa_hf.measurement.shots import sample
from qpa_hf.tuners.bottleneck.folding import folded

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft", "ignore:fan_in_fan_out:UserWarning")
PYPI_2_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
CUDA = torch.device("cuda", 0)
GPUS = {
    "V100 on PyPI's torch 2.13": ((7, 0), PYPI_2_13, False),
    "V100 on a build for CUDA 12.6": ((7, 0), ["sm_50", "sm_60", "sm_70", "sm_80"], True),
    "H100": ((9, 0), PYPI_2_13, True),
    "machine code of an older minor version": ((8, 9), ["sm_80"], True),
    "machine code of a newer minor version": ((8, 0), ["sm_86"], False),
    "machine code of another major version": ((9, 0), ["sm_80", "sm_86"], False),
    "PTX of an older architecture": ((12, 0), ["sm_80", "compute_80"], True),
    "PTX of a newer architecture": ((7, 0), ["sm_80", "compute_80"], False),
    "its own alone": ((9, 0), ["sm_90a"], True),
    "that of another alone": ((12, 1), ["sm_120a", "compute_120a"], False),
    "that of its family": ((10, 3), ["sm_100f"], True),
    "PTX of another family": ((12, 0), ["compute_100f"], False),
    "an integrated GPU's for a separate one": ((7, 5), ["sm_72"], False),
    "a separate GPU's for an integrated one": ((8, 7), ["sm_80"], False),
    "a build that does not tell": ((7, 0), [], True),
}


@pytest.fixture
def a_gpu(monkeypatch):
    """Pretend that there is a GPU, seen by a torch that was built for some architectures."""
    for function in (missing_kernels, warn_of_missing_kernels):
        function.cache_clear()

    def put(capability, known, cuda="13.0"):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: known)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100-SXM2-16GB")

    yield put
    for function in (missing_kernels, warn_of_missing_kernels):
        function.cache_clear()


@pytest.mark.parametrize("case", GPUS)
def test_kernels_are_missing_where_no_code_runs(case, a_gpu):
    capability, known, is_there = GPUS[case]
    a_gpu(capability, known)
    assert (missing_kernels(CUDA) is None) == is_there


def test_the_sentence_for_a_v100_names_which_torch_has_kernels(a_gpu):
    a_gpu((7, 0), PYPI_2_13)
    with pytest.raises(RuntimeError, match=r"no kernels for Tesla V100.* sm_70: .*2\.10 is the last .*/whl/cu126"):
        check_kernels(CUDA)


@pytest.mark.parametrize(("device", "cuda"), [("cpu", "13.0"), ("mps", "13.0"), ("cuda", None)], ids=str)
def test_other_devices_are_not_asked(device, cuda, a_gpu):
    a_gpu((7, 0), PYPI_2_13, cuda)
    check_kernels(torch.device(device))


def test_a_gpu_without_kernels_is_warned_of_once(a_gpu):
    a_gpu((7, 0), PYPI_2_13)
    with pytest.warns(UserWarning, match="no kernels for Tesla V100"):
        warn_of_missing_kernels(CUDA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_missing_kernels(CUDA)


ON_A_GPU = {
    "a circuit": lambda: probabilities(torch.zeros(1, 2)),
    "an adapter": lambda: start("gpt2"),
    "a head": lambda: QuantumHead(4, n_qubits=4, n_layers=2)(torch.ones(1, 4)),
}


@pytest.mark.parametrize("place", ON_A_GPU)
def test_whatever_meets_a_gpu_first_warns(place, monkeypatch):
    monkeypatch.setattr(accelerators, "missing_kernels", lambda device: f"This torch has no kernels for {device}.")
    warn_of_missing_kernels.cache_clear()
    with pytest.warns(UserWarning, match="no kernels for cpu"):
        ON_A_GPU[place]()
    warn_of_missing_kernels.cache_clear()


def test_training_on_a_gpu_without_kernels_ends_with_a_sentence(monkeypatch):
    monkeypatch.setattr(accelerators, "missing_kernels", lambda device: "This torch has no kernels.")
    with pytest.raises(RuntimeError, match="This torch has no kernels"):
        trainer_for(next(iter(ARMS)), SimpleNamespace(), "nowhere", torch.zeros(1, 4), 1)


@pytest.mark.parametrize("n_qubits", [4, 13])
@pytest.mark.parametrize("ansatz", ANSATZE)
def test_circuits_on_mps_equal_the_cpu(ansatz, n_qubits):
    angles = torch.randn(2, *angles_shape(ansatz, 3, n_qubits))
    weights = torch.randn(2, 2**n_qubits)
    leaf = angles.clone().requires_grad_()
    p = probabilities(leaf, ansatz)
    (p * weights).sum().backward()
    with mps():
        there = angles.to(MPS).requires_grad_()
        found = probabilities(there, ansatz)
        (found * weights.to(MPS)).sum().backward()
        assert found.device == there.grad.device == MPS
        results = [found.detach().cpu(), there.grad.cpu()]
    torch.testing.assert_close(results, [p.detach(), leaf.grad], rtol=0, atol=2e-6)


def test_shots_on_mps_are_those_of_the_cpu():
    p = torch.rand(3, 16).softmax(1)
    with mps():
        found = sample(p.to(MPS), 1000, torch.Generator().manual_seed(1))
        assert found.device == MPS
        found = found.cpu()
    assert torch.equal(found, sample(p, 1000, torch.Generator().manual_seed(1)))


def test_noise_on_mps_equals_the_cpu():
    angles = torch.randn(2, 2, 4)
    with mps():
        found = noisy_probabilities(angles.to(MPS), device="torino").cpu()
    torch.testing.assert_close(found, noisy_probabilities(angles, device="torino"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [20, 1100], ids=["decomposed", "decomposed from random vectors"])
def test_bases_of_moments_on_mps_are_those_of_the_cpu(n):
    moments = Moments(torch.randn(n, n + 1), torch.ones(n + 1), torch.ones(n))
    with mps():
        found = scaled_bases(Moments(*(part.to(MPS) for part in moments)), 4)
    assert all(map(torch.equal, found, scaled_bases(moments, 4)))


@pytest.mark.filterwarnings("ignore:at..frobenius_norm:UserWarning", "ignore:The generator has:UserWarning")
@pytest.mark.parametrize(
    "settings",
    [{}, {"shots": 100, "gradient": "parameter_shift"}, {"noise": "torino"}, {"basis": "gradient"}],
    ids=["exact", "shots", "noise", "bases"],
)
def test_adapter_is_trained_and_materialized_on_mps(settings, tmp_path):
    model = start("gpt2", **settings)
    with mps():
        model.to(MPS)
        batch = {name: ids.to(MPS) for name, ids in inputs("gpt2").items()}
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=1.0)
        for _ in range(2):
            model(**batch).logits.square().mean().backward()
            optimizer.step()
        assert {p.device for p in parameters} == {MPS}
        materialize(model, tmp_path / "adapter")


def test_head_is_trained_on_mps():
    head = QuantumHead(4, n_qubits=4, n_layers=2, shots=100)
    with mps():
        head.to(MPS)
        head(torch.randn(3, 4).to(MPS)).sum().backward()
        assert head.angles.grad.device == MPS


def test_bottleneck_is_folded_on_mps():
    config = BottleneckConfig(bottleneck_size=2, activation="none", target_modules=["head"])
    model = get_peft_model(build("mlp"), config)
    expected, _ = folded(model, config, "default")
    with mps():
        model.to(MPS)
        found, _ = folded(model, config, "default")
    assert {name: tensor.device.type for name, tensor in found.items()} == dict.fromkeys(expected, "cpu")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_memory_of_a_device_that_is_no_cuda_is_the_computers(device):
    check_memory(26, 8, 1, "ry_cnot", device)
    with pytest.raises(MemoryError, match="are free"):
        check_memory(45, 8, 1, "ry_cnot", device)


@pytest.mark.parametrize("write", [lambda x: x.add_(2), lambda x: x.copy_(torch.tensor(9)), lambda x: x.zero_()])
def test_a_known_number_is_asked_for_again_after_somebody_has_written_it(write):
    there, known = torch.tensor(3), KnownNumber()
    assert known.of(there) == 3
    known.add_one(there)
    assert known.is_of(there)
    assert known.of(there) == int(there) == 4
    write(there)
    assert not known.is_of(there)
    assert known.of(there) == int(there)


def test_a_known_number_is_that_of_one_tensor():
    known = KnownNumber()
    assert [known.of(torch.tensor(number)) for number in (1, 2)] == [1, 2]

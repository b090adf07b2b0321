"""The head's simulation against whole matrices, PennyLane, closed forms and finite differences."""

import math

import dense
import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from qpa_hf.heads import QuantumHead
from qpa_hf.heads.blocks import layer_blocks, run_blocks_apart
from qpa_hf.heads.circuit import encode
from qpa_hf.heads.states import product_states, rotate

pytestmark = pytest.mark.usefixtures("form")
SHAPES = [(1, 1, 3), (2, 1, 2), (3, 1, 2), (4, 2, 2), (6, 3, 2), (7, 2, 3), (9, 1, 2)]  # qubits, connectivity, layers
HEADS = {
    "default": {},
    "two encoders": {"n_encoders": 2},
    "mean of encoders": {"n_encoders": 3, "fusion": "mean"},
    "far": {"connectivity": 2},
    "no constant": {"constant": 0},
    "no re-upload": {"n_reuploads": 0},
    "no main layer": {"n_main_layers": 0},
    "no encoder layer": {"n_layers": 0},
    "few values": {"n_latent": 1, "n_reuploads": 3},
    "five classes": {"n_classes": 5},
}


def layers(n_qubits, connectivity, n_layers, *others):
    return torch.randn(n_layers, len(layer_blocks(n_qubits, connectivity)), *others, dtype=torch.float64)


def states(n_qubits, batch):
    found = torch.randn(2**n_qubits, batch, dtype=torch.float64)
    return found / found.norm(dim=0)


@pytest.mark.parametrize(("n_qubits", "connectivity", "n_layers"), SHAPES)
def test_encoders_measure_what_their_gates_make(n_qubits, connectivity, n_layers):
    start = torch.stack([states(n_qubits, 2) for _ in range(2)])
    angles = torch.stack([layers(n_qubits, connectivity, n_layers) for _ in range(2)])
    found = encode(start, angles, connectivity, n_qubits)
    for which in range(2):
        gates = list(dense.gates(n_qubits, angles[which].numpy(), connectivity))
        expected = [dense.expectations(dense.run(s, gates), n_qubits) for s in start[which].numpy().T]
        np.testing.assert_allclose(found[which].numpy().T, expected, atol=1e-12)


@pytest.mark.parametrize(("n_qubits", "connectivity", "n_layers"), SHAPES)
def test_blocks_with_angles_of_their_own_do_what_their_gates_do(n_qubits, connectivity, n_layers):
    start, angles = states(n_qubits, 2), layers(n_qubits, connectivity, n_layers, 2)
    found = run_blocks_apart(start, angles, connectivity).numpy()
    for i in range(2):
        expected = dense.run(start[:, i].numpy(), dense.gates(n_qubits, angles[..., i].numpy(), connectivity))
        np.testing.assert_allclose(found[:, i], expected, atol=1e-12)


@pytest.mark.parametrize("settings", HEADS.values(), ids=HEADS)
def test_a_head_gives_the_logits_of_its_gates(settings):
    head = QuantumHead(12, **{"n_qubits": 4, "n_layers": 2, **settings}).double()
    torch.nn.init.normal_(head.readout.bias)
    embeddings = torch.randn(3, 12, dtype=torch.float64)
    expected = [dense.logits(head, row) for row in embeddings.numpy()]
    np.testing.assert_allclose(head(embeddings).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
@pytest.mark.parametrize("settings", [{}, {"n_encoders": 2}, {"constant": 0}, {"noise": "torino"}], ids=str)
def test_only_the_directions_of_embeddings_count(settings, factor):
    head = QuantumHead(12, **{"n_qubits": 4, "n_layers": 2, **settings}).eval()
    embeddings = torch.randn(3, 12, requires_grad=True)
    scaled = (embeddings.detach() * factor).requires_grad_()
    results = [(head(some), *torch.autograd.grad(head(some).sum(), some)) for some in (embeddings, scaled)]
    (expected, slope), (found, slope_of_scaled) = results
    torch.testing.assert_close((found, slope_of_scaled * factor), (expected, slope), rtol=1e-4, atol=1e-5)


def test_a_head_gives_the_logits_of_pennylane():
    qml = pytest.importorskip("pennylane")
    head = QuantumHead(20, n_qubits=5, n_layers=2, connectivity=2).double()
    how, embeddings = head.settings, torch.randn(3, 20, dtype=torch.float64)

    def apply(sequence):
        for name, first, second in sequence:
            qml.CNOT([first, second]) if name == "cnot" else qml.RY(second, wires=first)

    @qml.qnode(qml.device("default.qubit"))
    def encode(embedding):
        qml.AmplitudeEmbedding(dense.amplitudes(embedding, 5, how.constant), wires=range(5))
        apply(dense.gates(5, head.encoder_angles[0].detach().numpy(), 2))
        return [qml.expval(qml.Z(qubit)) for qubit in range(5)]

    @qml.qnode(qml.device("default.qubit"))
    def decide(latent):
        apply(dense.measured_gates(np.multiply(latent, math.pi), head.angles.detach().numpy(), how.n_reuploads, 2))
        return qml.expval(qml.Z(0))

    expected = [decide(encode(row)) for row in embeddings.numpy()]
    found = (head(embeddings)[:, 0] - head.readout.bias[0]) / head.readout.weight[0, 0]
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-12)


def test_one_qubit_adds_up_its_angles():
    # <Z> of R_Y(a) R_Y(b) ... |0> is the cosine of the sum; every upload is pi times the encoder's expectation.
    head = QuantumHead(2, n_qubits=1, n_layers=3, constant=0, n_reuploads=2, n_main_layers=1).double()
    x = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    start = 2 * math.atan2(0.8, 0.6)
    latent = torch.cos(start + head.encoder_angles.sum())
    expected = torch.cos(3 * math.pi * latent + head.angles.sum())
    torch.testing.assert_close(head(x)[0, 0] / head.readout.weight[0, 0], expected, atol=1e-12, rtol=0)


def test_rotations_of_the_zero_state_are_a_product_state():
    angles = torch.randn(4, 3, dtype=torch.float64)
    zero = torch.zeros(16, 3, dtype=torch.float64)
    zero[0] = 1
    torch.testing.assert_close(product_states(angles), rotate(zero, angles))


def test_expectations_of_a_product_state_are_cosines():
    angles = torch.randn(4, 3, dtype=torch.float64)
    found = encode(product_states(angles)[None], torch.empty(1, 0, 4, dtype=torch.float64), 1, 4)[0]
    torch.testing.assert_close(found, torch.cos(angles))


@pytest.mark.parametrize("settings", [{}, {"n_encoders": 2, "connectivity": 2}, {"n_encoders": 2, "fusion": "mean"}])
def test_gradients_of_all_inputs_are_exact(settings):
    head = QuantumHead(6, n_qubits=4, n_layers=1, n_main_layers=1, n_reuploads=1, **settings).double()
    names = list(dict(head.named_parameters()))

    def logits(embeddings, *parameters):
        return torch.func.functional_call(head, dict(zip(names, parameters, strict=True)), (embeddings,))

    embeddings = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(logits, (embeddings, *head.parameters()))


@pytest.mark.parametrize("n_starts", [1, 2])
def test_gradients_of_first_states_are_exact(n_starts):
    start = torch.stack([states(3, 2) for _ in range(n_starts)]).requires_grad_()
    angles = torch.stack([layers(3, 1, 2) for _ in range(2)]).requires_grad_()
    assert gradcheck(lambda start, angles: encode(start, angles, 1, 3), (start, angles))


def test_float32_is_close_to_float64():
    head, embeddings = QuantumHead(384), torch.randn(8, 384)
    single = head(embeddings)
    torch.testing.assert_close(single.double(), head.double()(embeddings.double()), atol=1e-5, rtol=0)

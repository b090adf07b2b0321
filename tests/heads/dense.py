"""The head's circuits once more, gate by gate with whole matrices, for one sentence: slow and simple."""

import math

import numpy as np

Z, X = np.diag([1.0, -1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])
Y = np.array([[0, -1j], [1j, 0]])


def on(n_qubits, matrices):
    """Return the product of one-qubit matrices, given by qubit, and identities."""
    whole = np.eye(1)
    for qubit in range(n_qubits):
        whole = np.kron(whole, matrices.get(qubit, np.eye(2)))
    return whole


def ry(n_qubits, qubit, angle):
    turn = np.array([[math.cos(angle / 2), -math.sin(angle / 2)], [math.sin(angle / 2), math.cos(angle / 2)]])
    return on(n_qubits, {qubit: turn})


def cnot(n_qubits, control, target):
    off, on_ = np.diag([1.0, 0.0]), np.diag([0.0, 1.0])
    return on(n_qubits, {control: off}) + on(n_qubits, {control: on_, target: X})


def gates(n_qubits, angles, connectivity):
    """Yield ("cnot", control, target) and ("ry", qubit, angle) of layers of blocks."""
    for layer in angles:
        values = iter(layer)
        if n_qubits == 1:
            yield "ry", 0, next(values)
        for distance in range(1, min(connectivity, n_qubits // 2) + 1):
            for qubit in range(n_qubits):
                target = (qubit + distance) % n_qubits
                yield "cnot", qubit, target
                yield "ry", target, next(values)


def run(state, sequence):
    n_qubits = len(state).bit_length() - 1
    for name, first, second in sequence:
        state = (cnot if name == "cnot" else ry)(n_qubits, first, second) @ state
    return state


def expectations(state, n_measured):
    n_qubits = len(state).bit_length() - 1
    return np.array([state @ on(n_qubits, {qubit: Z}) @ state for qubit in range(n_measured)])


def amplitudes(embedding, n_qubits, constant):
    state = np.zeros(2**n_qubits)
    state[: len(embedding)] = embedding / np.linalg.norm(embedding)
    if constant:
        state[len(embedding)] = constant
    return state / np.linalg.norm(state)


def measured_gates(uploads, angles, n_reuploads, connectivity):
    """Yield the gates of the circuit that is meant for a device."""
    n_qubits = len(uploads)
    upload = [("ry", qubit, angle) for qubit, angle in enumerate(uploads)]
    yield from upload
    for layer in angles[:n_reuploads]:
        yield from gates(n_qubits, [layer], connectivity)
        yield from upload
    yield from gates(n_qubits, angles[n_reuploads:], connectivity)


def latent(head, embedding):
    """Return a head's latent vector of one embedding."""
    how = head.settings
    start = amplitudes(embedding, how.n_encoder_qubits, how.constant)
    found = [
        expectations(run(start, gates(how.n_encoder_qubits, angles, how.connectivity)), how.n_latent_each)
        for angles in head.encoder_angles.detach().double().numpy()
    ]
    return np.concatenate(found) if how.fusion == "concatenate" else np.mean(found, 0)


def uploads(head, embedding):
    values = latent(head, embedding) * math.pi
    return np.pad(values, (0, head.settings.n_qubits - len(values)))


def logits(head, embedding):
    """Return a head's exact logits of one embedding."""
    how = head.settings
    start = np.zeros(2**how.n_qubits)
    start[0] = 1
    angles = head.angles.detach().double().numpy()
    state = run(start, measured_gates(uploads(head, embedding), angles, how.n_reuploads, how.connectivity))
    weight, bias = (p.detach().double().numpy() for p in (head.readout.weight, head.readout.bias))
    return weight @ expectations(state, how.n_measured) + bias


def depolarised(rho, strength, qubits):
    """Return a density matrix after the depolarising channel on some qubits."""
    n_qubits = len(rho).bit_length() - 1
    paulis = (np.eye(2), X, Y, Z)
    mixed = 0
    for string in np.ndindex(*[4] * len(qubits)):
        pauli = on(n_qubits, {qubit: paulis[i] for qubit, i in zip(qubits, string, strict=True)})
        mixed = mixed + pauli @ rho @ pauli.conj().T
    return (1 - strength) * rho + strength * mixed / 4 ** len(qubits)


def noisy_probabilities(sequence, snapshot, n_qubits):
    """Return what is read of qubit 0: two errors of sqrt(X) after each R_Y, a mean coupling's after each CNOT."""
    rho = np.zeros((2**n_qubits, 2**n_qubits), dtype=complex)
    rho[0, 0] = 1
    qubits, couplings = snapshot.line_qubits(n_qubits), snapshot.line_couplings(n_qubits)
    pair = np.mean([coupling.cz_error for coupling in couplings]) * 4 / 3  # average infidelity of d = 4 levels
    for name, first, second in sequence:
        gate = (cnot if name == "cnot" else ry)(n_qubits, first, second)
        rho = gate @ rho @ gate.T
        if name == "cnot":
            rho = depolarised(rho, pair, [first, second])
        else:
            for _ in range(2):
                rho = depolarised(rho, 2 * qubits[first].sx_error, [first])
    p = np.diag(rho).real.reshape(2, -1).sum(1)
    one, zero = qubits[0].false_one, qubits[0].false_zero
    return np.array([p[0] * (1 - one) + p[1] * zero, p[0] * one + p[1] * (1 - zero)])

"""Fig. 10: the variance of the angles' gradient against qubits and depth, of circuits with random angles."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import Tensor

from benchmarks.harness.study import Row
from benchmarks.measure import SEED
from qpa_hf import QPAConfig
from qpa_hf.circuit import ANSATZE, angles_shape, probabilities
from qpa_hf.generator import Generator, GeneratorSpec
from qpa_hf.reproducible import seeded

WIDTHS, DEPTHS = (2, 4, 5, 6, 7, 8, 9, 10, 12), (1, 2, 4, 8, 16, 32)
N_CIRCUITS = 400  # random angles, whose gradients' variance is taken
ANSATZE_SHOWN = ("ry_cnot", "rx_cnot", "ry_rz_cnot")
GPT2_VALUES = 204_100  # LoRA of rank 4 on GPT-2's output layer: the paper's Fig. 10
Gradient = Callable[[Tensor, str], Tensor]


def _pauli_z(angles: Tensor, ansatz: str, qubits: slice) -> Tensor:
    """Return the expectation of Z on some qubits, (C,)."""
    n_qubits = angles.shape[-1]
    bits = (torch.arange(2**n_qubits)[:, None] >> torch.arange(n_qubits - 1, -1, -1)) & 1
    signs = 1.0 - 2 * (bits[:, qubits].sum(1) % 2)
    return probabilities(angles, ansatz) @ signs


def _one_probability(angles: Tensor, ansatz: str, scale: float) -> Tensor:
    """Return the probability of one state, an own one for each circuit, times `scale`, (C,)."""
    n_states = 2 ** angles.shape[-1]
    states = torch.randint(n_states, (len(angles), 1), generator=seeded(SEED, "states"))
    return scale * probabilities(angles, ansatz).gather(1, states)


@dataclass(frozen=True)
class Quantity:
    """What is differentiated.

    Args:
        values: takes angles (C, ...) and the ansatz, returns a number for each circuit.
        plateau: its gradient's variance, from the number of states, where the circuit is deep and its state random
            among the real ones (first) or complex ones (second); None where the quantity has more in it.
    """

    values: Callable[[Tensor, str], Tensor]
    plateau: tuple[Callable[[int], float], Callable[[int], float]] | None


def _real_p(d: int) -> float:
    return 2 * (d - 1) / (d * d * (d + 2))  # of one probability, components of a random unit vector squared


def _complex_p(d: int) -> float:
    return (d - 1) / (d * d * (d + 1))


# By parameter shift a slope is half the difference of two values; in a deep circuit those are as good as independent,
# so that its variance is half of the value's.
QUANTITIES = {
    "Z on the last qubit": Quantity(
        lambda angles, ansatz: _pauli_z(angles, ansatz, slice(-1, None)),
        (lambda d: 1 / (d + 2), lambda d: 0.5 / (d + 1)),
    ),
    "Z on all qubits": Quantity(
        lambda angles, ansatz: _pauli_z(angles, ansatz, slice(None)),
        (lambda d: 1 / (d + 2), lambda d: 0.5 / (d + 1)),
    ),
    "one probability p": Quantity(
        lambda angles, ansatz: _one_probability(angles, ansatz, 1),
        (lambda d: _real_p(d) / 2, lambda d: _complex_p(d) / 2),
    ),
    "2^N p": Quantity(
        lambda angles, ansatz: _one_probability(angles, ansatz, 2 ** angles.shape[-1]),
        (lambda d: d * d * _real_p(d) / 2, lambda d: d * d * _complex_p(d) / 2),
    ),
}
# The paper's generator by its features: those of the published code, p itself as Eq. 6 has it, and the default ones.
AUTHORS, PRINTED = "paper's generator", "paper's generator, Eq. 6 as printed"
GENERATORS = {AUTHORS: "authors", PRINTED: "probability", "paper's generator, standardized": "standardized"}


def _angles(ansatz: str, depth: int, n_qubits: int, n_circuits: int) -> Tensor:
    shape = (n_circuits, *angles_shape(ansatz, depth, n_qubits))
    angles = torch.empty(shape).uniform_(-math.pi, math.pi, generator=seeded(SEED, f"angles {ansatz} {shape}"))
    return angles.requires_grad_()


def _of_quantity(name: str, ansatz: str, depth: int, n_qubits: int, n_circuits: int) -> Tensor:
    angles = _angles(ansatz, depth, n_qubits, n_circuits)
    (gradient,) = torch.autograd.grad(QUANTITIES[name].values(angles, ansatz).sum(), angles)
    return gradient.flatten(1)


def _spec(features: str, ansatz: str, depth: int, n_qubits: int, seed: int) -> GeneratorSpec:
    chunk_size = -(-GPT2_VALUES // 2**n_qubits)
    config = QPAConfig.paper(chunk_size, features=features, ansatz=ansatz, circuit_depth=depth, init_seed=seed)
    return config.generator_spec(GPT2_VALUES)


def _of_generator(name: str, ansatz: str, depth: int, n_qubits: int, n_circuits: int) -> Tensor:
    """Return gradients of a loss whose own gradient is a random direction of length 1 in the generated vector."""
    found = []
    for seed in range(n_circuits):
        generator = Generator(_spec(GENERATORS[name], ansatz, depth, n_qubits, seed))
        direction = torch.randn(GPT2_VALUES, generator=seeded(seed, "direction"))
        (values,) = generator()
        loss = values @ direction / direction.norm()
        found.append(torch.autograd.grad(loss, generator.angles)[0].flatten())
    return torch.stack(found)


def variance(gradients: Tensor) -> dict[str, float]:
    """Return the variance of all angles' gradients, and its 95 % bootstrap interval over circuits.

    Their mean is zero, because over a full turn of its angle a slope averages to nothing.
    """
    squares = gradients.double().square().mean(1).numpy()
    found = bootstrap((squares,), np.mean, n_resamples=999, method="percentile", rng=SEED).confidence_interval
    return {"variance": float(squares.mean()), "low": float(found.low), "high": float(found.high)}


def cases(quick: bool) -> Iterator[Row]:
    """Yield what is to be measured."""
    widths, depths = ((4, 5), (1, 2)) if quick else (WIDTHS, DEPTHS)
    for quantity in (*QUANTITIES, *GENERATORS):
        for ansatz in ANSATZE_SHOWN:
            for n_qubits in widths:
                yield {
                    "quantity": quantity,
                    "ansatz": ansatz,
                    "n_qubits": n_qubits,
                    "depths": depths,
                    "n_circuits": (20 if quick else N_CIRCUITS) // (1 if quantity in QUANTITIES else 4),
                }


def measure(case: Row) -> list[Row]:
    """Return a row for each depth of a case."""
    rows = []
    for depth in case["depths"]:
        of = _of_quantity if case["quantity"] in QUANTITIES else _of_generator
        gradients = of(case["quantity"], case["ansatz"], depth, case["n_qubits"], case["n_circuits"])
        row = {name: case[name] for name in ("quantity", "ansatz", "n_qubits", "n_circuits")}
        rows.append(row | {"depth": depth} | variance(gradients) | {"plateau": plateau(row)})
    return rows


def plateau(row: Row) -> float | None:
    """Return the variance that a deep circuit tends to, None for generators, which have no closed form."""
    quantity = QUANTITIES.get(row["quantity"])
    if quantity is None:
        return None
    return quantity.plateau[0 if ANSATZE[row["ansatz"]].is_real else 1](2 ** row["n_qubits"])

"""Small trained cores between frozen factors, on PEFT's own LoRA layers: what the bench compares QPA's cores with.

Every form is x -> L C A x with frozen A (rank, n_in) and L (n_out, rank) and a core C that is zero at the start:

- `rotation`: the gradient-aligned orthogonal adapter. The base's weight W becomes W times a rotation within the span V
  of the gradient's right singular vectors: A = V^T, L = W V, C = exp(K) - 1 with a skew K. Its idea is OFT's
  (https://huggingface.co/papers/2306.07280), within gradient bases.
- `leading`: its control. The same factors, and as many numbers that are entries of C themselves.
- `circuit`: Quantum-PEFT's core (https://huggingface.co/papers/2503.05431), C = Q D Q'^T between gradient bases: D is
  diagonal, and Q and Q' are circuits of R_Y rotations with CZ gates between them.
- `paired`: its control. Each angle turns basis states in pairs, as R_Y does, but in random pairs; there is no CZ.
- `weights`: LoRA-XS (https://huggingface.co/papers/2405.17604). A and L are the weight's own leading singular vectors.

LoRA-SB (https://huggingface.co/papers/2411.19557) trains a core between the singular vectors of the first update; the
arms `gradient, direct` do nearly that: their core starts at zero instead of the update's own, and their bases are
preconditioned.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Factors = tuple[Tensor, Tensor]  # A (rank, n_in) and L (n_out, rank)


class Core(nn.Module):
    """L C, which stands in the place of a layer's lora_B.

    Args:
        left: L, shape (n_out, rank).
        rng: source of what is random in a form.
        n: how many numbers it may train, where a form has a choice.
    """

    left: Tensor

    def __init__(self, left: Tensor, rng: torch.Generator, n: int) -> None:
        super().__init__()
        self.register_buffer("left", left)
        self.add_numbers(left.shape[1], rng, n)

    def add_numbers(self, rank: int, rng: torch.Generator, n: int) -> None:
        """Add what is trained."""
        raise NotImplementedError

    def core(self) -> Tensor:
        """Return C, shape (rank, rank)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map what A made of inputs, shape (..., rank), to the layer's outputs."""
        return F.linear(F.linear(x, self.core()), self.left)


class Leading(Core):
    """The first entries of the smallest leading square that has room for them, row by row; the others stay zero."""

    def add_numbers(self, rank: int, rng: torch.Generator, n: int) -> None:
        side = math.isqrt(n - 1) + 1
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        self.register_buffer("places", torch.stack([rows.flatten()[:n], columns.flatten()[:n]]), persistent=False)
        self.values = nn.Parameter(torch.zeros(n))
        self.rank = rank

    def core(self) -> Tensor:
        rows, columns = self.places
        return self.values.new_zeros(self.rank, self.rank).index_put((rows, columns), self.values)


class Rotation(Core):
    """exp(K) - 1: the rank (rank - 1) / 2 numbers are the entries of a skew K above its diagonal."""

    def add_numbers(self, rank: int, rng: torch.Generator, n: int) -> None:
        self.register_buffer("places", torch.triu_indices(rank, rank, offset=1), persistent=False)
        self.values = nn.Parameter(torch.zeros(rank * (rank - 1) // 2))
        self.register_buffer("one", torch.eye(rank), persistent=False)

    def core(self) -> Tensor:
        rows, columns = self.places
        above = torch.zeros_like(self.one).index_put((rows, columns), self.values)
        return torch.matrix_exp(above - above.T) - self.one


class Circuit(Core):
    """Q D Q'^T with two orthogonal factors of their own angles; D and all angles start at zero.

    An angle t turns basis states in pairs by exp(t J / 2) = cos(t / 2) + sin(t / 2) J. J is skew and J^2 = -1: R_Y on
    qubit q pairs the states that differ in bit q. A layer has an angle for each qubit. Between layers, CZ gates act
    on qubits (0, 1), (2, 3), ... and next time on (1, 2), (3, 4), ...: a matrix of signs on the diagonal.
    """

    def add_numbers(self, rank: int, rng: torch.Generator, n: int) -> None:
        n_qubits = rank.bit_length() - 1
        n_layers = n_circuit_layers(rank, n)
        self.diagonal = nn.Parameter(torch.zeros(rank))
        self.angles = nn.Parameter(torch.zeros(2, n_layers * n_qubits))
        self.register_buffer("one", torch.eye(rank), persistent=False)
        turns = torch.stack([self.turns(rank, n_layers, rng) for _ in range(2)])
        self.register_buffer("generators", turns, persistent=False)  # (2, n_angles, rank, rank)
        self.register_buffer("signs", self.between(rank, n_layers), persistent=False)  # (n_angles, rank)

    def turns(self, rank: int, n_layers: int, rng: torch.Generator) -> Tensor:
        """Return J of every angle of one factor, shape (n_angles, rank, rank)."""
        n_qubits = rank.bit_length() - 1
        states = torch.arange(rank)
        zeros = [states[states >> n_qubits - 1 - q & 1 == 0] for q in range(n_qubits)]  # qubit 0: most significant
        return torch.stack([_turn(s, s + (1 << n_qubits - 1 - q), rank) for q, s in enumerate(zeros)] * n_layers)

    def between(self, rank: int, n_layers: int) -> Tensor:
        """Return the signs that follow every angle, shape (n_angles, rank); those of CZ gates follow all but the last
        layer."""
        n_qubits = rank.bit_length() - 1
        signs = torch.ones(n_layers, n_qubits, rank)
        bits = torch.arange(rank) >> torch.arange(n_qubits - 1, -1, -1)[:, None] & 1  # (n_qubits, rank)
        for layer in range(n_layers - 1):
            for q in range(layer % 2, n_qubits - 1, 2):
                signs[layer, -1] *= 1 - 2 * bits[q] * bits[q + 1]
        return signs.flatten(0, 1)

    def factors(self) -> Tensor:
        """Return Q and Q', shape (2, rank, rank)."""
        half = (self.angles / 2)[..., None, None]
        steps = (half.cos() * self.one + half.sin() * self.generators) * self.signs[..., None]
        while steps.shape[1] > 1:  # the later step stands on the left; pairs at a time, an odd first one waits
            odd = steps[:, : steps.shape[1] % 2]
            rest = steps[:, odd.shape[1] :]
            steps = torch.cat([odd, rest[:, 1::2] @ rest[:, ::2]], dim=1)
        return steps[:, 0]

    def core(self) -> Tensor:
        left, right = self.factors()
        return left * self.diagonal @ right.T


class Paired(Circuit):
    """The same, but each angle turns random pairs of basis states, and there are no CZ gates."""

    def turns(self, rank: int, n_layers: int, rng: torch.Generator) -> Tensor:
        n_angles = n_layers * (rank.bit_length() - 1)
        orders = [torch.randperm(rank, generator=rng) for _ in range(n_angles)]
        return torch.stack([_turn(order[: rank // 2], order[rank // 2 :], rank) for order in orders])

    def between(self, rank: int, n_layers: int) -> Tensor:
        return super().between(rank, n_layers).abs()


def _turn(first: Tensor, second: Tensor, rank: int) -> Tensor:
    """Return the skew J that turns each of the first states towards its second one."""
    turn = torch.zeros(rank, rank)
    turn[second, first] = 1.0
    turn[first, second] = -1.0
    return turn


def n_circuit_layers(rank: int, n: int) -> int:
    """Return how many layers of both factors fit into `n` numbers beside the diagonal."""
    return (n - rank) // (2 * (rank.bit_length() - 1))


def rotation_side(n: int) -> int:
    """Return the largest side of a rotation of at most `n` numbers."""
    return (1 + math.isqrt(1 + 8 * n)) // 2


def _between_bases(weight: Tensor, bases: Factors) -> Factors:
    return bases


def _on_weight(weight: Tensor, bases: Factors) -> Factors:
    right = F.normalize(bases[0])  # the rows of A are orthogonal: they are the gradient's singular vectors
    return right, weight @ right.T


def _of_weight(weight: Tensor, bases: Factors) -> Factors:
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    rank = len(bases[0])
    return right[:rank], left[:, :rank] * values[:rank]


FORMS: dict[str, tuple[type[Core], Callable[[Tensor, Factors], Factors]]] = {
    "rotation": (Rotation, _on_weight),
    "leading": (Leading, _on_weight),
    "circuit": (Circuit, _between_bases),
    "paired": (Paired, _between_bases),
    "weights": (Leading, _of_weight),
}

"""Ansätze by name: the rotations of a layer, and the entangling gates that follow each of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from qpa_hf.messages import shown

AXES = ("x", "y", "z")
CNOT_CHAIN = "cnot_chain"


def _chain(n_qubits: int) -> list[tuple[int, int]]:
    return [(qubit, qubit + 1) for qubit in range(n_qubits - 1)]


def _ring(n_qubits: int) -> list[tuple[int, int]]:
    closing = [(n_qubits - 1, 0)] if n_qubits > 2 else []  # between two qubits a second CZ would undo the first
    return _chain(n_qubits) + closing


def _all_pairs(n_qubits: int) -> list[tuple[int, int]]:
    return list(itertools.combinations(range(n_qubits), 2))


class Entangler(NamedTuple):
    """The two-qubit gates after a rotation layer.

    Args:
        gate: the kind of gate, "cnot" or "cz".
        pairs: a function from the number of qubits to the control and target of each gate, in time order.
    """

    gate: str
    pairs: Callable[[int], list[tuple[int, int]]]


# One qubit has no entangling gates. A ring of two qubits is a chain, as Qiskit's "circular" entanglement is.
ENTANGLERS = MappingProxyType(
    {
        CNOT_CHAIN: Entangler("cnot", _chain),
        "cnot_ring": Entangler("cnot", _ring),
        "cnot_all_pairs": Entangler("cnot", _all_pairs),
        "cz_chain": Entangler("cz", _chain),
        "cz_ring": Entangler("cz", _ring),
        "cz_all_pairs": Entangler("cz", _all_pairs),
    }
)


@dataclass(frozen=True)
class Ansatz:
    """A layer's rotations in time order; each of them turns every qubit, and the entangler comes after each.

    The entanglers of N qubits, in time order:

    - `"..._chain"`: (0, 1), (1, 2), .. (N-2, N-1), an open chain;
    - `"..._ring"`: the chain, then (N-1, 0), which closes it; two qubits have the chain's gate alone;
    - `"..._all_pairs"`: (0, 1), (0, 2), .. (0, N-1), (1, 2), .. (N-2, N-1);

    each pair as CNOT(control, target) in `"cnot_..."` and as CZ in `"cz_..."`. One qubit has no entangling gates.

    Args:
        rotations: the axes of the rotation layers, each "x", "y" or "z", at least one.
        entangler: the name of the gates after each rotation layer, a key of `ENTANGLERS`.

    Raises:
        TypeError: if `rotations` is no sequence of axes.
        ValueError: for an unknown axis or entangler, or no rotations.

    Example:
        >>> Ansatz(("z", "y"), "cz_ring").entangling_gates(3)
        [('cz', 0, 1), ('cz', 1, 2), ('cz', 2, 0)]
    """

    rotations: tuple[str, ...]
    entangler: str = CNOT_CHAIN

    def __post_init__(self) -> None:
        allowed = "Give a tuple of axes, each 'x', 'y' or 'z', such as ('z', 'y')."
        if not isinstance(self.rotations, (tuple, list)):
            raise TypeError(f"`rotations`={shown(self.rotations)} is not a tuple. {allowed}")
        object.__setattr__(self, "rotations", tuple(self.rotations))  # a list could not be looked up
        if not self.rotations or not all(axis in AXES for axis in self.rotations):
            raise ValueError(f"`rotations`={shown(self.rotations)} is not allowed. {allowed}")
        if not isinstance(self.entangler, str) or self.entangler not in ENTANGLERS:
            known = ", ".join(map(repr, ENTANGLERS))
            raise ValueError(f"`entangler`={shown(self.entangler)} is not known. Choose one of {known}.")

    @property
    def is_real(self) -> bool:
        """Whether all amplitudes stay real: R_Y, CNOT and CZ are real matrices."""
        return all(axis == "y" for axis in self.rotations)

    @property
    def is_cnot_chain(self) -> bool:
        """Whether the entangler is the published one, which fast simulators, noise and devices know."""
        return self.entangler == CNOT_CHAIN

    def entangling_gates(self, n_qubits: int) -> list[tuple[str, int, int]]:
        """Return ("cnot" or "cz", control, target) of each gate that follows a rotation layer, in time order."""
        gate, pairs = ENTANGLERS[self.entangler]
        return [(gate, control, target) for control, target in pairs(n_qubits)]

    def __str__(self) -> str:
        return f"{' '.join(f'R_{axis.upper()}' for axis in self.rotations)}, {self.entangler}"


# Eq. 1, 12, 13 and 14 of https://huggingface.co/papers/2410.09846.
PUBLISHED = MappingProxyType(
    {
        "ry_cnot": Ansatz(("y",)),
        "rx_cnot": Ansatz(("x",)),
        "rx_rz_cnot": Ansatz(("x", "z")),
        "ry_rz_cnot": Ansatz(("y", "z")),
    }
)
_registered: dict[str, Ansatz] = {}


# Not a plain dict: a name that is overwritten would make other circuits of the same checkpoint.
class _Table(Mapping[str, Ansatz]):
    """All ansätze of this process by name: a mapping to be read, which `register_ansatz` alone adds to."""

    def __getitem__(self, name: str) -> Ansatz:
        return PUBLISHED[name] if name in PUBLISHED else _registered[name]

    def __iter__(self) -> Iterator[str]:
        return itertools.chain(PUBLISHED, _registered)

    def __len__(self) -> int:
        return len(PUBLISHED) + len(_registered)

    def __repr__(self) -> str:
        return repr(dict(self))

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("`ANSATZE` can only be read. Add an ansatz with `register_ansatz(name, Ansatz(...))`.")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse


ANSATZE = _Table()


def register_ansatz(name: str, ansatz: Ansatz) -> None:
    """Make an ansatz of your own known under a name, which `QPAConfig(ansatz=...)` and `probabilities` then take.

    It is exact and differentiable on every device that torch has; a pattern that no fast simulation knows is computed
    gate by gate. Noise and devices take those whose entangler is `"cnot_chain"`.

    A name is known in the process that registers it, and it is all of the pattern that a configuration keeps: register
    it at the top of each script that trains or loads an adapter with it, and in each process that is spawned. A
    checkpoint of the same name and another pattern is refused.

    Args:
        name: the name, of letters, digits and underscores, a letter first.
        ansatz: the pattern. The same one may be registered again.

    Raises:
        TypeError: if `ansatz` is no `Ansatz`.
        ValueError: for another form of name, or if the name stands for another pattern already.

    Example:
        >>> import torch
        >>> from qpa_hf import Ansatz, QPAConfig, register_ansatz
        >>> from qpa_hf.circuit import probabilities
        >>> register_ansatz("rx_ry_ring", Ansatz(("x", "y"), entangler="cz_ring"))
        >>> config = QPAConfig(ansatz="rx_ry_ring", target_modules=["c_attn"])
        >>> config.generator_spec(10_000).angles_shape  # (n_circuits, circuit_depth, rotations a layer, n_qubits)
        (8, 8, 2, 5)
        >>> probabilities(torch.zeros(8, 2, 5), "rx_ry_ring").argmax().item()  # no angle turns anything: |00000>
        0
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"`name`={name!r} is not allowed. Use letters, digits and underscores, a letter first.")
    if not isinstance(ansatz, Ansatz):
        raise TypeError(f"`ansatz`={ansatz!r} is not an Ansatz. Give one, such as Ansatz(('x', 'y'), 'cz_ring').")
    # The same pattern again is no fault: a script's top level runs once more in each process that is spawned.
    known = ANSATZE.get(name, ansatz)
    if known != ansatz:
        raise ValueError(
            f"`name`={name!r} stands for {known} already, and cannot be given to {ansatz}. Choose another name."
        )
    if name not in PUBLISHED:
        _registered[name] = ansatz


def find_ansatz(name: str) -> Ansatz:
    """Return the ansatz called `name`.

    Raises:
        ValueError: if there is none of that name in this process.

    Example:
        >>> find_ansatz("rx_rz_cnot").rotations
        ('x', 'z')
    """
    if not isinstance(name, str) or name not in ANSATZE:
        raise ValueError(
            f"`ansatz`={shown(name)} is not known. Choose one of {', '.join(map(repr, ANSATZE))}, or make one of your "
            "own known in this process with `qpa_hf.register_ansatz(name, qpa_hf.Ansatz(...))`."
        )
    return ANSATZE[name]


def ansatz_label(name: str) -> str:
    """Return what tells an ansatz from all others, in any process: the name, and the pattern of a registered one.

    Raises:
        ValueError: if there is none of that name in this process.

    Example:
        >>> ansatz_label("ry_cnot")
        'ry_cnot'
    """
    # A published name stands for one pattern for ever; another name may stand for another pattern elsewhere.
    return name if name in PUBLISHED else f"{name} ({find_ansatz(name)})"


def angles_shape(ansatz: str, depth: int, n_qubits: int) -> tuple[int, ...]:
    """Return the shape of one circuit's angles: (depth, n_qubits), or (depth, n_rotations, n_qubits) with several.

    Example:
        >>> angles_shape("ry_cnot", 8, 7), angles_shape("rx_rz_cnot", 8, 7)
        ((8, 7), (8, 2, 7))
    """
    n_rotations = len(find_ansatz(ansatz).rotations)
    return (depth, n_qubits) if n_rotations == 1 else (depth, n_rotations, n_qubits)

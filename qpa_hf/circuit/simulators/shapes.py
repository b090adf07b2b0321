"""The shapes that all simulators take and return. They exist for type checkers alone: jaxtyping is no requirement."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    Angles = Float[Tensor, "n_circuits depth n_rotations n_qubits"]
    Probabilities = Float[Tensor, "n_circuits n_states"]

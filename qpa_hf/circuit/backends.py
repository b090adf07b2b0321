"""Where probabilities come from: a backend's name, its function, and what must be there before it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from qpa_hf.circuit.probabilities import probabilities
from qpa_hf.circuit.torchquantum import load_torchquantum, torchquantum_probabilities


@dataclass(frozen=True)
class Backend:
    """One source of probabilities.

    Args:
        probabilities: takes angles, ansatz and n_states as `qpa_hf.circuit.probabilities` does.
        require: raises an ImportError that says what to install, if something is missing.
    """

    probabilities: Callable[[Tensor, str, int | None], Tensor]
    require: Callable[[], Any]


BACKENDS = {
    "exact": Backend(probabilities, lambda: None),
    "torchquantum": Backend(torchquantum_probabilities, load_torchquantum),
    "ibm": Backend(probabilities, lambda: None),  # measured on a device; simulated only where it is watched
}

"""What runs the circuits: a backend's name, its function, and what must be there before it is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from qpa_hf.circuit import probabilities
from qpa_hf.circuit.simulators.torchquantum import load_torchquantum


@dataclass(frozen=True)
class Backend:
    """One source of probabilities.

    Args:
        probabilities: a function of angles, ansatz and n_states, as `qpa_hf.circuit.probabilities` is.
        require: a function that raises an ImportError, saying what to install, if something is missing.
    """

    probabilities: Callable[[Tensor, str, int | None], Tensor]
    require: Callable[[], Any]


BACKENDS = {
    "exact": Backend(probabilities, lambda: None),
    "torchquantum": Backend(partial(probabilities, simulator="torchquantum"), load_torchquantum),
    "ibm": Backend(probabilities, lambda: None),  # measured on a device; simulated only where it is watched
}

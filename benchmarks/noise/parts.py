"""The parts of the study that train adapters, as lists of settings, and their sizes on each task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.noise.setting import Setting
from qpa_hf.measurement.interpolation import INTERPOLATIONS
from qpa_hf.measurement.noise import DEVICES

PAPER_SHOTS = ("10x", "20x", "40x")  # Appendix G of https://huggingface.co/papers/2410.09846, as the next two
DEVICE_SHOTS = "20x"
DEVICE_ANSATZE = ("ry_cnot", "rx_cnot")


@dataclass(frozen=True)
class Grid:
    """The sizes of one task's study.

    Args:
        rate: learning rate of all runs.
        widths: numbers of qubits of Fig. 8.
        noisy_widths: of Fig. 9; a density matrix of one qubit more takes four times as long.
        interpolated_width: number of qubits where interpolations are compared.
        few_shots: shots for each basis state there.
        n_seeds: runs of each setting.
    """

    rate: float
    widths: tuple[int, ...]
    noisy_widths: tuple[int, ...]
    interpolated_width: int
    few_shots: tuple[str, ...]
    n_seeds: int = 3


def _shots(grid: Grid) -> list[Setting]:
    levels = [{}, *({"shots": shots, "gradient": "parameter_shift"} for shots in PAPER_SHOTS)]
    return [Setting(n_qubits, **level) for n_qubits in grid.widths for level in levels]


def _devices(grid: Grid) -> list[Setting]:
    return [
        Setting(n_qubits, DEVICE_SHOTS, ansatz=ansatz, noise=noise)
        for n_qubits in grid.noisy_widths
        for ansatz in DEVICE_ANSATZE
        for noise in (None, *DEVICES)
    ]


def _interpolation(grid: Grid) -> list[Setting]:
    few = [Setting(grid.interpolated_width, s, interpolation=i) for s in grid.few_shots for i in INTERPOLATIONS]
    return [Setting(grid.interpolated_width), *few]


PARTS: dict[str, Callable[[Grid], list[Setting]]] = {
    "shots": _shots,
    "devices": _devices,
    "interpolation": _interpolation,
}

# WikiText-2 is the task for which so few steps are enough to tell settings apart; SST-2 hardly moves in them. Rates
# were tried on the development part with exact probabilities and seed 0: WikiText's 3e-3 and 1e-2 at N = 5 (about
# level) and 10 (1e-2 ahead), SST-2's 3e-4 and 1e-3 at N = 5 only.
GRIDS = {
    "wikitext": Grid(1e-2, (5, 6, 7, 8, 9, 10), (5, 6, 7, 8), 8, ("0.1x", "1x", "10x")),
    "sst2": Grid(1e-3, (5, 6, 7, 8, 9, 10), (5, 6, 7, 8), 8, ("0.1x", "1x", "10x")),
}
QUICK_GRID = Grid(1e-2, (5,), (5,), 5, ("1x",), n_seeds=1)

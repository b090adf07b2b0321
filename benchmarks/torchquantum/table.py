"""Write TorchQuantum's probabilities in float64, for the ordinary tests, which run without TorchQuantum.

    python -m benchmarks.torchquantum.table tests/circuit/torchquantum_table.json

TorchQuantum computes in complex64, a constant of its module `macro` that all others import; here that module is loaded
first, with complex128 in its place.
"""

import importlib.util
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from qpa_hf.circuit import ANSATZE, angles_shape, probabilities
from qpa_hf.circuit.simulators.torchquantum import load_torchquantum

SIZES = ((1, 1), (2, 3), (3, 2), (4, 2))  # qubits, depth
SEED = 0


def use_double_precision() -> None:
    """Make TorchQuantum compute in complex128; before its first import."""
    package = importlib.util.find_spec("torchquantum")
    if package is None or package.origin is None:
        load_torchquantum()  # says what to install
        return
    spec = importlib.util.spec_from_file_location("torchquantum.macro", Path(package.origin).with_name("macro.py"))
    macro = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(macro)
    macro.C_DTYPE, macro.F_DTYPE = torch.complex128, torch.float64
    sys.modules["torchquantum.macro"] = macro


def main(path: str) -> None:
    """Write angles and probabilities of every ansatz at several sizes."""
    use_double_precision()
    rng = torch.Generator().manual_seed(SEED)
    cases = []
    for ansatz in ANSATZE:
        for n_qubits, depth in SIZES:
            angles = torch.randn(angles_shape(ansatz, depth, n_qubits), dtype=torch.float64, generator=rng) * 2
            p = probabilities(angles, ansatz, simulator="torchquantum")
            cases.append({"ansatz": ansatz, "angles": angles.tolist(), "probabilities": p.tolist()})
    made_by = {
        "torchquantum": version("torchquantum"),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    Path(path).write_text(
        json.dumps({"made_by": made_by, "seed": SEED, "cases": cases}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main(sys.argv[1])

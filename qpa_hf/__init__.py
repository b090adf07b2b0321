"""Quantum parameter adaptation for PEFT: a small circuit and a small mapping model generate an adapter's weights.

Importing this package registers the method "QPA" with PEFT.
"""

from qpa_hf import remarks  # noqa: F401  # first: it silences what the import of PEFT logs
from qpa_hf._version import __version__
from qpa_hf.circuit import Ansatz, register_ansatz
from qpa_hf.materialize import materialize
from qpa_hf.networks import generate, load_generated
from qpa_hf.optimize import optimize_angles
from qpa_hf.plan import plan
from qpa_hf.tuners.bottleneck import BottleneckConfig
from qpa_hf.tuners.qpa import QPAConfig, QPAModel, initialize_basis, refresh_basis

__all__ = [
    "Ansatz",
    "BottleneckConfig",
    "QPAConfig",
    "QPAModel",
    "__version__",
    "generate",
    "initialize_basis",
    "load_generated",
    "materialize",
    "optimize_angles",
    "plan",
    "refresh_basis",
    "register_ansatz",
]

"""From circuits to one flat vector (`Generator`), cut into tensors (`Bank`). Knows neither PEFT nor transformers."""

from qpa_hf.generator.bank import Bank
from qpa_hf.generator.basis import Basis, Moments, Pair, scaled_bases, second_moment
from qpa_hf.generator.features import FEATURES, basis_bits
from qpa_hf.generator.generator import RECORDED, Generator
from qpa_hf.generator.interpolation import INTERPOLATIONS
from qpa_hf.generator.spec import ACTIVATIONS, FLOAT_BYTES, SOURCES, STARTS, GeneratorSpec

__all__ = [
    "ACTIVATIONS",
    "FEATURES",
    "FLOAT_BYTES",
    "INTERPOLATIONS",
    "RECORDED",
    "SOURCES",
    "STARTS",
    "Bank",
    "Basis",
    "Generator",
    "GeneratorSpec",
    "Moments",
    "Pair",
    "basis_bits",
    "scaled_bases",
    "second_moment",
]

"""From circuits to one flat vector (`Generator`), handed out as tensors (`Bank`). Knows no PEFT."""

from qpa_hf.generator.bank import Bank
from qpa_hf.generator.declaring import among, documented, setting, settings_in
from qpa_hf.generator.features import basis_bits
from qpa_hf.generator.frozen_bases import FrozenBases, Pair
from qpa_hf.generator.generator import Generator
from qpa_hf.generator.mapping import ACTIVATIONS
from qpa_hf.generator.numbers import RECORDED
from qpa_hf.generator.pieces import Pieces, ScaledPieces
from qpa_hf.generator.scaled_bases import Moments, scaled_bases, second_moment
from qpa_hf.generator.settings import SIZES, GeneratorSettings, rows_of
from qpa_hf.generator.sketches import Sketch, n_sketch_columns
from qpa_hf.generator.sources import SOURCES
from qpa_hf.generator.spec import FLOAT_BYTES, GeneratorSpec

__all__ = [
    "ACTIVATIONS",
    "FLOAT_BYTES",
    "RECORDED",
    "SIZES",
    "SOURCES",
    "Bank",
    "FrozenBases",
    "Generator",
    "GeneratorSettings",
    "GeneratorSpec",
    "Moments",
    "Pair",
    "Pieces",
    "ScaledPieces",
    "Sketch",
    "among",
    "basis_bits",
    "documented",
    "n_sketch_columns",
    "rows_of",
    "scaled_bases",
    "second_moment",
    "setting",
    "settings_in",
]

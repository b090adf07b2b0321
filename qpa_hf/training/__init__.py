"""A training run from settings in a file: what `qpa train` and `qpa compare` do."""

from qpa_hf.training.data import TextData, read_data
from qpa_hf.training.run import Finished, train
from qpa_hf.training.settings import RECIPES, RunSettings, read_settings

__all__ = ["RECIPES", "Finished", "RunSettings", "TextData", "read_data", "read_settings", "train"]

"""A training run from settings in a file: what `qpa train` and `qpa compare` do."""

from qpa_hf.training.data import Examples
from qpa_hf.training.run import Finished, train
from qpa_hf.training.settings import RECIPES, RunSettings, read_data, read_settings
from qpa_hf.training.tasks import TASKS

__all__ = ["RECIPES", "TASKS", "Examples", "Finished", "RunSettings", "read_data", "read_settings", "train"]

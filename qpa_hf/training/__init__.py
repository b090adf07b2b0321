"""A training run from settings in a file: what `qpa train` and `qpa compare` do."""

from typing import TYPE_CHECKING, Any

from qpa_hf.training.settings import RECIPES, RunSettings, read_settings

if TYPE_CHECKING:
    from qpa_hf.training.data import TextData, read_data
    from qpa_hf.training.run import Finished, train

__all__ = ["RECIPES", "Finished", "RunSettings", "TextData", "read_data", "read_settings", "train"]


def __getattr__(name: str) -> Any:
    # Texts are read by `datasets`, whose import takes a second: a plan, which needs the settings alone, does without.
    if name in ("TextData", "read_data"):
        from qpa_hf.training import data

        return getattr(data, name)
    if name in ("Finished", "train"):
        from qpa_hf.training import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

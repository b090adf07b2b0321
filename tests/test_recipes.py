"""Every recipe is a run that can be started."""

import pytest
import yaml

from qpa_hf import QPAConfig
from qpa_hf.training import RECIPES
from qpa_hf.training.settings import TRAINING_DEFAULTS, DataSettings

# Numbers generated for lm_head at rank 4 (Table 2), and trained ones: Table 3 and, for Gemma, Sec. 4.2 of the paper.
N_VALUES = {"paper-gpt2": 204_100, "paper-gemma": 1_032_192}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_lists_only_what_differs_from_the_defaults(name):
    recipe = yaml.safe_load(RECIPES[name].read_text(encoding="utf-8"))
    defaults = QPAConfig()
    same = [key for key, value in recipe["adapter"].items() if getattr(defaults, key, None) == value]
    same += [key for key, value in recipe["training"].items() if TRAINING_DEFAULTS.get(key) == value]
    same += [key for key, value in recipe["data"].items() if getattr(DataSettings(), key) == value]
    assert same == []

"""Every recipe is a run that can be started."""

import pytest
import yaml
from transformers import GemmaConfig, GPT2Config

from qpa_hf import QPAConfig, plan
from qpa_hf.training import RECIPES, read_settings
from qpa_hf.training.settings import TRAINING_DEFAULTS, DataSettings

GEMMA_2B = GemmaConfig(hidden_size=2048, num_hidden_layers=1, vocab_size=256_000)
# Numbers generated for lm_head at rank 4, and trained ones: Tables 2 and 3 and, for Gemma, Sec. 4.2 of the paper.
COUNTS = {"paper-gpt2": (GPT2Config(n_layer=1), 204_100, 106_264), "paper-gemma": (GEMMA_2B, 1_032_192, 173_888)}


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_lists_only_what_differs_from_the_defaults(name):
    recipe = yaml.safe_load(RECIPES[name].read_text(encoding="utf-8"))
    defaults = QPAConfig()
    same = [key for key, value in recipe["adapter"].items() if getattr(defaults, key, None) == value]
    same += [key for key, value in recipe["training"].items() if TRAINING_DEFAULTS.get(key) == value]
    same += [key for key, value in recipe["data"].items() if getattr(DataSettings(), key) == value]
    assert same == []


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_has_the_counts_of_the_paper(name):
    shapes, n_values, n_trainable = COUNTS[name]
    row = plan(read_settings(recipe=name).adapter_config(), shapes).rows[0]
    assert (row.n_values, row.n_trainable) == (n_values, n_trainable)


def test_a_recorded_base_model_is_checked_before_the_run():
    with pytest.raises(ValueError, match="`base_model`='./base' is no Hub id"):
        read_settings(None, "paper-gpt2", ["record.base_model=./base"])
    assert read_settings(None, "paper-gpt2", ["record.base_model=me/base"]).record == {"base_model": "me/base"}

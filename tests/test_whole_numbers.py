"""What counts something is refused where it is no whole number, wherever it can be given."""

from pathlib import Path

import numpy as np
import pytest
import torch
from models import build, inputs
from peft import get_peft_model
from transformers import GPT2Config

from qpa_hf import BottleneckConfig, QPAConfig, initialize_basis, plan
from qpa_hf.evaluation import padded_perplexity, perplexity, text_blocks
from qpa_hf.measurement.device import sample
from qpa_hf.measurement.noise import noisy_probabilities
from qpa_hf.trainer_callbacks import OptimizeAnglesCallback

SETTINGS = {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}


def examples(n_examples):
    model = get_peft_model(build("llama"), QPAConfig(basis="gradient", source="direct", r=2, **SETTINGS))
    initialize_basis(
        model, [inputs("llama")], n_examples=n_examples, loss=lambda model, batch: model(**batch).logits.sum()
    )


COUNTS = {
    "steps of a plan": ("n_steps", lambda n: plan(QPAConfig(target_modules=["c_attn"]), GPT2Config(), n_steps=n)),
    "examples for bases": ("n_examples", examples),
    "steps between two calls": ("every", lambda n: OptimizeAnglesCallback(loss=len, every=n)),
    "neurons": ("bottleneck_size", lambda n: BottleneckConfig(bottleneck_size=n)),
    "tokens of a block": ("length", lambda n: text_blocks(None, ["text"], n)),
    "tokens of a sequence": ("length", lambda n: padded_perplexity(None, None, ["text"], n)),
    "blocks at a time": ("batch_size", lambda n: perplexity(build("llama"), torch.ones(1, 4, dtype=torch.long), n)),
    "trajectories": ("n_trajectories", lambda n: noisy_probabilities(torch.zeros(1, 11), n_trajectories=n)),
    "shots of a job": ("shots", lambda n: sample(torch.zeros(1, 2), "ry_cnot", n, "fake_torino", Path("jobs"), 0)),
}


@pytest.mark.parametrize("value", [0, 1.5, True, "2"])
@pytest.mark.parametrize("case", COUNTS)
def test_what_is_no_whole_number_is_refused(case, value):
    name, call = COUNTS[case]
    with pytest.raises(ValueError, match=f"`{name}`={value!r} is not allowed. Set it to a whole number of at least"):
        call(value)


def test_numbers_of_numpy_are_taken():
    assert type(BottleneckConfig(bottleneck_size=np.int64(3)).bottleneck_size) is int

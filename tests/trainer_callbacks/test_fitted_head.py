"""A classifier's random head, fitted by GradientBasisCallback before the bases are found."""

import math

import pytest
import torch
from cases import LM
from models import build
from peft import get_peft_model
from trained import StopAt, trainer

from qpa_hf import QPAConfig
from qpa_hf.trainer_callbacks import GradientBasisCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]


def sentences(n=96):
    """Return sentences of one token each, whose class the token decides."""
    tokens = torch.randint(3, 9, (n,), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": token.expand(4), "labels": token % 3} for token in tokens]


def base():
    """Return a small BERT whose features differ from sentence to sentence, as a trained one's do."""
    model = build("bert")
    with torch.no_grad():
        for parameter in model.bert.parameters():
            parameter.mul_(5)
    return model


def run(folder, *callbacks, fit_head=True, **kwargs):
    """Return a Trainer of a classifier whose head is as it was made."""
    config = QPAConfig(basis="gradient", r=4, target_modules=["query", "value"], task_type="SEQ_CLS")
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1} | kwargs
    made = trainer(folder, callbacks, model=get_peft_model(base(), config), **settings)
    made.train_dataset = sentences()
    made.add_callback(GradientBasisCallback(made, n_examples=96, fit_head=fit_head))
    return made


def numbers(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_fitted_head_has_left_guessing_before_the_first_step(tmp_path, recwarn):
    made = run(tmp_path, learning_rate=0.0)
    before = numbers(made.model)
    made.train()
    after = numbers(made.model)
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    parts = [f"base_model.model.classifier.modules_to_save.default.{name}" for name in ("weight", "bias")]
    assert changed == {*parts, "base_model.lora_qpa.default.basis"}
    assert made.evaluate(sentences())["eval_loss"] < 0.9 * math.log(3)
    assert not [warning for warning in recwarn if "head" in str(warning.message)]


def test_head_that_is_left_random_is_warned_of(tmp_path):
    with pytest.warns(UserWarning, match=r"fit_head=True"):
        run(tmp_path, fit_head=False).train()


def test_interrupted_run_resumes_bit_for_bit(tmp_path):
    whole = run(tmp_path / "whole")
    whole.train()
    run(tmp_path / "parts", StopAt(1)).train()
    resumed = run(tmp_path / "parts")
    resumed.train(resume_from_checkpoint=True)
    expected = numbers(whole.model)
    assert all(torch.equal(value, expected[name]) for name, value in numbers(resumed.model).items())


def test_no_head_is_refused_before_anything_is_read(tmp_path):
    config = QPAConfig(basis="gradient", r=4, target_modules=["q_proj"], **LM)
    made = trainer(tmp_path, model=get_peft_model(build("llama"), config))
    made.add_callback(GradientBasisCallback(made, fit_head=True))
    with pytest.raises(ValueError, match="has no head to fit"):
        made.train()


def test_head_without_a_finite_gradient_is_refused(tmp_path):
    made = run(tmp_path)
    made.compute_loss = lambda model, inputs, **_: torch.inf * model(**inputs).loss
    with pytest.raises(ValueError, match="The gradient of the head is not finite"):
        made.train()

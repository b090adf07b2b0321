"""PEFT methods with generated tensors in Trainer, and from there to the Hub and to someone else's process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import logits
from loophub import LoopHub
from methods import make
from models import build
from modules import SETTINGS
from trained import StopAt, losses, trainer

from qpa_hf import generate, load_generated, materialize

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
TESTS = Path(__file__).parents[1]
METHODS = ["PREFIX_TUNING, projection", "VERA"]


def run_of(folder, case, **kwargs):
    model = build(case) if case == "gpt2" else make(case)
    return trainer(folder, model=generate(model, **SETTINGS).train(), **kwargs)


@pytest.mark.parametrize("case", [*METHODS, "gpt2"])
def test_interrupted_training_resumes_bit_for_bit(case, tmp_path):
    whole = run_of(tmp_path / "whole", case)
    whole.train()
    settings = {"save_strategy": "steps", "save_steps": 4}
    run_of(tmp_path / "parts", case, callbacks=[StopAt(4)], **settings).train()
    resumed = run_of(tmp_path / "parts", case, **settings)
    resumed.train(resume_from_checkpoint=True)
    for (name, expected), found in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(expected, found), name


def activate_another(model):
    model.add_adapter("b", model.peft_config["default"])
    model.set_adapter("b")


FREEZING = {
    "set_requires_grad": lambda model: model.set_requires_grad("default", False),
    "for inference": lambda model: model.set_adapter("default", inference_mode=True),
    "another one is active": activate_another,
}


@pytest.mark.parametrize("case", FREEZING)
def test_generator_is_frozen_with_its_adapter(case):
    model = generate(make("LORA"), **SETTINGS)
    FREEZING[case](model)
    assert not any(p.requires_grad for p in model.qpa_generator.parameters())
    model.set_adapter("default")
    assert all(p.requires_grad for p in model.qpa_generator.parameters())


def test_generator_is_trained_again_when_the_other_adapter_is_deleted():
    model = generate(make("LORA"), **SETTINGS)
    activate_another(model)
    model.delete_adapter("b")
    assert all(p.requires_grad for p in model.qpa_generator.parameters())


def test_deleted_adapter_takes_its_generator_along():
    model = generate(make("LORA"), **SETTINGS)
    activate_another(model)
    model.delete_adapter("default")
    assert not any("qpa_generator" in name for name, _ in model.named_modules())
    generate(model, **SETTINGS)


@pytest.mark.parametrize("case", METHODS)
def test_loaded_for_training_goes_on(case, tmp_path):
    first = run_of(tmp_path / "first", case, learning_rate=0.05, max_steps=20)
    first.train()
    first.save_model(str(tmp_path / "native"))
    model = load_generated(build("llama"), tmp_path / "native", is_trainable=True)
    again = trainer(tmp_path / "again", model=model.train(), learning_rate=0.05, max_steps=20)
    again.train()
    assert losses(first)[-1] < losses(first)[0]
    assert losses(again)[-1] < losses(first)[-1]


def test_trained_prefix_is_pushed_and_loads_with_plain_peft(tmp_path):
    run = run_of(tmp_path / "run", "PREFIX_TUNING", learning_rate=0.05, max_steps=20)
    run.train()
    materialize(run.model, tmp_path / "adapter")
    expected = logits(run.model.eval(), "llama")
    (tmp_path / "cases.json").write_text(json.dumps({"prefix": ["llama", "alice/prefix"]}))
    with LoopHub(tmp_path / "hub") as hub:
        env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_writes"}
        env |= {"PYTHONPATH": str(TESTS)}
        push = "from qpa_hf_cli import main; main()"
        plain = [str(TESTS / "load_plain.py"), str(tmp_path / "cases.json"), str(tmp_path / "answers.pt")]
        for command in (["-c", push, "push", str(tmp_path / "adapter"), "alice/prefix"], plain):
            subprocess.run([sys.executable, *command], env=env, check=True)
    assert torch.equal(torch.load(tmp_path / "answers.pt")["prefix"], expected)

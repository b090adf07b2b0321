"""Adapters whose circuits have an ansatz of the user's own: trained, saved, loaded, counted, known by its pattern."""

import re

import pytest
import torch
from helpers import adapted, logits
from models import build, output
from peft import PeftModel, get_peft_model

from qpa_hf import Ansatz, QPAConfig, generate, load_generated, materialize, plan, register_ansatz
from qpa_hf.inspection import inspect

OWN = {"target_modules": ["q_proj"], "ansatz": "own"}
PATTERN = Ansatz(("z", "y", "x"), "cz_all_pairs")
UNKNOWN = r"`ansatz`='own' is not known\. Choose one of 'ry_cnot', .* known in this process with `qpa_hf\.register_ans"


@pytest.fixture
def own(registry):
    register_ansatz("own", PATTERN)
    return registry


def gradients(**settings):
    model = adapted("llama", **OWN | settings)
    output(model, "llama").square().mean().backward()
    return model.base_model.lora_qpa["default"].angles.grad


def test_adapter_trains_and_materializes(own, tmp_path):
    model = adapted("llama", **OWN)
    assert model.base_model.lora_qpa["default"].angles.shape[1:3] == (2, 3)
    assert gradients().abs().max() > 0
    materialize(model, tmp_path)
    plain = PeftModel.from_pretrained(build("llama"), tmp_path)
    torch.testing.assert_close(logits(plain, "llama"), logits(model, "llama"))


def test_parameter_shift_trains_it_as_exactly(own):
    torch.testing.assert_close(gradients(gradient="parameter_shift"), gradients(), rtol=1e-3, atol=1e-6)


def test_plan_counts_every_angle_and_gate(own):
    three, one = (
        plan(QPAConfig(target_modules=["q_proj"], ansatz=a), build("llama")).rows[0] for a in ("own", "ry_cnot")
    )
    assert three.n_angles == 3 * one.n_angles
    assert three.generator_flops > one.generator_flops


def test_checkpoint_loads_where_the_ansatz_is_registered(own, tmp_path):
    model = adapted("llama", **OWN)
    model.save_pretrained(tmp_path)
    expected = logits(model, "llama")
    own.clear()
    with pytest.raises(ValueError, match=UNKNOWN):
        PeftModel.from_pretrained(build("llama"), tmp_path)
    register_ansatz("own", PATTERN)
    assert torch.equal(logits(PeftModel.from_pretrained(build("llama"), tmp_path), "llama"), expected)


def test_generated_checkpoint_loads_where_the_ansatz_is_registered(own, tmp_path):
    from peft import LoraConfig

    def make():
        return get_peft_model(build("llama"), LoraConfig(r=2, target_modules=["q_proj"]))

    model = generate(make(), ansatz="own", chunk_size=16, n_circuits=2, circuit_depth=2)
    model.save_pretrained(tmp_path)
    own.clear()
    with pytest.raises(ValueError, match=UNKNOWN):
        load_generated(build("llama"), tmp_path)
    register_ansatz("own", Ansatz(("z", "y", "z"), "cz_all_pairs"))
    with pytest.raises(ValueError, match="cz_all_pairs"):
        load_generated(build("llama"), tmp_path)


def test_checkpoint_of_another_pattern_of_that_name_is_refused(own, tmp_path):
    adapted("llama", **OWN).save_pretrained(tmp_path)
    own.clear()
    register_ansatz("own", Ansatz(("z", "y", "z"), "cz_all_pairs"))
    there, here = "own (R_Z R_Y R_X, cz_all_pairs)", "own (R_Z R_Y R_Z, cz_all_pairs)"
    with pytest.raises(ValueError, match=re.escape(f"`ansatz` {there!r} there and {here!r} here")):
        PeftModel.from_pretrained(build("llama"), tmp_path)


def test_pattern_is_told_to_who_reads_the_checkpoint(own, tmp_path):
    adapted("llama", **OWN).save_pretrained(tmp_path)
    assert inspect(tmp_path)["ansatz"] == "own (R_Z R_Y R_X, cz_all_pairs)"
    assert "| ansatz | own (R_Z R_Y R_X, cz_all_pairs) |" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_unknown_ansatz_is_named_by_the_config(registry):
    for name in ("own", ["ry_cnot"], 5, None):
        with pytest.raises(ValueError, match=re.escape(f"`ansatz`={name!r} is not known. Choose one of 'ry_cnot'")):
            QPAConfig(ansatz=name)

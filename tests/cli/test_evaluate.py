"""`qpa evaluate`: adapters of every form on their own base, and refusals."""

import json
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from qpa_hf import generate
from qpa_hf.demo.arms import BASE
from qpa_hf.evaluation import perplexity, text_blocks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--block-length", 300), "`block_length`=300 is more than the 256 positions"),
        (("--block-length", 1), "`block_length`=1 is not allowed"),
        (("--adapter", "./nowhere"), "There is no directory ./nowhere"),
        (("--adapter", __file__), "is a file"),
    ],
)
def test_bad_input_of_an_evaluation_is_named(qpa, book, options, message):
    result = qpa("evaluate", BASE, "--text", book, *options)
    assert (result.code, message in result.err) == (2, True)


@pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
def test_evaluate_takes_the_native_form_of_any_method(qpa, book, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = get_peft_model(
        base, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    )
    model = generate(model, start="authors", chunk_size=64)
    model.save_pretrained(tmp_path)
    options = ("--text", book, "--block-length", 32, "--json")
    found = json.loads(qpa("evaluate", BASE, "--adapter", tmp_path, *options).out)
    blocks = text_blocks(AutoTokenizer.from_pretrained(BASE), [book.read_text(encoding="utf-8")], 32)
    assert found["perplexity"] == perplexity(model, blocks)


@pytest.mark.parametrize("size", [{"n_layer": 2}, {"n_layer": 5}, {"n_embd": 96}], ids=str)
def test_an_adapter_of_another_base_is_refused(size, qpa, book, tmp_path):
    other = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(BASE, **size))
    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    get_peft_model(other, config).save_pretrained(tmp_path)
    result = qpa("evaluate", BASE, "--text", book, "--adapter", tmp_path)
    assert (result.code, "Name the base model that it was trained with" in result.err) == (2, True)


def test_an_adapter_for_another_task_is_refused(qpa, book, tmp_path):
    base = AutoModelForSequenceClassification.from_pretrained(BASE)
    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="SEQ_CLS")
    get_peft_model(base, config).save_pretrained(tmp_path)
    result = qpa("evaluate", BASE, "--text", book, "--adapter", tmp_path)
    assert (result.code, "is an adapter for SEQ_CLS" in result.err) == (2, True)


def test_evaluate_names_the_base_that_an_adapter_was_trained_with(qpa, book, tmp_path):
    base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(BASE))
    base.name_or_path = "someone/other-base"  # of the same shapes, so that all tensors fit
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    result = qpa("evaluate", BASE, "--text", book, "--adapter", tmp_path)
    assert "trained with someone/other-base;" in result.out


def test_evaluate_equals_the_library(qpa, book):
    found = json.loads(qpa("evaluate", BASE, "--text", book, "--block-length", 32, "--padded", "--json").out)
    blocks = text_blocks(AutoTokenizer.from_pretrained(BASE), [book.read_text(encoding="utf-8")], 32)
    assert found["perplexity"] == perplexity(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), blocks)
    assert math.isfinite(found["padded_perplexity"])

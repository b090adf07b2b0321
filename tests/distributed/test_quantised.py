"""A base that bitsandbytes has quantised trains, and what is materialized gives the same logits on it."""

import pytest
import torch
from models import VOCABULARY, inputs
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from qpa_hf import QPAConfig, initialize_basis, materialize

pytest.importorskip("bitsandbytes", reason="bitsandbytes, which quantises the base, is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of bitsandbytes and its casts
SETTINGS = {
    "4-bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32},
    "8-bit": {"load_in_8bit": True},
}


@pytest.fixture(params=list(SETTINGS))
def load(request, tmp_path):
    """A function that loads the quantised base anew."""
    # bitsandbytes' 4-bit kernels for the CPU need widths that are multiples of a block.
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "vocab_size": VOCABULARY}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).save_pretrained(tmp_path / "base")
    quantisation = BitsAndBytesConfig(**SETTINGS[request.param])
    settings = {"quantization_config": quantisation, "device_map": "cpu"}
    return lambda: AutoModelForCausalLM.from_pretrained(tmp_path / "base", **settings)


@pytest.mark.parametrize("exact_bytes", [0, 2**29], ids=["sketched", "whole"])
def test_quantised_base_has_gradient_bases(load, exact_bytes):
    config = {"r": 4, "target_modules": ["q_proj", "down_proj"], "chunk_size": 32, "task_type": "CAUSAL_LM"}
    model = get_peft_model(load(), QPAConfig(basis="gradient", **config))
    ids = inputs("llama")["input_ids"]
    initialize_basis(model, [{"input_ids": ids, "labels": ids}], exact_bytes=exact_bytes)
    assert model.base_model.lora_qpa["default"].basis.isfinite().all()
    assert model(input_ids=ids).logits.isfinite().all()


def test_quantised_base_trains_and_materializes(load, tmp_path):
    base = prepare_model_for_kbit_training(load(), use_gradient_checkpointing=False)
    settings = {"r": 4, "target_modules": ["q_proj", "down_proj"], "chunk_size": 32, "task_type": "CAUSAL_LM"}
    model = get_peft_model(base, QPAConfig(**settings))
    kind = type(model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")).__name__
    assert kind in ("Linear4bit", "Linear8bitLt")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    ids = inputs("llama")["input_ids"]
    losses = []
    for _ in range(3):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    path = materialize(model, tmp_path / "adapter")
    with torch.no_grad():
        expected = model.eval()(input_ids=ids).logits
        found = PeftModel.from_pretrained(load(), path).eval()(input_ids=ids).logits
    assert torch.equal(found, expected)

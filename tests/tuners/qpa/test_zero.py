"""What DeepSpeed's ZeRO-3 asks of an adapter, without DeepSpeed: `make clients` runs it for real."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from helpers import disturb, logits, start
from models import build
from peft import PeftModel
from transformers.integrations import deepspeed

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
CASES = {"default": {}, "dora": {"use_dora": True}, "gradient": {"basis": "gradient", "chunk_size": 4}}


@pytest.mark.parametrize("case", CASES)
def test_checkpoint_of_what_trainer_gathers_is_whole(case, tmp_path, monkeypatch):
    # What `TrainingArguments(deepspeed=...)` leaves behind for a configuration of ZeRO-3.
    monkeypatch.setattr(deepspeed, "_hf_deepspeed_config_weak_ref", lambda: SimpleNamespace(is_zero3=lambda: True))
    # PEFT gathers a magnitude's weights by it; here they lie in one process.
    whole = SimpleNamespace(GatheredParameters=lambda *_, **__: nullcontext())
    monkeypatch.setitem(sys.modules, "deepspeed", SimpleNamespace(zero=whole))
    model = start("llama", target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", **CASES[case])
    disturb(model)
    # As `_zero3_consolidated_16bit_state_dict(exclude_frozen_parameters=True)`: all buffers, no extra state.
    gathered = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    gathered |= {name: buffer for name, buffer in model.named_buffers() if name in model.state_dict()}
    model.save_pretrained(tmp_path, state_dict=gathered)
    monkeypatch.undo()
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path).eval()
    assert torch.equal(logits(loaded, "llama"), logits(model, "llama"))

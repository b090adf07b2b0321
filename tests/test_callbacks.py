"""Trainer callbacks."""

import pytest
import torch
from helpers import logits
from models import build
from peft import PeftModel
from qpa_hf.trainer_callbacks import MaterializeCallback
from test_trainer import trainer


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_each_checkpoint_holds_its_plain_adapter(tmp_path):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "save_total_limit": 2}
    run = trainer(tmp_path, callbacks=[MaterializeCallback()], **settings)
    run.train()
    assert sorted(path.parent.name for path in tmp_path.glob("checkpoint-*/adapter")) == [
        "checkpoint-4",
        "checkpoint-6",
    ]
    plain = PeftModel.from_pretrained(build("llama"), tmp_path / "checkpoint-6" / "adapter")
    assert torch.equal(logits(plain, "llama"), logits(run.model.eval(), "llama"))

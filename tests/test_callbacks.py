"""MaterializeCallback in a real Trainer."""

import json

import pytest
import torch
from helpers import logits
from huggingface_hub import ModelCard
from models import build
from peft import PeftModel
from test_trainer import StopAt, trainer

from qpa_hf.model_cards import RunRecord
from qpa_hf.trainer_callbacks import BEST_NAME, MaterializeCallback

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")
SAVING = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}
# The loss falls, and the highest is called the best: the first checkpoint.
EVALUATING = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "loss", "greater_is_better": True}


def adapters(folder):
    return sorted(path.parent.name for path in folder.glob("checkpoint-*/adapter"))


def test_each_checkpoint_holds_its_plain_adapter(tmp_path):
    run = trainer(tmp_path, callbacks=[MaterializeCallback()], save_total_limit=2, **SAVING)
    run.train()
    assert adapters(tmp_path) == ["checkpoint-4", "checkpoint-6"]
    plain = PeftModel.from_pretrained(build("llama"), tmp_path / "checkpoint-6" / "adapter")
    assert torch.equal(logits(plain, "llama"), logits(run.model.eval(), "llama"))


def test_best_checkpoint_is_marked_and_kept(tmp_path):
    settings = SAVING | EVALUATING
    run = trainer(tmp_path, callbacks=[MaterializeCallback()], save_total_limit=1, **settings)
    run.train()
    best = json.loads((tmp_path / BEST_NAME).read_text())
    value = next(row["eval_loss"] for row in run.state.log_history if row["step"] == 2 and "eval_loss" in row)
    assert best == {
        "checkpoint": "checkpoint-2",
        "adapter": "checkpoint-2/adapter",
        "metric": "eval_loss",
        "value": value,
    }
    assert run.state.best_model_checkpoint.endswith("checkpoint-2")
    assert "checkpoint-2" in adapters(tmp_path)


def test_nothing_is_marked_where_the_best_was_not_saved(tmp_path):
    settings = SAVING | EVALUATING | {"save_steps": 4, "max_steps": 8}
    run = trainer(tmp_path, callbacks=[MaterializeCallback()], **settings)
    run.train()
    assert run.state.best_global_step == 2
    assert not (tmp_path / BEST_NAME).exists()


def test_mark_of_an_earlier_run_does_not_stay(tmp_path):
    trainer(tmp_path, callbacks=[MaterializeCallback()], **SAVING, **EVALUATING).train()
    assert (tmp_path / BEST_NAME).exists()
    trainer(tmp_path, callbacks=[MaterializeCallback()], **SAVING).train()
    assert not (tmp_path / BEST_NAME).exists()


def test_resumed_training_also_materializes_the_best_of_its_first_part(tmp_path):
    settings = SAVING | EVALUATING
    trainer(tmp_path, callbacks=[StopAt(2)], **settings).train()
    trainer(tmp_path, callbacks=[MaterializeCallback()], **settings).train(resume_from_checkpoint=True)
    assert json.loads((tmp_path / BEST_NAME).read_text())["checkpoint"] == "checkpoint-2"
    assert adapters(tmp_path) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]


def test_both_cards_hold_what_trainer_recorded_until_then(tmp_path):
    known = RunRecord(datasets=["alice/texts"], license="mit")
    callback = MaterializeCallback(record=known, evaluated_on=("alice/texts", "test"))
    run = trainer(tmp_path, callbacks=[callback], **SAVING, **EVALUATING)
    run.train()
    value = next(row["eval_loss"] for row in run.state.log_history if row["step"] == 4 and "eval_loss" in row)
    for folder in (tmp_path / "checkpoint-4", tmp_path / "checkpoint-4" / "adapter"):
        record = RunRecord.load(folder)
        assert [(result.metric, result.value) for result in record.results] == [("loss", value)]
        assert (record.steps, record.hyperparameters["learning_rate"]) == (4, 0.01)
        data = ModelCard.load(folder / "README.md").data
        assert data.datasets == ["alice/texts"]
        assert [(r.dataset_name, r.dataset_split, r.metric_value) for r in data.eval_results] == [
            ("alice/texts", "test", value)
        ]


def test_a_sharded_model_without_a_whole_checkpoint_is_explained(tmp_path):
    run = trainer(tmp_path)
    next(run.model.parameters()).ds_id = 0  # DeepSpeed's mark of a parameter that ZeRO-3 keeps elsewhere
    with pytest.raises(RuntimeError, match="`state_dict_type` at FULL_STATE_DICT"):
        MaterializeCallback().on_save(run.args, run.state, run.control, model=run.model)

"""The record of a run: what it holds, where it comes from, and what is none."""

import json
import math
from types import SimpleNamespace

import pytest
from helpers import adapted
from models import build
from peft import LoraConfig, get_peft_model
from records import LM, RECORD
from transformers import TrainingArguments

from qpa_hf import materialize
from qpa_hf.model_cards import Result, RunRecord, add_record

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


def test_saving_another_adapter_forgets_the_old_record(saved):
    adapted("llama", **LM).save_pretrained(saved / "native")
    assert RunRecord.load(saved / "native") is None


def test_materializing_a_folder_takes_its_record_along(saved):
    assert RunRecord.load(saved / "materialized").to_json() == RECORD.to_json()


def test_a_record_that_is_passed_comes_before_that_of_the_folder(saved):
    materialize(saved / "native", saved / "materialized", record=RunRecord(license="mit"))
    assert RunRecord.load(saved / "materialized").license == "mit"


def test_plain_lora_has_no_native_card(tmp_path):
    get_peft_model(build("llama"), LoraConfig(**LM)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds no native QPA adapter"):
        add_record(tmp_path, RECORD)


def test_record_is_json_whatever_the_numbers(tmp_path):
    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    text = RunRecord(results=[Result("loss", float("nan"))], train_loss=float("inf")).to_json()
    json.loads(text, parse_constant=refuse)
    read = RunRecord.from_json(text)
    assert math.isnan(read.results[0].value)
    assert math.isinf(read.train_loss)


def test_one_name_is_a_list_of_one():
    assert RunRecord(datasets="imdb", language="en") == RunRecord(datasets=["imdb"], language=["en"])


def test_record_that_cannot_be_read_keeps_nobody_from_the_weights(saved):
    (saved / "native" / "qpa_run.json").write_text('{"colour": "red"}')
    with pytest.warns(UserWarning, match="The card says nothing of the run"):
        materialize(saved / "native", saved / "materialized")


@pytest.mark.parametrize("text", ["[1]", "{", '{"colour": "red"}', '{"results": [{"value": 1}]}'])
def test_what_is_no_record_is_named(text, tmp_path):
    (tmp_path / "qpa_run.json").write_text(text)
    with pytest.raises(ValueError, match=r"qpa_run.json: This is no record of a run"):
        RunRecord.load(tmp_path)


HISTORY = [
    {"step": 2, "epoch": 0.5, "eval_loss": 3.0, "eval_runtime": 1.0},
    {"step": 4, "epoch": 1.0, "loss": 3.1},
    {"step": 4, "epoch": 1.0, "eval_loss": 4.0},
    {"step": 4, "epoch": 1.0, "train_runtime": 8.0, "train_loss": 3.5},
]


ENDED = {"results": [("loss", 4.0)], "steps": 4, "train_loss": 3.5, "train_seconds": 8.0}


CHECKPOINT = {"results": [("loss", 3.0)], "steps": 2, "train_loss": None, "train_seconds": None}


AFTERWARDS = {"step": 4, "eval_loss": 2}  # a whole number


RUNS = {
    "ended": ({}, None, HISTORY, ENDED),
    "ended with the best": ({"load_best_model_at_end": True}, None, HISTORY, ENDED | {"results": [("loss", 3.0)]}),
    "evaluated afterwards": ({}, None, [*HISTORY, AFTERWARDS], ENDED | {"results": [("loss", 2)]}),
    "at a checkpoint": ({}, 2, HISTORY, CHECKPOINT),
    "without evaluation": ({}, None, HISTORY[1:2], CHECKPOINT | {"results": [], "steps": 4}),
}


@pytest.mark.parametrize("case", RUNS)
def test_record_holds_the_numbers_of_the_weights_that_are_saved(case, tmp_path):
    settings, step, history, expected = RUNS[case]
    args = TrainingArguments(str(tmp_path), report_to="none", use_cpu=True)
    args.load_best_model_at_end = settings.get("load_best_model_at_end", False)
    state = SimpleNamespace(log_history=history, global_step=4, epoch=1.0, best_model_checkpoint="out/checkpoint-2")
    record = RunRecord.from_trainer(args, state, step=step)
    found = {name: getattr(record, name) for name in expected}
    found["results"] = [(result.metric, result.value) for result in record.results]
    if case == "ended with the best":
        expected = expected | {"steps": 2}
    assert found == expected


def test_hyperparameters_are_those_that_matter_and_no_token(tmp_path):
    args = TrainingArguments(
        str(tmp_path / "secret"),
        hub_token="hf_secret",
        learning_rate=0.01,
        weight_decay=0.1,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=3,
        report_to="none",
        use_cpu=True,
    )
    state = SimpleNamespace(log_history=[], global_step=0, epoch=0.0, best_model_checkpoint=None)
    record = RunRecord.from_trainer(args, state, RunRecord(hyperparameters={"seed": 3}))
    assert record.hyperparameters == {
        "learning_rate": 0.01,
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch_fused",
        "seed": 3,
        "weight_decay": 0.1,
        "total_batch_size": 12,
    }
    assert "secret" not in json.dumps(record.to_json())

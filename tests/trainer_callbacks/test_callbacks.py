"""MaterializeCallback in a real Trainer."""

import json
import shutil

import pytest
import torch
from cases import LM
from generated_methods import EVALUATING, METHODS, generated, method_model
from helpers import logits
from huggingface_hub import ModelCard
from models import build
from peft import LoraConfig, PeftModel, get_peft_model
from trained import TARGETS, StopAt, trainer
from transformers import TrainerCallback

from qpa_hf import load_generated
from qpa_hf.model_cards import RunRecord
from qpa_hf.trainer_callbacks import BEST_NAME, MaterializeCallback, PushMaterializedCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
SAVING = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}
# The loss falls, and the highest is called the best: the first checkpoint.


def adapters(folder):
    return sorted(path.parents[1].name for path in folder.glob("checkpoint-*/plain/adapter"))


def test_each_checkpoint_holds_its_plain_adapter(tmp_path):
    run = trainer(tmp_path, callbacks=[MaterializeCallback()], save_total_limit=2, **SAVING)
    run.train()
    assert adapters(tmp_path) == ["checkpoint-4", "checkpoint-6"]
    plain = PeftModel.from_pretrained(build("llama"), tmp_path / "checkpoint-6" / "plain" / "adapter")
    assert torch.equal(logits(plain, "llama"), logits(run.model.eval(), "llama"))


def test_best_checkpoint_is_marked_and_kept(tmp_path):
    settings = SAVING | EVALUATING
    run = trainer(tmp_path, callbacks=[MaterializeCallback()], save_total_limit=1, **settings)
    run.train()
    best = json.loads((tmp_path / BEST_NAME).read_text())
    value = next(row["eval_loss"] for row in run.state.log_history if row["step"] == 2 and "eval_loss" in row)
    assert best == {
        "checkpoint": "checkpoint-2",
        "adapter": "checkpoint-2/plain/adapter",
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


@pytest.mark.parametrize("lost", ["checkpoint-2/plain", BEST_NAME])
def test_resumed_training_writes_what_a_kill_prevented(lost, tmp_path):
    settings = SAVING | EVALUATING
    trainer(tmp_path, callbacks=[MaterializeCallback(), StopAt(2)], **settings).train()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    (tmp_path / lost).unlink() if lost == BEST_NAME else shutil.rmtree(tmp_path / lost)
    found = {}

    class Look(TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            found.update({path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")})
            found["has_mark"] = (tmp_path / BEST_NAME).is_file()

    resumed = trainer(tmp_path, callbacks=[MaterializeCallback(), Look()], **settings)
    resumed.train(resume_from_checkpoint=True)
    assert found == before | {"has_mark": True}


def test_best_checkpoint_of_a_run_in_another_directory_is_found_from_here(tmp_path):
    settings = SAVING | EVALUATING
    trainer(tmp_path / "a", callbacks=[StopAt(2)], **settings).train()
    resumed = trainer(tmp_path / "b", callbacks=[MaterializeCallback()], **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    best = json.loads((tmp_path / "b" / BEST_NAME).read_text())
    assert (tmp_path / "b" / best["adapter"] / "adapter_config.json").is_file()


@pytest.mark.parametrize("make_model", [lambda: None, lambda: method_model("VeRA")], ids=["QPA", "generated"])
def test_a_checkpoint_with_its_plain_adapter_is_resumed_bit_for_bit(make_model, tmp_path):
    def run(folder, callbacks):
        return trainer(tmp_path / folder, callbacks=callbacks, model=make_model(), **SAVING)

    whole = run("whole", [])
    whole.train()
    run("parts", [MaterializeCallback(), StopAt(4)]).train()
    resumed = run("parts", [MaterializeCallback()])
    resumed.train(resume_from_checkpoint=True)
    assert list(resumed.model.peft_config) == ["default"]
    for (name, expected), found in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(expected, found), name


def test_both_cards_hold_what_trainer_recorded_until_then(tmp_path):
    known = RunRecord(datasets=["alice/texts"], license="mit")
    callback = MaterializeCallback(record=known, evaluated_on=("alice/texts", "test"))
    run = trainer(tmp_path, callbacks=[callback], **SAVING, **EVALUATING)
    run.train()
    value = next(row["eval_loss"] for row in run.state.log_history if row["step"] == 4 and "eval_loss" in row)
    for folder in (tmp_path / "checkpoint-4", tmp_path / "checkpoint-4" / "plain" / "adapter"):
        record = RunRecord.load(folder)
        assert [(result.metric, result.value) for result in record.results] == [("loss", value)]
        assert (record.steps, record.hyperparameters["learning_rate"]) == (4, 0.01)
        data = ModelCard.load(folder / "README.md").data
        assert data.datasets == ["alice/texts"]
        assert [(r.dataset_name, r.dataset_split, r.metric_value) for r in data.eval_results] == [
            ("alice/texts", "test", float(f"{value:.4g}"))
        ]


def test_a_sharded_model_without_a_whole_checkpoint_is_explained(tmp_path):
    run = trainer(tmp_path)
    next(run.model.parameters()).ds_id = 0  # DeepSpeed's mark of a parameter that ZeRO-3 keeps elsewhere
    with pytest.raises(RuntimeError, match="`state_dict_type` at FULL_STATE_DICT"):
        MaterializeCallback().on_save(run.args, run.state, run.control, model=run.model)


@pytest.mark.parametrize(("name", "value"), [("is_world_process_zero", False), ("is_hyper_param_search", True)])
def test_other_processes_and_searches_write_nothing(name, value, tmp_path):
    run = trainer(tmp_path)
    setattr(run.state, name, value)
    MaterializeCallback().on_save(run.args, run.state, run.control, model=run.model)
    assert not list(tmp_path.iterdir())


# PEFT's configuration of a method, and how its card calls the adapter.


@pytest.mark.parametrize("case", METHODS)
def test_each_checkpoint_holds_the_plain_adapter_of_a_generated_method(case, tmp_path):
    callback = MaterializeCallback(record=RunRecord(license="mit"))
    run = trainer(tmp_path, callbacks=[callback], model=method_model(case), **SAVING)
    run.train()
    assert adapters(tmp_path) == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    folder = tmp_path / "checkpoint-6" / "plain" / "adapter"
    plain = PeftModel.from_pretrained(build("llama"), folder)
    assert torch.equal(logits(plain, "llama"), logits(run.model.eval(), "llama"))
    card = ModelCard.load(folder / "README.md")
    assert METHODS[case][1] in card.text
    assert (card.data.license, RunRecord.load(folder).steps) == ("mit", 6)


@pytest.mark.parametrize(
    "callback", [MaterializeCallback(), PushMaterializedCallback("alice/run")], ids=["Materialize", "Push"]
)
def test_an_adapter_that_is_plain_already_is_refused_before_the_first_step(callback, tmp_path):
    model = get_peft_model(build("llama"), LoraConfig(target_modules=["q_proj"], **LM))
    run = trainer(tmp_path, callbacks=[callback], model=model, **SAVING)
    with pytest.raises(ValueError, match="nothing to materialize in `adapter_name`='default'"):
        run.train()
    assert run.state.global_step == 0


def test_best_of_a_generated_methods_first_part_is_materialized_without_a_trace(tmp_path):
    runs, settings = [], SAVING | EVALUATING
    for name, callbacks in (("with", [MaterializeCallback()]), ("without", [])):
        folder = tmp_path / name
        trainer(folder, model=method_model("VeRA"), callbacks=[StopAt(2)], **settings).train()
        runs.append(trainer(folder, model=method_model("VeRA"), callbacks=callbacks, **settings))
        runs[-1].train(resume_from_checkpoint=True)
    best = tmp_path / "with" / json.loads((tmp_path / "with" / BEST_NAME).read_text())["adapter"]
    assert best.parents[1].name == "checkpoint-2"
    plain, native = PeftModel.from_pretrained(build("llama"), best), load_generated(build("llama"), best.parents[1])
    assert torch.equal(logits(plain, "llama"), logits(native, "llama"))
    for one, other in zip(*(run.model.parameters() for run in runs), strict=True):
        assert torch.equal(one, other)


def plain_lora():
    return get_peft_model(build("llama"), LoraConfig(target_modules=TARGETS, **LM))


def sharded_method():
    model = method_model("VeRA")
    next(model.parameters()).ds_id = 0  # DeepSpeed's mark of a parameter that ZeRO-3 keeps elsewhere
    return model


REFUSED = {
    "generated and sharded": (sharded_method, RuntimeError, "sharded, and only QPA's own adapters"),
    "without a generator": (plain_lora, ValueError, "is not a QPA adapter of this model"),
    "no PEFT model": (lambda: generated(build("gpt2")), TypeError, "Cannot materialize a GPT2LMHeadModel"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_materialized_is_explained(case, tmp_path):
    make_model, error, sentence = REFUSED[case]
    run = trainer(tmp_path, model=make_model())
    with pytest.raises(error, match=sentence):
        MaterializeCallback().on_save(run.args, run.state, run.control, model=run.model)

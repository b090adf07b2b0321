"""What `qpa` offers before a run: a file of settings, a rehearsal, a plan of the same settings, the arms' names."""

import dataclasses
import importlib.util
import json

import pytest
from models import build

from qpa_hf.comparison.arms import ARMS, named_arms
from qpa_hf.demo.arms import BASE
from qpa_hf.training import TASKS, read_settings
from qpa_hf.training.data import DataSettings
from qpa_hf.training.settings import TRAINING_DEFAULTS

WITHOUT_TRL = pytest.mark.skipif(
    not importlib.util.find_spec("trl"), reason="trl is not installed: pip install 'qpa-hf[chat]'"
)


def test_a_written_file_of_settings_is_a_run(qpa, book, tmp_path):
    file = tmp_path / "run: 1.yaml"
    assert qpa("init", file, "--model", BASE, "--train", book).code == 0
    short = [word for name in ("max_steps=1", "save_strategy=no") for word in ("--set", f"training.{name}")]
    result = qpa("train", "--config", file, "--output", tmp_path / "run", *short)
    assert result.code == 0, result.err
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("text", [[], ["--dataset", "ada/texts"]], ids=["no text", "a dataset"])
def test_a_file_of_settings_names_a_dataset_and_the_defaults(text, qpa, tmp_path):
    assert qpa("init", tmp_path / "a.yaml", *text).code == 0
    settings = read_settings(tmp_path / "a.yaml")
    assert settings.data.dataset == (text[1] if text else "Salesforce/wikitext")
    assert {name: settings.training[name] for name in TRAINING_DEFAULTS} == TRAINING_DEFAULTS
    assert (settings.adapter["basis"], settings.adapter["r"]) == ("gradient", 16)


@pytest.mark.parametrize("task", [pytest.param(task, marks=WITHOUT_TRL) if task == "chat" else task for task in TASKS])
def test_a_file_of_settings_has_what_its_task_reads(task, qpa, tmp_path):
    assert qpa("init", tmp_path / "a.yaml", "--task", task, "--dataset", "ada/rows").code == 0
    settings = read_settings(tmp_path / "a.yaml")
    assert settings.task == task
    assert settings.data == dataclasses.replace(DataSettings(), **TASKS[task].defaults, dataset="ada/rows")


REFUSED = {
    "an unknown task": (["--task", "poetry"], "is not known. Choose one of text"),
    "a task without data": (["--task", "chat"], "Nothing to train on is named"),
    "a missing folder": (["--task", "image", "--train", "nothing"], "There is no folder of classes nothing"),
    "a file that exists": ([], "exists, and is not replaced"),
    "a missing text": (["--train", "nothing.txt"], "There is no text file nothing.txt"),
    "two texts": (["--train", __file__, "--dataset", "ada/texts"], "Leave one of them out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_settings_can_be_written_for_is_named(case, qpa, tmp_path):
    options, message = REFUSED[case]
    if case == "a file that exists":
        (tmp_path / "a.yaml").write_text("mine")
    result = qpa("init", tmp_path / "a.yaml", *options)
    assert (result.code, message in result.err) == (2, True)
    assert (tmp_path / "a.yaml").is_file() == (case == "a file that exists")


def test_a_dry_run_counts_and_writes_nothing(qpa, tiny, tmp_path):
    found = json.loads(qpa("train", "--output", tmp_path / "a" / "run", *tiny, "--dry-run", "--json").out)
    assert list(tmp_path.iterdir()) == []
    assert (found["begins"], found["steps"]) == ("anew", 4)
    trained = json.loads(qpa("train", "--output", tmp_path / "run", *tiny, "--json").out)
    assert found["plan"][0]["n_trainable"] == trained["trainable"]
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    again = qpa("train", "--output", tmp_path / "run", *tiny, "--dry-run")
    assert "A finished run" in again.out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()} == files


DRY = {
    "a layer that is not there": (["--set", "adapter.target_modules=[nope]"], "Choose from its c_attn, c_fc, c_proj"),
    "a long block": (["--set", "data.block_length=300"], "positions"),
    "arguments that contradict": (["--set", "training.load_best_model_at_end=true", "--set", "training.save_steps=3",
                                   "--set", "training.eval_steps=2"], "load_best_model_at_end"),
}  # fmt: skip


@pytest.mark.parametrize("case", DRY)
def test_a_dry_run_refuses_what_the_run_would(case, qpa, tiny, tmp_path):
    options, message = DRY[case]
    result = qpa("train", "--output", tmp_path / "run", *tiny, *options, "--dry-run")
    assert (result.code, message in result.err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_another_runs_folder(qpa, tiny, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    result = qpa("train", "--output", tmp_path, *tiny, "--dry-run")
    assert (result.code, "holds no run" in result.err) == (2, True)


PLANS = {
    "options": ["--basis", "gradient", "--r", 4, "--target", "c_attn"],
    "settings": ["--set", "adapter={basis: gradient, r: 4, target_modules: [c_attn]}"],
    "file": ["--config", "settings.yaml"],
}


@pytest.mark.parametrize("case", PLANS)
def test_a_plan_takes_the_settings_of_a_run(case, qpa, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build("gpt2").config.save_pretrained("base")
    (tmp_path / "settings.yaml").write_text(
        "model: base\nadapter: {basis: gradient, r: 4, target_modules: [c_attn]}\ntraining: {max_steps: 7}\n"
    )
    model = [] if case == "file" else ["base"]
    (row,) = json.loads(qpa("plan", *model, *PLANS[case], "--json").out)
    assert row["n_values"] % 16 == 0
    assert row["measuring"]["n_steps"] == (7 if case == "file" else 1)


def test_a_plan_takes_a_recipe_and_another_model(qpa, tmp_path):
    build("gpt2").config.save_pretrained(tmp_path)
    (row,) = json.loads(qpa("plan", "--recipe", "paper-gpt2", "--model", tmp_path, "--json").out)
    assert row["chunk_size"] == min(2048, row["n_values"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "No base model is named"), (("a", "--model", "b"), "Two base models"), (("--recipe", "x"), "no recipe")],
    ids=["no model", "two models", "unknown recipe"],
)
def test_a_plan_without_a_model_is_refused(arguments, message, qpa):
    result = qpa("plan", *arguments)
    assert (result.code, message in result.err) == (2, True)


def test_arms_are_listed_and_their_names_have_no_case(qpa):
    assert qpa("compare", "--list-arms").out.splitlines() == list(ARMS)
    assert named_arms(["qpa", "LORA R=1", "QPA"]) == ["QPA", "LoRA r=1"]


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("lora", "`LoRA r=1`, `LoRA r=2` or `LoRA r=8`?"),
        ("vora", "`VeRA`?"),
        ("dora", "`DoRA r=1`?"),
        ("fourier", "`FourierFT`?"),
        ("adapterfusion", "Known are DoRA r=1;"),
    ],
)
def test_a_wrong_arm_is_answered_with_what_may_be_meant(given, hint):
    with pytest.raises(ValueError, match="has no arm") as raised:
        named_arms([given])
    assert hint in str(raised.value)

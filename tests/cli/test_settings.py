"""The settings of a run: what is meant is taken, and the rest is one sentence before any work."""

import json

import pytest
import torch

from qpa_hf.demo.arms import BASE
from qpa_hf.training import read_settings


def test_file_recipe_and_overrides_are_put_together_in_that_order(qpa, tiny, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("adapter: {chunk_size: 16, n_circuits: 2}\n", encoding="utf-8")
    qpa("train", "--output", tmp_path / "run", "--config", file, *tiny, "--set", "adapter.n_circuits=3")
    config = json.loads((tmp_path / "run" / "native" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["chunk_size"], config["n_circuits"]) == (16, 3)


REFUSALS = {
    "misspelt adapter field": (["--set", "adapter.chunk_sise=8"], "Did you mean `chunk_size`"),
    "misspelt training field": (["--set", "training.learning_rat=1"], "Did you mean `learning_rate`"),
    "misspelt section": (["--set", "adaptor.r=8"], "Did you mean `adapter`"),
    "no setting": (["--set", "chunk_size"], "section.field=value"),
    "unknown recipe": (["--recipe", "papper"], "paper-gemma, paper-gpt2"),
    "missing settings": (["--config", "nothing.yaml"], "There is no file nothing.yaml"),
    "missing text": (["--train", "nothing.txt"], "There is no text file nothing.txt"),
    "block too long": (["--set", "data.block_length=100000"], "fewer than one block of 100000"),
    "more than the model's positions": (["--set", "data.block_length=300"], "positions"),
    "unclosed bracket": (["--set", "adapter.r=[1"], "Close its brackets"),
    "section without fields": (["--set", "data=5"], "Write data.field=value"),
    "text for a number": (["--set", "training.learning_rate=fast"], "Set it to a number"),
    "text for yes or no": (["--set", "training.use_cpu=treu"], "true or false"),
    "list for a number": (["--set", "training.num_train_epochs=[1]"], "=[1] is not allowed. Set it to a number"),
    "list for a whole number": (["--set", "training.max_steps=[1]"], "=[1] is not allowed. Set it to a number"),
    "list for a number or null": (["--set", "training.save_total_limit=[1]"], "Set it to a number"),
    "number for a text file": (["--set", "data.validation=5"], "Set it to a name (text) or a list of names"),
    "number for a column": (["--set", "data.text_column=5"], "`data.text_column`=5 is not allowed. Set it to a name"),
    "truth value for a name": (["--set", "training={on: 5}"], "`training` has no field `True`"),
    "truth value for an adapter's name": (["--set", "adapter={on: 5}"], "unexpected keyword argument 'True'"),
    "a part of a step": (["--set", "training.max_steps=1.5"], "whole number"),
    "missing model": (["--model", "./nothing"], "There is no directory ./nothing"),
    "dataset beside a text": (["--dataset", "alice/texts"], "either `data.train`"),
    "another task": (["--set", "adapter.task_type=SEQ_CLS"], "trains causal language models"),
    "rate below zero": (["--set", "training.learning_rate=-1"], "finite number from 0 on"),
    "rate that is no number": (["--set", "training.learning_rate=.nan"], "finite number from 0 on"),
    "empty batches": (["--set", "training.per_device_train_batch_size=0"], "from 1 on"),
    "epochs without end": (["--set", "training.num_train_epochs=.inf"], "finite number from 0 on"),
    "metric that no run has": (["--set", "training.metric_for_best_model=accuracy"], "nothing but the loss"),
    "more stages than steps": (
        [*("--set", "adapter.basis=gradient"), *("--set", "adapter.n_stages=6"), *("--set", "adapter.r=6")],
        "is too short for 6 stages",
    ),
    "layers that are not there": (["--set", "adapter.target_modules=[nope]"], "Choose from its c_attn, c_fc, c_proj"),
    "null for a number": (["--set", "training.max_steps=null"], "`training.max_steps`=null is not allowed"),
    "no step": (["--set", "training.max_steps=0"], "leave nothing to train"),
    "no epoch": (["--set", "training.max_steps=-1", "--set", "training.num_train_epochs=0"], "leave nothing to train"),
    "checkpoints without an optimizer": (["--set", "training.save_only_model=true"], "the run sets it itself. Leave"),
    "another output": (["--set", "training.output_dir=x"], "Leave it out, and use --output"),
    "push at the end": (["--set", "training.push_to_hub=true"], "Leave it out, and use `qpa push`"),
    "where to push": (["--set", "training.hub_model_id=me/it"], "Leave it out, and use `qpa push`"),
    "another checkpoint": (["--set", "training.resume_from_checkpoint=/nowhere"], "the same command goes on"),
    "an adapter that does not train": (["--set", "adapter.inference_mode=true"], "such a run trains"),
    "revision of the base": (["--set", "adapter.revision=abc123"], "name its directory as `model`"),
    "text for the paper's generator": (["--set", "adapter.paper=abc"], "`adapter.paper`='abc' is not a truth value"),
    "unknown bias": (["--set", "adapter.bias=foo"], "`bias`='foo' is not known"),
    "licence that is no text": (
        ["--set", "record.license=[mit]"],
        "=['mit'] is not allowed. Set it to a name (text).",
    ),
    "number for a language": (["--set", "record.language=[en, 5]"], "Set it to a name (text) or a list of names"),
    "value out of range": (["--set", "adapter.circuit_depth=0"], "whole number of at least 1"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_is_one_sentence_before_any_work(qpa, tiny, case, tmp_path):
    options, expected = REFUSALS[case]
    result = qpa("train", "--output", tmp_path / "run", *tiny, *options)
    assert result.code == 2
    assert expected in result.err
    assert result.err.count("Error: ") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_section_whose_name_is_no_text_is_named(tmp_path):
    (tmp_path / "settings.yaml").write_text("no: 5\n", encoding="utf-8")
    with pytest.raises(ValueError, match="A run has no field `False`"):
        read_settings(tmp_path / "settings.yaml")


def test_epochs_with_fewer_steps_than_stages_are_refused_before_any_work(command, qpa, tiny, tmp_path):
    epochs = {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 300}
    settings = [f"training.{name}={value}" for name, value in epochs.items()]
    settings += ["adapter.basis=gradient", "adapter.n_stages=2"]
    options = [option for setting in settings for option in ("--set", setting)]
    result = qpa(*command, "--output", tmp_path / "run", *tiny, *options)
    assert (result.code, "A run of 1 step(s) is too short for 2 stages" in result.err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_settings_that_a_run_wrote_start_another(qpa, tiny, tmp_path, weights):
    qpa("train", "--output", tmp_path / "a", *tiny, "--set", "training.save_steps=0.5")
    again = qpa("train", "--output", tmp_path / "b", "--config", tmp_path / "a" / "run.yaml")
    assert again.code == 0
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("save_strategy", "no", "no"),  # which YAML takes for false
        ("learning_rate", "1e-3", 1e-3),  # which YAML takes for a text
        ("max_steps", "'100'", 100),
        ("run_name", "'007'", "007"),
    ],
)
def test_training_settings_are_what_is_meant(name, written, value, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(f"training: {{{name}: {written}}}\n", encoding="utf-8")
    found = read_settings(file, model=str(BASE), data={"train": ["a.txt"]}).training[name]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("training", "n_steps"),
    [
        ({}, 15),
        ({"gradient_accumulation_steps": 4}, 6),
        ({"num_train_epochs": 0.5}, 3),
        ({"max_steps": 7}, 7),
    ],
    ids=str,
)
def test_steps_are_counted_as_trainer_counts_them(training, n_steps):
    training = {"per_device_train_batch_size": 2, "num_train_epochs": 3} | training
    settings = read_settings(model="any", data={"train": ["a.txt"]}, training=training)
    assert settings.n_steps(10) == n_steps


@pytest.mark.parametrize(("written", "value"), [("no", "no"), ("[en, no]", ["en", "no"])])
def test_norwegian_is_a_language(written, value):
    settings = read_settings(overrides=[f"record.language={written}"], model="any", data={"train": ["a.txt"]})
    assert settings.record == {"language": value}

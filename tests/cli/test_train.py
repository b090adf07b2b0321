"""`qpa train`: from text files to adapters, resumed where it was interrupted, and what ends it."""

import json
import math

import pytest
import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from qpa_hf.demo.arms import BASE
from qpa_hf.evaluation import perplexity, text_blocks
from qpa_hf.training import run


def test_train_leaves_adapters_card_record_and_pictures(qpa, tiny, book, tmp_path):
    found = json.loads(qpa("train", "--output", tmp_path / "run", *tiny, "--json").out)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"native", "adapter", "loss.png", "probabilities.png", "singular_values.png"} <= names
    card = (tmp_path / "run" / "adapter" / "README.md").read_text(encoding="utf-8")
    assert f"{found['perplexity']:.4g}" in card
    blocks = text_blocks(AutoTokenizer.from_pretrained(BASE), [book.read_text(encoding="utf-8")], 32)
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter")
    assert perplexity(plain, blocks[-(len(blocks) // 10) :]) == found["perplexity"]
    assert found["perplexity"] < found["perplexity_before"]


def test_same_command_resumes_to_the_same_bits(qpa, tiny, tmp_path, monkeypatch, weights):
    epochs = ("max_steps=-1", "num_train_epochs=0.3", "save_steps=2")  # whose steps only the checkpoint has counted
    options = [*tiny, *(word for setting in epochs for word in ("--set", f"training.{setting}"))]
    qpa("train", "--output", tmp_path / "whole", *options)
    callback = run.QuietProgress
    monkeypatch.setattr(run, "QuietProgress", _interrupted_after(3))
    stopped = qpa("train", "--output", tmp_path / "parts", *options)
    assert (stopped.code, "The same command, without --fresh, goes on" in stopped.err) == (130, True)
    monkeypatch.setattr(run, "QuietProgress", callback)
    assert qpa("train", "--output", tmp_path / "parts", *options).code == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.parametrize("is_quiet", [True, False])
def test_bars_are_drawn_unless_a_run_is_without(is_quiet, qpa, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # draw as on a terminal
    bases = ["adapter.basis=gradient", "adapter.source=direct", "adapter.n_stages=2"]
    settings = [*bases, f"training.disable_tqdm={is_quiet}"]
    result = qpa("train", "--output", tmp_path, *tiny, *(word for setting in settings for word in ("--set", setting)))
    bars = ("Gradient bases", "evaluating", "4/4")  # the last is of the steps
    assert (result.code, [bar in result.err for bar in bars]) == (0, [not is_quiet] * 3)


def _interrupted_after(step):
    class Interrupted(run.QuietProgress):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise KeyboardInterrupt

    return Interrupted


def test_logged_losses_are_those_of_the_perplexity(qpa, tiny, tmp_path):
    result = json.loads(qpa("train", "--output", tmp_path, *tiny, "--json").out)
    record = json.loads((tmp_path / "adapter" / "qpa_run.json").read_text(encoding="utf-8"))
    loss = next(r["value"] for r in record["results"] if r["metric"] == "loss")
    assert loss == pytest.approx(math.log(result["perplexity"]), rel=1e-5)


def test_finished_run_takes_no_step_more(qpa, tiny, tmp_path):
    options = ["--output", tmp_path, *tiny, "--set", "training.lr_scheduler_type=constant", "--json"]
    first = qpa("train", *options).out
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.suffix != ".png" and path.is_file()}
    again = qpa("train", *options)
    assert (again.out, "nothing is left to train" in again.err) == (first, True)
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize("n_stages", [1, 2])
def test_gradient_bases_of_all_stages_are_found(n_stages, qpa, tiny, tmp_path):
    settings = {"basis": "gradient", "source": "direct", "n_stages": n_stages}
    options = [option for name, value in settings.items() for option in ("--set", f"adapter.{name}={value}")]
    result = json.loads(qpa("train", "--output", tmp_path, *tiny, *options, "--json").out)
    assert result["perplexity"] < result["perplexity_before"]
    assert PeftConfig.from_pretrained(tmp_path / "adapter").peft_type == "LORA"
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(tensor.any(1).all() for key, tensor in tensors.items() if "lora_A" in key)


def test_a_run_that_diverges_is_a_failure_and_no_bad_input(qpa, tiny, tmp_path):
    result = qpa(
        "train", "--output", tmp_path, *tiny, "--set", "adapter.basis=kaiming", "--set", "training.learning_rate=1e8"
    )
    assert (result.code, "Lower the learning rate" in result.err) == (1, True)


def test_a_run_that_ends_with_nan_writes_no_adapter(qpa, tiny, tmp_path):
    unnoticed = ["adapter.source=random", *(f"training.{name}" for name in ("max_grad_norm=0", "eval_strategy=no"))]
    high = ["training.learning_rate=1e30", "training.lr_scheduler_type=constant"]
    options = [*tiny, *(word for setting in (*unnoticed, *high) for word in ("--set", setting))]
    result = qpa("train", "--output", tmp_path, *options)
    assert (result.code, "use --fresh or another folder" in result.err) == (1, True)
    assert not (tmp_path / "native").exists()


def test_a_finished_run_without_checkpoints_is_not_trained_again(qpa, tiny, tmp_path):
    options = [*tiny, "--set", "training.save_strategy=no"]
    assert qpa("train", "--output", tmp_path, *options).code == 0
    result = qpa("train", "--output", tmp_path, *options)
    assert (result.code, "holds the finished run" in result.err) == (2, True)


@pytest.mark.parametrize("kind", [ValueError, TypeError, KeyError, AttributeError, OverflowError])
def test_what_fails_in_training_is_a_failure_in_its_own_words(kind, qpa, tiny, tmp_path, monkeypatch):
    def fails(*args):
        raise kind("It's over.")

    monkeypatch.setattr(run, "train_or_resume", fails)
    result = qpa("train", "--output", tmp_path, *tiny)
    assert (result.code, result.err.endswith("Error: It's over.\n")) == (1, True)


def test_best_checkpoint_is_found_where_the_run_was_moved_to(qpa, tiny, tmp_path, monkeypatch):
    best = ("load_best_model_at_end=true", "save_steps=1", "eval_steps=1", "save_total_limit=4")
    options = [*tiny, *(word for setting in best for word in ("--set", f"training.{setting}"))]
    monkeypatch.chdir(tmp_path)
    assert qpa("train", "--output", "run", *options).code == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").rename(tmp_path / "elsewhere" / "run")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert qpa("train", "--output", "run", *options).code == 0


def test_a_checkpoint_cut_off_by_a_full_disk_is_passed_over(tmp_path):
    for step, state in ((8, "{}"), (10, "{}"), (12, ""), (14, "{}")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state, encoding="utf-8")
    (tmp_path / "checkpoint-14" / "adapter_model.safetensors").write_bytes(b"cut")
    assert run.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")


@pytest.mark.parametrize(("rate", "advice"), [(1e-9, "Raise"), (1e-2, None), (10, "Lower")])
def test_a_run_that_does_not_learn_is_told_once(rate, advice, qpa, tiny, tmp_path):
    result = qpa("train", "--output", tmp_path, *tiny, "--set", f"training.learning_rate={rate}")
    assert result.err.count("the loss on the validation text is") == (advice is not None)
    assert advice is None or f"{advice} `training.learning_rate` ({rate:g})" in result.err

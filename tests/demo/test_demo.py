"""The demo: its split, its base model, and a miniature run from end to end, interrupted and resumed."""

import importlib.util
import json
import math
import subprocess
import sys
from pydoc_data.topics import topics

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qpa_hf.demo import __main__ as demo
from qpa_hf.demo import arms, data
from qpa_hf.files import locked

MAX_BASE_BYTES = 4_000_000


def test_split_depends_on_names_alone():
    names = ("calls", "debugger", "power", "assert", "compound", "types")
    assert [name for name in names if data.is_held_out(name)] == ["calls", "debugger", "power"]


def test_split_leaves_both_parts_filled():
    sizes = {name: len(topics[name]) for name in data.distinct_topics()}
    held_out = sum(size for name, size in sizes.items() if data.is_held_out(name))
    assert 0.1 < held_out / sum(sizes.values()) < 0.3


def test_split_holds_out_text_that_is_not_trained_on():
    # The topic "compound" repeats "if", "try", "function" and more word for word: names alone are not disjoint text.
    parts: dict[bool, set[str]] = {True: set(), False: set()}
    for name in data.distinct_topics():
        parts[data.is_held_out(name)] |= data.paragraphs(topics[name])
    assert len(parts[True] & parts[False]) < 0.05 * len(parts[True])


def test_tokenizer_has_a_class_that_all_versions_of_transformers_know():
    settings = json.loads((arms.BASE / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_base_is_small():
    assert sum(path.stat().st_size for path in arms.BASE.iterdir()) <= MAX_BASE_BYTES


def test_base_knows_every_byte():
    tokenizer = AutoTokenizer.from_pretrained(arms.BASE)
    text = "def f(x):\n\treturn {x: '\\0'} | §é漢🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_base_predicts_english_better_than_chance():
    tokenizer = AutoTokenizer.from_pretrained(arms.BASE)
    model = AutoModelForCausalLM.from_pretrained(arms.BASE, dtype=torch.float32).eval()
    ids = tokenizer("He looked at her for a moment, and then he said that he would come again.", return_tensors="pt")
    with torch.no_grad():
        loss = model(**ids, labels=ids["input_ids"]).loss.item()
    assert loss < 0.7 * math.log(model.config.vocab_size)


def test_base_record_is_of_a_finished_run():
    record = json.loads((arms.BASE / "pretraining.json").read_text(encoding="utf-8"))
    assert record["finished"]
    assert record["held_out_cross_entropy"] < 0.6 * math.log(record["config"]["vocab_size"])


def test_interruption_says_how_to_continue(tmp_path, monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupted)
    monkeypatch.setattr(sys, "argv", ["demo", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="130"):
        demo.main()
    assert "Run the same command again" in capsys.readouterr().out


def test_a_folder_in_use_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(SystemExit, match="Another process is at work"):
        demo.demo(tmp_path, 1, 1, False)


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra `plots`")
def test_miniature_run_ends_equal_and_is_kept(tmp_path):
    command = [sys.executable, "-m", "qpa_hf.demo", "--output", str(tmp_path), "--steps", "2", "--rounds", "1"]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    assert "Equal to the last digit." in first.stdout
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["perplexity_without_qpa_hf"] == result["arms"][1]["perplexity_after"]
    assert (tmp_path / "loss.png").stat().st_size > 0
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.stdout.count("already trained") == 5


def test_learning_rate_of_lora_is_the_best_of_its_record():
    record = json.loads((arms.BASE.parent / "learning_rates.json").read_text(encoding="utf-8"))
    best = {name: float(min(tried, key=tried.get)) for name, tried in record["validation_perplexity"].items()}
    assert best["LoRA"] == arms.ARMS[0].learning_rate

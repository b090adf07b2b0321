"""What a run says before and after, what `qpa sample` writes, and what `qpa evaluate` puts beside the adapter."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from qpa_hf.demo.arms import BASE
from qpa_hf.evaluation import perplexity, text_blocks
from qpa_hf.evaluation.generation import generate_text
from qpa_hf.training.announcement import EstimateCallback

PROMPT = "The following sections describe"


@pytest.fixture(scope="module")
def run(tmp_path_factory, book):
    """A folder of a short run."""
    from qpa_hf.training import read_settings, train

    folder = tmp_path_factory.mktemp("sample") / "run"
    adapter = {"target_modules": ["c_attn"], "fan_in_fan_out": True, "r": 8}
    data = {"train": [str(book)], "block_length": 32}
    training = {"max_steps": 4, "per_device_train_batch_size": 2, "save_strategy": "no", "disable_tqdm": True}
    train(read_settings(model=str(BASE), data=data, adapter=adapter, training=training), folder)
    return folder


def reference(ids, folder=None, n_tokens=8):
    """Write greedily, token by token, with no cache."""
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    model = model if folder is None else PeftModel.from_pretrained(model, folder).eval()
    written = list(ids)
    for _ in range(n_tokens):
        with torch.no_grad():
            token = int(model(torch.tensor([written])).logits[0, -1].argmax())
        if token == model.config.eos_token_id:
            break
        written.append(token)
    return written[len(ids) :]


def test_a_sample_is_the_greedy_text_without_and_with_the_adapter(qpa, run):
    result = qpa("sample", run, "--prompt", PROMPT, "--tokens", 8, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    ids = tokenizer(PROMPT)["input_ids"]
    assert found["prompt"] == PROMPT
    assert found["base"] == tokenizer.decode(reference(ids))
    assert found["adapter"] == tokenizer.decode(reference(ids, run / "adapter"))
    alone = json.loads(qpa("sample", BASE, "--prompt", PROMPT, "--tokens", 8, "--json").out)
    assert (alone["base"], "adapter" in alone) == (found["base"], False)
    options = ("--adapter", run / "native", "--prompt", PROMPT, "--tokens", 8, "--json")
    named = json.loads(qpa("sample", BASE, *options).out)
    assert named == found


def test_draws_are_those_of_their_seed_and_leave_others_alone(qpa, run):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(BASE), AutoTokenizer.from_pretrained(BASE)
    ids = tokenizer(PROMPT)["input_ids"]
    state = torch.random.get_rng_state()
    first, again, other = (generate_text(model, tokenizer, ids, temperature=1.0, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), state)


REFUSED = {
    "an empty prompt": ([BASE, "--prompt", ""], "The prompt is empty"),
    "a long prompt": ([BASE, "--prompt", "word " * 300], "Shorten the prompt"),
    "a task without text": ([BASE, "--prompt", "a", "--task", "classify"], "writes no text"),
    "an unknown task": ([BASE, "--prompt", "a", "--task", "poetry"], "is not known. Choose one of 'text'"),
    "no adapter": ([BASE, "--prompt", "a", "--adapter", "./nowhere"], "There is no directory ./nowhere"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_sampled_is_one_sentence(case, qpa):
    arguments, message = REFUSED[case]
    result = qpa("sample", *arguments)
    assert (result.code, message in result.err, result.err.count("Error: ")) == (2, True, 1), result.err


def test_a_run_that_has_not_ended_cannot_be_sampled(qpa, run, tmp_path):
    (tmp_path / "run.yaml").write_text((run / "run.yaml").read_text())
    result = qpa("sample", tmp_path, "--prompt", "a")
    assert (result.code, "holds no adapter yet" in result.err) == (2, True)


def test_evaluate_puts_the_base_beside_the_adapter(qpa, run, book):
    options = ("--adapter", run / "adapter", "--data", book, "--block-length", 32)
    found = json.loads(qpa("evaluate", BASE, *options, "--json").out)
    blocks = text_blocks(AutoTokenizer.from_pretrained(BASE), [book.read_text(encoding="utf-8")], 32)
    base = perplexity(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), blocks)
    assert found["baseline"] == {"name": "the base model alone", "perplexity": base}
    assert f"the base model alone: perplexity {base:.3f}" in qpa("evaluate", BASE, *options).out


def test_a_run_says_what_it_will_do_and_what_comes_next(qpa, tiny, tmp_path):
    result = qpa("train", "--output", tmp_path / "run", *tiny)
    for words in ("layers (c_attn) of", "4 steps of 2 blocks", "Device: ", "MiB"):
        assert words in result.err
    assert "the base model writes" in result.out
    assert f"qpa sample {tmp_path}/run --prompt" in result.out
    command = next(line for line in result.out.splitlines() if "qpa evaluate" in line)
    assert command.split()[1:4] == ["evaluate", str(BASE), "--adapter"]


def test_the_time_left_is_said_once_after_the_first_steps(capsys):
    from types import SimpleNamespace

    callback = EstimateCallback()
    for step in range(30):
        callback.on_step_begin(None, SimpleNamespace(global_step=step, max_steps=30), None)
    assert capsys.readouterr().err.count("for the other 24 steps") == 1

"""`qpa train --task chat`: from conversations to an adapter, what of them is learned, and what is no conversation."""

import json
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from qpa_hf.demo.arms import BASE
from qpa_hf.training import read_data, read_settings
from qpa_hf.training.tasks.conversations import encoded

trl = pytest.importorskip("trl")
# ChatML, with the marks of answers that trl and transformers go by, and without.
MARKED = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] + eos_token }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TEMPLATE = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
PROGRAM = """
import sys, torch, transformers
from peft import PeftModel
base, adapter, inputs = sys.argv[1:]
rows = torch.load(inputs)
base = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
model = PeftModel.from_pretrained(base, adapter).eval()
total = count = 0
with torch.no_grad():
    for ids, labels in rows:
        logits = model(torch.tensor([ids])).logits[0, :-1].double()
        targets = torch.tensor(labels[1:])
        total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum", ignore_index=-100).item()
        count += int((targets != -100).sum())
assert "qpa_hf" not in sys.modules and "trl" not in sys.modules
print(total / count)
"""


def says(role, content):
    return {"role": role, "content": content}


def talk(i):
    return [
        says("user", f"What is {i}?"),
        says("assistant", f"It is {i}."),
        says("user", "And then?"),
        says("assistant", f"Then {i + 1}."),
    ]


TALKS = [{"messages": talk(i)} for i in range(20)]
PAIRS = [{"prompt": talk(i)[:3], "completion": talk(i)[3:]} for i in range(20)]
TEXTS = [{"prompt": f"{i} and ", "completion": f"{i + 1}"} for i in range(20)]


@pytest.fixture(scope="module")
def chatty(tmp_path_factory):
    """The demo's base model with a chat template."""
    folder = tmp_path_factory.mktemp("chatty")
    AutoModelForCausalLM.from_pretrained(BASE).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def options(base, table, *more):
    settings = ["adapter.target_modules=[c_attn]", "adapter.r=8", "adapter.fan_in_fan_out=true", *more]
    settings += ["training.max_steps=4", "training.learning_rate=1e-3"]
    words = [word for setting in settings for word in ("--set", setting)]
    return ["--task", "chat", "--model", base, "--train", table, *words]


@pytest.mark.parametrize("rows", [TALKS[:3], PAIRS[:3], TEXTS[:3]], ids=["messages", "pairs", "texts"])
def test_answers_are_what_trl_takes_for_them(rows, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    tokenizer.chat_template = TEMPLATE
    ours = encoded(tokenizer, "any", rows, 200)
    tokenizer.chat_template = MARKED
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path), report_to="none", bf16=False, assistant_only_loss="messages" in rows[0], use_cpu=True
    )
    from datasets import Dataset

    model = AutoModelForCausalLM.from_pretrained(BASE)
    trainer = trl.SFTTrainer(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    for own, row in zip(ours, trainer.train_dataset, strict=True):
        if "messages" in rows[0]:
            assert own == {"input_ids": row["input_ids"], "labels": row["labels"]}
            continue
        n = len(own["input_ids"])
        assert own["input_ids"] == row["input_ids"][:n]
        learned = tokenizer.decode([label for label in own["labels"] if label != -100])
        theirs = tokenizer.decode([label for label in row["labels"] if label != -100])
        assert learned.strip() == theirs.strip()


def test_only_answers_are_learned(chatty):
    tokenizer = AutoTokenizer.from_pretrained(chatty)
    (row,) = encoded(tokenizer, "any", TALKS[:1], 200)
    learned = tokenizer.decode([label for label in row["labels"] if label != -100])
    end = tokenizer.eos_token
    assert learned == f"It is 0.{end}Then 1.{end}"
    (row,) = encoded(tokenizer, "any", PAIRS[:1], 200)
    assert tokenizer.decode([label for label in row["labels"] if label != -100]) == f"Then 1.{end}"


def test_a_chat_is_trained_evaluated_and_loads_without_us(qpa, chatty, tmp_path):
    table = write(tmp_path / "talks.jsonl", TALKS)
    result = qpa("train", "--output", tmp_path / "run", *options(chatty, table), "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    data = read_data(read_settings(tmp_path / "run" / "run.yaml"))
    torch.save([(row["input_ids"], row["labels"]) for row in data.validation], tmp_path / "inputs")
    program = [sys.executable, "-c", PROGRAM, chatty, tmp_path / "run" / "adapter", tmp_path / "inputs"]
    loss = float(subprocess.run(program, check=True, capture_output=True, text=True).stdout)
    assert found["perplexity"] == pytest.approx(torch.tensor(loss).exp().item(), rel=1e-5)
    assert found["perplexity"] < found["perplexity_before"]
    assert "What is" in found["sample"]["prompt"]
    said = json.loads(qpa("sample", tmp_path / "run", "--prompt", "What is 3?", "--tokens", 4, "--json").out)
    assert said.keys() == {"prompt", "base", "adapter"}
    other = write(tmp_path / "other.jsonl", [{"messages": talk(i)} for i in range(30, 33)])
    given = ("--task", "chat", "--adapter", tmp_path / "run" / "adapter", "--data", other, "--json")
    again = json.loads(qpa("evaluate", chatty, *given).out)
    assert (again["n_examples"], again["baseline"]["name"]) == (3, "the base model alone")


def test_a_killed_chat_goes_on_to_the_same_bits(goes_on, chatty, tmp_path):
    goes_on(options(chatty, write(tmp_path / "talks.jsonl", TALKS), "training.save_steps=2"), step=3)


ROWS = {
    "no roles": ([{"messages": [{"from": "user", "value": "a"}]}], "has a message without `role`, number 0"),
    "a role that is null": ([{"messages": [*talk(0), says(None, "a")]}], "without `role`, number 4"),
    "content of parts": ([{"messages": [says("user", [{"type": "text"}])]}], "without `content`, number 0"),
    "other columns": ([{"conversations": talk(0)}], "neither a column `messages` nor two columns"),
    "a text as messages": ([{"messages": "a"}], "has a text as `messages`"),
    "no answer": ([{"messages": talk(0)[:1]}], "has no answer by the role assistant"),
    "an empty completion": ([{"prompt": "a", "completion": " "}], "has no answer"),
    "too few": (TALKS[:3], "There are 3 conversations to train on, but a tenth"),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_are_no_conversations_are_one_sentence(case, qpa, chatty, tmp_path):
    rows, message = ROWS[case]
    result = qpa("train", "--output", tmp_path / "run", *options(chatty, write(tmp_path / "a.jsonl", rows)))
    assert (result.code, message in result.err, result.err.count("Error: ")) == (2, True, 1), result.err
    assert not (tmp_path / "run").exists()


def test_a_missing_template_is_named_and_texts_need_none(qpa, tmp_path):
    table = write(tmp_path / "a.jsonl", TALKS)
    result = qpa("train", "--output", tmp_path / "run", *options(BASE, table))
    assert (result.code, "has no chat template" in result.err) == (2, True), result.err
    settings = read_settings(model=str(BASE), task="chat", data={"train": [str(write(table, TEXTS))]})
    assert len(read_data(settings).train) == 18


def test_answers_beyond_the_length_are_told(chatty, capsys):
    tokenizer = AutoTokenizer.from_pretrained(chatty)
    long = {"messages": [says("user", "word " * 100), says("assistant", "yes")]}
    rows = encoded(tokenizer, "any", [*TALKS[:2], long], 60)
    assert len(rows) == 2
    assert "1 of 3 conversations are cut off at 60 tokens, and 1 have no answer before it" in capsys.readouterr().err
    with pytest.raises(ValueError, match="No conversation has an answer within"):
        encoded(tokenizer, "any", [long], 60)


def test_a_template_that_rewrites_what_was_said_is_refused(chatty):
    tokenizer = AutoTokenizer.from_pretrained(chatty)
    tokenizer.chat_template = "{{ messages | length }}" + TEMPLATE
    with pytest.raises(ValueError, match="writes earlier messages in another way"):
        encoded(tokenizer, "any", TALKS[:1], 200)


def test_a_missing_extra_is_named(qpa, chatty, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = qpa("train", "--output", tmp_path / "run", *options(chatty, write(tmp_path / "a.jsonl", TALKS)))
    assert (result.code, "pip install 'qpa-hf[chat]'" in result.err) == (1, True), result.err


def test_help_names_all_tasks():
    from qpa_hf.training import TASKS
    from qpa_hf_cli import options as shown

    assert sorted(shown.TASKS) == sorted(TASKS)

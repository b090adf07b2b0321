"""`qpa train --task classify`: from a table to a classifier's adapter, and what is no such table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from sklearn.metrics import accuracy_score, f1_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DataCollatorWithPadding,
)

from qpa_hf.demo.arms import BASE
from qpa_hf.model_cards import RunRecord
from qpa_hf.training import read_data, read_settings, run

GOOD = ("a fine film", "what a delight", "simply wonderful work", "I loved every minute")
BAD = ("a dull film", "what a bore", "simply dreadful work", "I hated every minute")
ROWS = [(f"{text} {i}", label) for i in range(10) for texts, label in ((GOOD, "good"), (BAD, "bad")) for text in texts]
# Tables of a few rows on an encoder that has seen nothing.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
    pytest.mark.filterwarnings("ignore:The classifier's loss is:UserWarning"),
]
LOADER = Path(__file__).parent.parent / "load_classifier.py"


def write(path, rows, columns=("text", "label")):
    lines = [dict(zip(columns, row, strict=True)) for row in rows]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A small encoder without pooler and head, so that both are drawn at random."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 32, "vocab_size": 2048}
    config = BertConfig(**sizes, num_attention_heads=2, max_position_embeddings=64)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
    return folder


@pytest.fixture
def reviews(tmp_path):
    return write(tmp_path / "reviews.jsonl", ROWS)


def options(base, table, *more):
    layers = {"bert": "[query, value]"}.get(base.name[:4], "[c_attn]")
    settings = [f"adapter.target_modules={layers}", "adapter.r=2", "data.block_length=24", "training.max_steps=8"]
    settings += ["training.learning_rate=1e-2", f"adapter.fan_in_fan_out={layers == '[c_attn]'}", *more]
    words = [word for setting in settings for word in ("--set", setting)]
    return ["--task", "classify", "--model", base, "--train", table, *words]


def batch_of(settings):
    data = read_data(settings)
    rows = DataCollatorWithPadding(data.reader)(data.validation)
    labels = rows.pop("labels")
    return data, dict(rows), labels


def trained(qpa, base, reviews, folder):
    result = qpa("train", "--output", folder, *options(base, reviews), "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_a_classifier_is_trained_and_loads_without_us(qpa, bert, reviews, tmp_path):
    result = qpa("train", "--output", tmp_path / "run", *options(bert, reviews), "--json")
    assert " of them in dense, classifier" in result.err
    assert "were not sharded" not in result.err
    found = json.loads(result.out)
    data, batch, labels = batch_of(read_settings(tmp_path / "run" / "run.yaml"))
    torch.save(batch | {"id2label": dict(enumerate(data.labels))}, tmp_path / "inputs")
    program = [sys.executable, LOADER, "AutoModelForSequenceClassification", bert, tmp_path / "run" / "adapter"]
    subprocess.run([*program, tmp_path / "inputs"], check=True, capture_output=True)
    predicted = torch.load(tmp_path / "inputs.logits").argmax(1)
    assert accuracy_score(labels, predicted) == found["accuracy"]
    assert f1_score(labels, predicted, average="macro") == found["f1"]


def test_a_decoder_classifies_too(qpa, reviews, tmp_path):
    found = trained(qpa, BASE, reviews, tmp_path / "run")
    data, batch, labels = batch_of(read_settings(tmp_path / "run" / "run.yaml"))
    base = AutoModelForSequenceClassification.from_pretrained(BASE, id2label=dict(enumerate(data.labels)))
    base.config.pad_token_id = data.reader.pad_token_id
    plain = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").eval()
    with torch.no_grad():
        assert accuracy_score(labels, plain(**batch).logits.argmax(1)) == found["accuracy"]


def test_labels_stand_in_the_record_and_the_card(qpa, bert, reviews, tmp_path):
    qpa("train", "--output", tmp_path / "run", *options(bert, reviews, "training.max_steps=1"))
    for folder in ("native", "adapter"):
        assert RunRecord.load(tmp_path / "run" / folder).labels == ["bad", "good"]
        card = (tmp_path / "run" / folder / "README.md").read_text(encoding="utf-8")
        assert 'id2label={0: "bad", 1: "good"}' in card
        assert "| accuracy | " in card


def test_a_killed_classifier_goes_on_to_the_same_bits(goes_on, bert, reviews):
    whole = goes_on(options(bert, reviews, "training.save_steps=2"), step=5)
    assert any("classifier" in name for name in whole)
    assert any("pooler" in name for name in whole)


def read(table, base, **data):
    return read_data(read_settings(model=str(base), task="classify", data={"train": [str(table)], **data}))


def test_a_tenth_of_each_class_is_evaluated_on(bert, tmp_path):
    data = read(write(tmp_path / "sorted.jsonl", sorted(ROWS, key=lambda row: row[1])), bert)
    assert sorted(row["labels"] for row in data.validation) == [0] * 4 + [1] * 4
    assert len(data.train) + len(data.validation) == len(ROWS)


@pytest.mark.parametrize(
    ("labels", "names"),
    [(["10", "9"], ("9", "10")), ([True, False], ("False", "True")), ([1, 0], ("0", "1")), (["b", "a"], ("a", "b"))],
    ids=str,
)
def test_names_of_classes_are_ordered(labels, names, bert, tmp_path):
    rows = [(f"{text} {i}", label) for i, text in enumerate(GOOD * 10) for label in labels]
    assert read(write(tmp_path / "a.jsonl", rows), bert).labels == names


def test_a_base_with_the_same_classes_keeps_its_head(tmp_path, bert, reviews):
    model = BertForSequenceClassification.from_pretrained(bert, id2label={0: "good", 1: "bad"})
    model.save_pretrained(tmp_path / "own")
    AutoTokenizer.from_pretrained(BASE).save_pretrained(tmp_path / "own")
    settings = read_settings(model=str(tmp_path / "own"), task="classify", data={"train": [str(reviews)]})
    data = read_data(settings)
    loaded = run.TASKS["classify"].load(settings.model, data)
    assert data.labels == ("good", "bad")
    assert torch.equal(loaded.classifier.weight, model.classifier.weight)


TABLES = {
    "a file of text": (("a.txt", "a text"), {}, "is no table by its name"),
    "no label column": (("a.jsonl", '{"text": "a"}'), {}, "There is no column `label`"),
    "labels that are numbers with a point": (("a.jsonl", '{"text": "a", "label": 0.5}'), {}, "float, not classes"),
    "one class only": (("a.jsonl", [(text, "good") for text in GOOD]), {}, "have the label 'good', and one class"),
    "too few of each class": (("a.jsonl", ROWS[:8]), {}, "There are 8 examples to train on, but a tenth"),
    "no row with both": (("a.jsonl", [(None, "good"), ("a", None)]), {}, "No row of"),
    "a label that is not trained on": (
        ("a.jsonl", ROWS),
        {"validation": [("new", "good"), ("a text", "so-so")]},
        "has the label 'so-so', which no example to train on has: they have 'bad', 'good'",
    ),
    "what is trained on": (("a.jsonl", ROWS), {"validation": ROWS[:4]}, "stands in"),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_will_not_do_is_one_sentence(case, qpa, bert, tmp_path):
    (name, content), more, message = TABLES[case]
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        write(path, content)
    arguments = options(bert, path)
    if more:
        arguments += ["--validation", write(tmp_path / "other.jsonl", more["validation"])]
    result = qpa("train", "--output", tmp_path / "run", *arguments)
    assert (result.code, message in result.err, result.err.count("Error: ")) == (2, True, 1), result.err
    assert not (tmp_path / "run").exists()


REFUSED = {
    "an unknown task": (["--task", "classifi"], "`task`='classifi' is not known. Choose one of 'text', 'classify'"),
    "a column of another task": (
        ["--task", "text", "--set", "data.label_column=x"],
        "means nothing for `--task text`",
    ),
    "a task type of another task": (
        ["--set", "adapter.task_type=CAUSAL_LM"],
        "such a run trains sequence classifiers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_belongs_to_another_task_is_refused(case, qpa, bert, reviews, tmp_path):
    more, message = REFUSED[case]
    result = qpa("train", "--output", tmp_path / "run", *options(bert, reviews), *more)
    assert (result.code, message in result.err) == (2, True), result.err


def test_a_missing_extra_is_named(qpa, bert, reviews, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = qpa("train", "--output", tmp_path / "run", *options(bert, reviews))
    assert (result.code, "pip install 'qpa-hf[classify]'" in result.err) == (1, True), result.err


def test_classifiers_are_compared_by_their_accuracy(qpa, bert, reviews, tmp_path):
    arms = ["--arm", "QPA", "--arm", "LoRA r=1", "--rate", "1e-2", "--set", "training.max_steps=2"]
    result = qpa("compare", "--output", tmp_path / "run", *options(bert, reviews), *arms, "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert (found["metric"], [row["arm"] for row in found["rows"]]) == ("accuracy", ["QPA", "LoRA r=1"])


def test_a_rehearsal_counts_examples_and_the_head(qpa, bert, reviews, tmp_path):
    result = qpa("train", "--output", tmp_path / "run", *options(bert, reviews), "--dry-run", "--json")
    found = json.loads(result.out)
    assert (found["train_examples"], found["validation_examples"]) == (72, 8)


def test_an_evaluation_knows_the_classes_of_the_run(qpa, bert, reviews, tmp_path):
    found = trained(qpa, bert, reviews, tmp_path / "run")
    data = read_data(read_settings(tmp_path / "run" / "run.yaml"))
    rows = [(data.reader.decode(row["input_ids"]), data.labels[row["labels"]]) for row in data.validation]
    other = write(tmp_path / "other.jsonl", rows[::-1])
    given = ("--adapter", tmp_path / "run" / "adapter", "--data", other, "--block-length", 24)
    result = qpa("evaluate", bert, "--task", "classify", *given, "--json")
    assert result.code == 0, result.err
    again = json.loads(result.out)
    assert {name: again[name] for name in ("accuracy", "f1")} == {name: found[name] for name in ("accuracy", "f1")}
    assert again["baseline"] == {"name": "always bad, the commonest class", "accuracy": 0.5, "f1": 1 / 3}
    assert "Set `--task classify`" in qpa("evaluate", BASE, *given).err
    write(other, [("new", "so-so")])
    assert "which no example to train on has" in qpa("evaluate", bert, "--task", "classify", *given).err

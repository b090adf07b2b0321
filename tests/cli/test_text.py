"""Text that is not what was meant: one sentence in every command that reads it, before a model is loaded."""

import gzip
import json
import os
import socket
import zipfile
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from transformers import AutoModelForCausalLM, AutoTokenizer

from qpa_hf.demo.arms import BASE
from qpa_hf.evaluation import read_texts, text_blocks
from qpa_hf.training import read_data, read_settings

TEXT = "Some words that make up a text, and a few more of them. " * 20
OTHER = "Quite another text, which has nothing to do with the first one. " * 20
ROWS = [{"text": f"{number}, {TEXT}", "n": number} for number in range(9)] + [{"text": None, "n": 9}]


def as_json(rows):
    return "\n".join(map(json.dumps, rows))


def as_csv(rows, cell=","):
    lines = [f'"{row["text"] or ""}"{cell}{row["n"]}' for row in rows]
    return "\n".join([f"text{cell}n", *lines])


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("book.txt", TEXT)


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(os.path.relpath(path))  # a longer name than a socket may have


FILES = {  # name, content or what makes it, what is said
    "JSON lines in a text file": ("a.txt", as_json(ROWS), "holds JSON, not plain text. End its name in .json"),
    "JSON in a text file": ("a.txt", json.dumps(ROWS, indent=1), "holds JSON, not plain text"),
    "no such column": ("a.jsonl", '{"body": "a", "n": 1}', "There is no column `text` in"),
    "a column of numbers": ("a.jsonl", '{"text": 1}', "holds int, not text"),
    "a column of two kinds": ("a.jsonl", '{"text": "a"}\n{"text": 1}', "holds int, not text"),
    "a column of conversations": ("a.jsonl", '{"text": [{"role": "user", "content": "a"}]}', "holds list, not text"),
    "a column of nothing": ("a.jsonl", '{"text": null}\n{"text": " "}', "has no text"),
    "a row with NUL": ("a.jsonl", '{"text": "a\\u0000b"}', "has NUL characters"),
    "damaged JSON": ("a.jsonl", '{"text": "a"}\n{"text": b', "cannot be read as .jsonl (JSON parse error"),
    "JSON in UTF-16": ("a.jsonl", as_json(ROWS).encode("utf-16-le"), "looks like UTF-16"),
    "compressed JSON": ("a.jsonl.gz", gzip.compress(as_json(ROWS).encode()), "compressed with gzip"),
    "CSV without quotes": ("a.csv", "text\na, b\nc\n", "has rows with more cells than its first one"),
    "CSV with an open quote": ("a.csv", 'text,n\n"a,1\n', "cannot be read as .csv"),
    "damaged Parquet": ("a.parquet", b"PAR1 and no more", "is not a Parquet table, or not a complete one"),
    "UTF-16": ("a.txt", TEXT.encode("utf-16"), "(it is UTF-16)"),
    "UTF-16 without a mark": ("a.txt", TEXT.encode("utf-16-le"), "looks like UTF-16 without a byte order mark"),
    "UTF-16, the other end first": ("a.txt", TEXT.encode("utf-16-be"), "looks like UTF-16 without a byte order mark"),
    "UTF-16 of letters that are no ASCII": ("a.txt", ("привет" * 99).encode("utf-16-le"), "control characters"),
    "UTF-32": ("a.txt", TEXT.encode("utf-32"), "(it is UTF-32)"),
    "NUL alone": ("a.txt", bytes(5000), "it has NUL characters"),
    "NUL among text": ("a.txt", f"{TEXT}\0{TEXT}", "it has NUL characters"),
    "Latin-1": ("a.txt", "café ".encode("latin-1") * 99, "is not text in UTF-8"),
    "compressed with gzip": ("a.txt", gzip.compress(TEXT.encode()), "compressed with gzip"),
    "compressed with zstd": ("a.zst", b"\x28\xb5\x2f\xfd\x04\x80", "compressed with zstd"),
    "a zip archive": ("a.txt", zipped, "a zip archive"),
    "an empty file": ("a.txt", "", "is empty. Leave it out"),
    "an empty table": ("a.csv", "", "is empty. Leave it out"),
    "a byte order mark alone": ("a.txt", b"\xef\xbb\xbf", "is empty. Leave it out"),
    "a directory": ("a", Path.mkdir, "is a directory. Name the files in it"),
    "a pipe": ("a", os.mkfifo, "is a pipe, a socket or a device"),
    "a socket": ("a", a_socket, "is a pipe, a socket or a device"),
    "a link to itself": ("a", lambda path: path.symlink_to(path), "a cannot be read (Too many levels"),
    "a link to nothing": ("a", lambda path: path.symlink_to("nowhere"), "There is no text file"),
    "nothing": ("a", lambda path: None, "There is no text file"),
}


def write(path, content):
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture
def no_model(monkeypatch):
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_text_is_one_sentence_in_every_command(case, qpa, tmp_path, no_model, monkeypatch):
    name, content, message = FILES[case]
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / name, content)
    for command in (["train", "--output", "run", "--train"], ["compare", "--output", "run", "--train"]):
        result = qpa(*command, path, "--model", BASE)
        assert (result.code, message in result.err, result.err.count("Error: ")) == (2, True, 1), result.err
    result = qpa("evaluate", BASE, "--text", path)
    assert (result.code, message in result.err, result.err.count("Error: ")) == (2, True, 1), result.err
    assert not (tmp_path / "run").exists()


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path / "a.txt", TEXT)
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(PermissionError, match=r"a.txt cannot be read \(Permission denied\). Check --text"):
        read_texts([path], "--text")


TABLES = {
    "a.jsonl": as_json(ROWS),
    "a.ndjson": as_json(ROWS).encode("utf-8-sig"),
    "a.json": json.dumps(ROWS),
    "A.JSONL": as_json(ROWS),
    "a.csv": as_csv(ROWS),
    "a.tsv": as_csv(ROWS, "\t"),
    "a.parquet": lambda path: parquet.write_table(pyarrow.Table.from_pylist(ROWS), path),
    "a[1]*.jsonl": as_json(ROWS),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_read_by_its_column_and_empty_rows_are_told(name, qpa, tmp_path, capsys):
    found = read_texts([write(tmp_path / name, TABLES[name])], "--text")
    assert found == [row["text"] for row in ROWS if row["text"]]
    assert f"1 of the 10 rows of {tmp_path / name} have no text and are left out." in capsys.readouterr().err


def test_texts_that_look_like_missing_numbers_are_texts(tmp_path):
    words = ["NA", "null", "None", "nan"]
    assert read_texts([write(tmp_path / "a.csv", "\n".join(["text", *words]))], "--text") == words


def test_evaluate_reads_the_column_that_it_is_told(qpa, tmp_path):
    (tmp_path / "a.jsonl").write_text(as_json([{"body": row["text"] or TEXT} for row in ROWS]))
    result = qpa("evaluate", BASE, "--text", tmp_path / "a.jsonl", "--text-column", "body", "--json")
    texts = [row["text"] or TEXT for row in ROWS]
    n_blocks = len(text_blocks(AutoTokenizer.from_pretrained(BASE), texts, 128))
    assert json.loads(result.out)["predicted_tokens"] == n_blocks * 127
    assert "set --text-column" in qpa("evaluate", BASE, "--text", tmp_path / "a.jsonl").err.lower()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_a_byte_order_mark_change_nothing(end, encoding, tmp_path):
    path = write(tmp_path / "a.txt", end.join([TEXT, "", OTHER]).encode(encoding))
    assert read_texts([path], "--text") == [f"{TEXT}\n\n{OTHER}"]


@pytest.mark.parametrize(
    "text", ["[Chapter 1] Call me.", '{"a": 1} is how JSON begins.', "\x1b[1mbold\x1b[0m", "[", "{"]
)
def test_text_that_only_begins_like_something_else_is_text(text, tmp_path):
    assert read_texts([write(tmp_path / "a.txt", text)], "--text") == [text]


def read(data):
    return read_data(read_settings(model=str(BASE), data={"block_length": 16, **data}))


FIRST, SECOND = as_json([ROWS[0], {"text": OTHER}]), as_json([ROWS[1], ROWS[0]])
SHARED = {  # files, which of them to train and to evaluate on
    "the same file": ({"a.txt": TEXT}, ["a.txt"], ["a.txt"]),
    "a copy": ({"a.txt": TEXT, "b.txt": TEXT}, ["a.txt"], ["b.txt"]),
    "a copy with another end": ({"a.txt": TEXT, "b.txt": TEXT.strip() + "\r\n"}, ["a.txt"], ["b.txt"]),
    "a link": ({"a.txt": TEXT, "b.txt": lambda path: path.symlink_to("a.txt")}, ["a.txt"], ["b.txt"]),
    "a part": ({"a.txt": TEXT + OTHER, "b.txt": OTHER}, ["a.txt"], ["b.txt"]),
    "one of two": ({"a.txt": TEXT, "b.txt": OTHER}, ["a.txt"], ["b.txt", "a.txt"]),
    "all rows": ({"a.jsonl": as_json(ROWS), "b.jsonl": as_json(ROWS[::-1])}, ["a.jsonl"], ["b.jsonl"]),
    "a row of a table": ({"a.jsonl": as_json(ROWS), "b.txt": ROWS[1]["text"]}, ["a.jsonl"], ["b.txt"]),
    "the last of two, without a validation text": ({"a.txt": TEXT, "b.txt": TEXT}, ["a.txt", "b.txt"], []),
}


@pytest.mark.parametrize("case", SHARED)
def test_a_validation_text_that_is_trained_on_is_refused(case, tmp_path, monkeypatch):
    files, train, validation = SHARED[case]
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        write(tmp_path / name, content)
    last = (validation or train)[-1]
    with pytest.raises(ValueError, match=rf"The text of {last}, which is evaluated on, stands in {train[0]}, too"):
        read({"train": train, "validation": validation})


@pytest.mark.parametrize("split", ["train", "train[:3]"])
def test_a_validation_split_that_is_trained_on_is_refused(split, tmp_path):
    write(tmp_path / "train.jsonl", as_json(ROWS))
    with pytest.raises(ValueError, match=r"which is evaluated on, stands in the split `train` of the dataset"):
        read({"dataset": str(tmp_path), "validation_split": split})


@pytest.mark.parametrize(
    ("train", "validation", "sentence"),
    [
        (["a.txt", "b.txt"], ["c.jsonl"], "a.txt and b.txt hold the same text, which counts twice."),
        (["d.jsonl"], ["c.jsonl"], "1 of the 2 texts of c.jsonl stand in the training text, too."),
    ],
)
def test_texts_that_stand_twice_are_told(train, validation, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, content in {"a.txt": TEXT, "b.txt": TEXT, "c.jsonl": FIRST, "d.jsonl": SECOND}.items():
        write(tmp_path / name, content)
    read({"train": train, "validation": validation})
    assert sentence in capsys.readouterr().err.splitlines()


DATASETS = {  # files, settings, what is said
    "a split that is missing": ({"train.jsonl": as_json(ROWS)}, {}, "Set `data.train_split` and"),
    "a configuration that is missing": (
        {"train.jsonl": as_json(ROWS)},
        {"dataset_config": "mine"},
        "Set `data.dataset_config` to one",
    ),
    "a script": ({"data.py": "import datasets"}, {}, "Save what the script makes as JSON or Parquet files"),
    "files of another kind": ({"train.xyz": TEXT}, {}, "Check `data.dataset`"),
    "a column that is missing": ({"train.jsonl": '{"n": 1}'}, {}, "Set `data.text_column` to one of n"),
}


@pytest.mark.parametrize("case", DATASETS)
def test_a_dataset_that_will_not_do_is_one_sentence(case, qpa, tmp_path, no_model):
    files, settings, message = DATASETS[case]
    folder = tmp_path / "data"
    folder.mkdir()
    for name, content in files.items():
        write(folder / name, content)
    options = [word for name, value in settings.items() for word in ("--set", f"data.{name}={value}")]
    result = qpa("train", "--model", BASE, "--output", tmp_path / "run", "--dataset", folder, *options)
    assert (result.code, message in result.err, result.err.count("Error: ")) == (2, True, 1), result.err


def test_a_file_named_as_a_dataset_is_said_to_be_one(tmp_path):
    with pytest.raises(ValueError, match="is a file. Name it by `data.train`"):
        read({"dataset": str(write(tmp_path / "a.txt", TEXT))})

"""macOS and Windows: nothing that only Linux has is needed to train and to write, and no text depends on the system.

Neither system has run this package; `another_system.py` takes away what they lack.
"""

import ast
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from another_system import FORBIDDEN

from qpa_hf.checkpoint import write_text
from qpa_hf.demo.arms import BASE
from qpa_hf.hub import parcel

ROOT = Path(__file__).parents[1]
SHIPPED = ("qpa_hf", "trainer_callbacks", "model_cards", "benchmarks", "examples")
TEXT = "Über die Wahrscheinlichkeit — naïve façade, 量子.\n" * 60
OPTIONS = (
    "adapter.target_modules=[c_attn]",
    "adapter.fan_in_fan_out=true",
    "adapter.r=2",
    "data.block_length=32",
    "training.max_steps=2",
    "training.per_device_train_batch_size=2",
)
# Files are read and names shown in the encoding of an old console, unless the code says otherwise.
CONSOLE = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": "cp437"}


@pytest.mark.parametrize("system", ["macos", "windows"])
def test_training_and_materializing_need_nothing_of_linux(system, tmp_path):
    text, output = tmp_path / "text.txt", tmp_path / "run"
    text.write_text(TEXT, encoding="utf-8")
    script = [sys.executable, Path(__file__).with_name("another_system.py"), system]
    sets = [word for option in OPTIONS for word in ("--set", option)]
    train = ["train", "--model", BASE, "--train", text, "--output", output, *sets]
    export = ["materialize", output / "native", output / "adapter"]  # onto the folder that is there
    commands = json.dumps([train, [*train, "--fresh"], export, ["inspect", output / "adapter"]], default=str)
    run = subprocess.run([*script, commands], env=os.environ | CONSOLE, capture_output=True)
    assert run.returncode == 0, run.stderr.decode(errors="replace")
    names = [path.name for path in output.rglob("*")]
    assert {"native", "adapter", "run.yaml"} <= set(names)
    assert not [name for name in names if FORBIDDEN & set(name) or name.endswith((".partial", ".old"))]


def sources():
    return [path for room in SHIPPED for path in (ROOT / room).rglob("*.py")]


def opens_text(call):
    """Whether a call opens a text file, or a process whose output is text."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    owner = getattr(getattr(call.func, "value", None), "id", "")
    named = {keyword.arg for keyword in call.keywords}
    if name in ("read_text", "write_text"):
        return isinstance(call.func, ast.Attribute)
    if owner == "subprocess":
        return "text" in named or "universal_newlines" in named
    modes = [x.value for x in ast.walk(call) if isinstance(x, ast.Constant) and isinstance(x.value, str)]
    return (
        name in ("open", "fdopen", "TextIOWrapper")
        and owner not in ("os", "Image")
        and not any("b" in mode for mode in modes)
    )


def test_every_text_file_is_opened_with_an_encoding():
    found = []
    for path in sources():
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = {keyword.arg for keyword in getattr(call, "keywords", [])}
            if isinstance(call, ast.Call) and opens_text(call) and "encoding" not in named:
                found.append(f"{path.relative_to(ROOT)}:{call.lineno}")
    assert not found


def test_a_text_has_the_same_bytes_on_every_system(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "linesep", "\r\n")
    write_text(tmp_path / "a.json", "{\n}\n")
    assert (tmp_path / "a.json").read_bytes() == b"{\n}\n"


@pytest.mark.parametrize("encoding", ["cp437", "cp1252", "ascii"])
def test_what_a_console_cannot_show_is_escaped(encoding):
    code = "from qpa_hf_cli import main\nmain()"
    command = [sys.executable, "-c", code, "inspect", "./1 ± 0.1 … 量子"]
    run = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True)
    assert run.returncode == 2, run.stderr
    assert "\\u91cf\\u5b50" in run.stderr.decode(encoding)


def test_copies_of_a_push_have_paths_where_open_files_have_none(tmp_path, monkeypatch):
    monkeypatch.setattr(parcel, "DESCRIPTORS", tmp_path / "nowhere")
    (tmp_path / "README.md").write_bytes(b"a\r\nb\n")
    with ExitStack() as held:
        (copy,) = parcel.pack(tmp_path, held).values()
        assert copy.read_bytes() == b"a\r\nb\n"
    assert not copy.exists()


def test_a_folder_in_the_place_of_a_file_is_no_file_on_windows(tmp_path, monkeypatch):
    opened = os.open

    def denied(path, *args, **kwargs):
        if path == tmp_path / "README.md":
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", denied)
    monkeypatch.setattr(parcel, "DESCRIPTORS", tmp_path / "nowhere")
    (tmp_path / "README.md").mkdir()
    with ExitStack() as held, pytest.raises(ValueError, match="README.md is not an ordinary file"):
        parcel.pack(tmp_path, held)

"""What a stranger's file says is shown on the terminal, and neither obeyed by it nor by rich."""

import json
import logging
import struct
import sys
import warnings

import pytest
from helpers import adapted

from qpa_hf import materialize
from qpa_hf.model_cards import Result, RunRecord, add_record

TITLE = "\x1b]0;owned\x07\x1b]52;c;aGk=\x07\x1b[2J\x9b31m\x08\r\u202e\u2066"
MARKUP = "[red]x[/red] [link=https://a.b]y[/link] :warning: [/]"
HOSTILE = {"escapes": TITLE, "markup": MARKUP}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "native"
    adapted("llama", task_type="CAUSAL_LM", target_modules=["q_proj"]).save_pretrained(folder)
    return folder


@pytest.fixture(params=["native", "plain"])
def folder(request, native, tmp_path):
    """A copy of an adapter, in each form."""
    if request.param == "plain":
        return materialize(native, tmp_path / "plain")
    (tmp_path / "native").mkdir()
    for path in native.iterdir():
        (tmp_path / "native" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "native"


def in_config(name, wrap=lambda text: text):
    def put(folder, text):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: wrap(text)}))

    return put


def in_record(**fields):
    def put(folder, text):
        record = RunRecord(results=[Result("loss", 1.0)], hyperparameters={"learning_rate": 1})
        values = json.loads(record.to_json())
        for name, place in fields.items():
            values[name] = place(text)
        (folder / "qpa_run.json").write_text(json.dumps(values))

    return put


def in_weights(folder, text):
    header = json.dumps({text: {"dtype": text, "shape": [1], "data_offsets": [0, 4]}}).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def in_layout(folder, text):
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings["layout"] = [[text, *rest] for _, *rest in settings.get("layout") or []]
    path.write_text(json.dumps(settings))


PLACES = {
    "base model": in_config("base_model_name_or_path"),
    "method": in_config("peft_type"),
    "modules": in_config("target_modules", lambda text: [text]),
    "pattern": in_config("target_modules"),
    "saved modules": in_config("modules_to_save", lambda text: [text]),
    "unknown setting": lambda folder, text: in_config(text)(folder, text),
    "rank": in_config("r"),
    "task": in_config("task_type"),
    "layout": in_layout,
    "weights": in_weights,
    "metric": in_record(results=lambda text: [{"metric": text, "value": 1}]),
    "result": in_record(results=lambda text: [{"metric": "loss", "value": text}]),
    "rate": in_record(hyperparameters=lambda text: {"learning_rate": text}),
    "steps": in_record(steps=lambda text: text),
    "unknown field": lambda folder, text: in_record(**{text: lambda text: text})(folder, text),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.filterwarnings("ignore")
def test_no_command_obeys_a_strangers_file(hostile, place, folder, qpa, tmp_path):
    PLACES[place](folder, HOSTILE[hostile])
    commands = (["inspect", folder], ["inspect", folder, "--json"], ["materialize", folder, tmp_path / "to"])
    for command in commands:
        said = qpa(*command)
        assert said.code in (0, 2)
        shown = said.out + said.err
        assert shown.replace("\n", "").isprintable(), command
        if command == commands[0] and said.code == 0 and place in ("base model", "rate", "pattern"):
            assert "".join(shown.split()).count("owned" if hostile == "escapes" else ":warning:") >= 1


def test_what_libraries_warn_of_and_log_is_shown(qpa, monkeypatch):
    def speak(*_, **__):
        sys.stderr.write(warnings.formatwarning(TITLE, UserWarning, "module.py", 1))  # as Python writes a warning
        logging.getLogger("stranger").warning("%s", TITLE)
        raise ValueError(TITLE)

    monkeypatch.setattr("qpa_hf.inspection.inspect", speak)
    monkeypatch.setattr(logging.getLogger("stranger"), "propagate", False)
    before = warnings.formatwarning, logging.getLogRecordFactory()
    said = qpa("inspect", "/")
    assert said.code == 2
    assert said.err.count("owned") == 3
    assert said.err.replace("\n", "").isprintable()
    assert (warnings.formatwarning, logging.getLogRecordFactory()) == before


def test_a_record_is_shown_by_python_too(native, tmp_path):
    (tmp_path / "qpa_run.json").write_text(json.dumps({TITLE: 1}))
    with pytest.raises(ValueError, match="no record of a run") as raised:
        RunRecord.load(tmp_path)
    assert str(raised.value).isprintable()


def test_a_hostile_record_serves(native):
    add_record(native, RunRecord(datasets=[TITLE, MARKUP], license=TITLE))
    assert (native / "README.md").read_text().replace("\n", "").isprintable()

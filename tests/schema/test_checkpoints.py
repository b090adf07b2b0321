"""Files that are read back: each fault is one sentence that names the file and the field, before anything is built."""

import json
import re
import struct

import pytest
from bounds import small_memory
from helpers import adapted
from models import build
from peft import IA3Config, PeftConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qpa_hf import QPAConfig, generate, load_generated, materialize
from qpa_hf.files import DiskFullError
from qpa_hf.heads import QuantumHead
from qpa_hf.inspection import inspect

CONFIG, WEIGHTS, RECORD = "adapter_config.json", "adapter_model.safetensors", "qpa_run.json"
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
SMALL = {"target_modules": ["q_proj"], "r": 4, "chunk_size": 16, "n_circuits": 1, "circuit_depth": 1}


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    adapted("llama", **SMALL).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(native, tmp_path):
    for path in native.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def change(folder, **fields):
    settings = json.loads((folder / CONFIG).read_text(encoding="utf-8")) | fields
    (folder / CONFIG).write_text(json.dumps(settings), encoding="utf-8")


def shaped(folder, shape):
    layout = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["layout"]
    change(folder, layout=[[layout[0][0], shape, None], *layout[1:]])


def write(name, text):
    return lambda folder: (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def tensors(**changes):
    def apply(folder):
        weights = load_file(folder / WEIGHTS)
        for name, make in changes.items():
            key = f"base_model.lora_qpa.{name}"
            found = make(weights.pop(key)) if key in weights else make(weights["base_model.lora_qpa.b0"])
            weights |= {} if found is None else {key: found}
        save_file(weights, folder / WEIGHTS)

    return apply


def lying_header(folder):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**40) + content[8:])


# What was done to a native checkpoint, and the words of the refusal: of every reader.
DAMAGES = {
    "no object": (write(CONFIG, "5"), f"{CONFIG} holds 5 and not a JSON object"),
    "a list": (write(CONFIG, "[]"), r"holds \[\] and not a JSON object"),
    "empty": (write(CONFIG, ""), "is not JSON"),
    "zeros": (write(CONFIG, b"\0" * 100), "is not JSON"),
    "UTF-16": (write(CONFIG, "{}".encode("utf-16")), "is not text in UTF-8"),
    "nested deeply": (write(CONFIG, "[" * 100_000), "nested too deeply"),
    "nested": (write(CONFIG, '{"a":' * 50 + "1" + "}" * 50), "nested more than 32 levels deep"),
    "a name twice": (write(CONFIG, '{"peft_type": "QPA", "r": 4, "r": 5}'), "it has 'r' twice"),
    "NaN": (write(CONFIG, '{"peft_type": "QPA", "lora_alpha": NaN}'), "JSON has no NaN"),
    "a number beyond floats": (write(CONFIG, '{"peft_type": "QPA", "lora_alpha": 1e400}'), "too large for a float"),
    "5000 digits": (write(CONFIG, f'{{"peft_type": "QPA", "r": {"1" * 5000}}}'), "is not JSON"),
    "half a character": (write(CONFIG, r'{"peft_type": "QPA", "revision": "\ud800"}'), "is not Unicode text"),
    "much text": (lambda folder: change(folder, revision="x" * 9_000_000), "such a file has at most 8,388,608"),
    "no method": (write(CONFIG, "{}"), r"names no method \(`peft_type`=None\)"),
    "a method that is no name": (write(CONFIG, '{"peft_type": ["QPA"]}'), "names no method"),
    "no layout": (lambda folder: change(folder, layout=None), "has no `layout`"),
    "layout of another kind": (lambda folder: change(folder, layout=5), "`layout`=5 is not allowed"),
    "size 0": (lambda folder: shaped(folder, [0]), "`layout` has .*whole numbers of at least 1"),
    "no size": (lambda folder: shaped(folder, []), "`layout` has .*whole numbers of at least 1"),
    "half a size": (lambda folder: shaped(folder, [2.5]), "`layout` has .*whole numbers of at least 1"),
    "sizes without end": (lambda folder: shaped(folder, [2**39, 2**39]), r"`layout` comes to 3.0e\+23 values"),
    "gigabytes": (lambda folder: shaped(folder, [2**14, 2**15]), "its generator has|do not fit"),
    "other sizes": (lambda folder: shaped(folder, [4, 32]), "do not fit its adapter_config.json"),
    "a tensor twice": (
        lambda folder: change(folder, layout=[[A, [4, 16], None]] * 2),
        "`layout` has .* twice, and a tensor has one place",
    ),
    "tied to nothing": (
        lambda folder: change(folder, layout=[[A, [4, 16], "x"]]),
        "which is not an entry of the trans",
    ),
    "rank of gigabytes": (lambda folder: change(folder, r=10**9), "`r`=1000000000 is more than any dimension"),
    "many circuits": (
        lambda folder: change(folder, n_circuits=10**9),
        "its generator has .* numbers, and the weights",
    ),
    "wide mapping": (lambda folder: change(folder, mapping_widths=[10**9]), "its generator has .* numbers"),
    "alpha beyond floats": (lambda folder: change(folder, lora_alpha=10**400), "`lora_alpha`=1000.* is not allowed"),
    "no pattern": (lambda folder: change(folder, target_modules="("), r"`target_modules`='\(' is no regular expr"),
    "no names": (lambda folder: change(folder, modules_to_save=5), "`modules_to_save`=5 is not allowed"),
    "unknown task": (lambda folder: change(folder, task_type="X"), "`task_type`='X' is not known"),
    "number for a model": (
        lambda folder: change(folder, base_model_name_or_path=5),
        "=5 is not allowed. Set it to a text",
    ),
    "cut off": (lambda folder: write(WEIGHTS, (folder / WEIGHTS).read_bytes()[:-8])(folder), "incomplete or damaged"),
    "no weights": (write(WEIGHTS, b""), "incomplete or damaged"),
    "lying header": (lying_header, "incomplete or damaged"),
    "whole numbers": (tensors(w0=lambda w: w.long()), r"w0 is I64 \[16, 1\] and should be torch.float32"),
    "missing tensor": (tensors(w0=lambda w: None), r"w0 is missing and should be torch.float32 \[16, 1\]"),
    "tensor of another shape": (
        tensors(b0=lambda b: b[:3].clone()),
        r"b0 is F32 \[3\] and should be torch.float32 \[16\]",
    ),
    "tensor without a place": (tensors(other=lambda b: b.clone()), r"other is F32 \[16\] and has no place"),
}
READERS = {
    "inspect": inspect,
    "materialize": lambda folder: materialize(folder, folder / "plain"),
    "QPAConfig": QPAConfig.from_pretrained,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_refused_by_every_reader(damage, folder):
    spoil, words = DAMAGES[damage]
    spoil(folder)
    before = sorted(folder.iterdir())
    with small_memory():
        for read in READERS.values():
            with pytest.raises(ValueError, match=words) as refusal:
                read(folder)
            assert str(folder) in str(refusal.value)
            assert "\n" not in str(refusal.value)
    assert sorted(folder.iterdir()) == before


OF_PEFT = ["no layout", "size 0", "gigabytes", "rank of gigabytes", "no pattern", "a name twice", "missing tensor"]


@pytest.mark.parametrize("damage", OF_PEFT)
def test_damaged_checkpoint_is_refused_by_peft(damage, folder):
    spoil, words = DAMAGES[damage]
    spoil(folder)
    with small_memory(), pytest.raises(ValueError, match=words):
        PeftModel.from_pretrained(build("llama"), folder)


def test_whole_checkpoint_is_read(folder):
    assert inspect(folder)["tensors"] == 4


def generated(folder):
    model = get_peft_model(build("llama"), IA3Config(target_modules=["v_proj"], feedforward_modules=[]))
    generate(model, chunk_size=4, n_circuits=1, circuit_depth=1).save_pretrained(folder)


GENERATED = {
    "no method": ({"method": {}}, "`method` is None"),
    "method that is no object": ({"method": 5}, "`method`=5 is not allowed. Set it to a dictionary"),
    "unknown method": ({"method": {"peft_type": "X"}}, "`method` is 'X', which this version of peft does not know"),
    "odd setting of the method": ({"method": {"peft_type": "IA3", "target_modules": 5}}, "`target_modules`=5 is not"),
    "odd generator": ({"generator": {"chunk_size": 0}}, "`chunk_size`=0 is not allowed"),
    "unknown setting": ({"generator": {"chunksize": 1}}, "'chunksize'"),
    "many circuits": ({"generator": {"n_circuits": 10**9, "chunk_size": 4}}, "its generator has .* numbers"),
    "no layout": ({"layout": None}, "`layout`=None is not allowed"),
    "size 0": ({"layout": [["x", [0]]]}, "`layout` has "),
    "name that is no text": ({"adapter_name": 5}, "`adapter_name`=5 is not allowed. Set it to a text"),
}


@pytest.mark.parametrize("damage", GENERATED)
def test_damaged_generated_checkpoint_is_named(damage, tmp_path):
    generated(tmp_path)
    fields, words = GENERATED[damage]
    change(tmp_path, **fields)
    with small_memory(), pytest.raises(ValueError, match=words) as refusal:
        load_generated(build("llama"), tmp_path)
    assert str(tmp_path / CONFIG) in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5", "holds 5 and not a JSON object"),
        ('{"n_features": "a"}', "`n_features`='a' is not allowed"),
        ('{"n_features": 12, "misspelt": 1}', "'misspelt' is not a setting of a head"),
        ('{"n_features": 12, "n_qubits": 4, "n_layers": 1000000000}', "encoder_angles is F32"),
        ('{"n_features": 12, "n_qubits": 4, "n_layers": 4611686018427387904}', "config.json"),
    ],
)
def test_damaged_head_is_named(text, words, tmp_path):
    QuantumHead(12, n_qubits=4).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with small_memory(), pytest.raises(ValueError, match=words) as refusal:
        QuantumHead.from_pretrained(tmp_path)
    assert str(tmp_path) in str(refusal.value)


NO_CONFIGURATIONS = {
    "a number": b"5",
    "a list": b"[]",
    "cut off": b'{"peft_type": "QP',
    "no UTF-8": b'{"peft_type": "\xff"}',
    "nested deeply": b'{"a":' * 3000,
    "thousands of digits": b'{"peft_type": "QPA", "r": ' + b"1" * 5000 + b"}",
    "no method": b"{}",
    "no name for a method": b'{"peft_type": []}',
    "another method": b'{"peft_type": "NEWEST"}',
}


@pytest.mark.parametrize("load", [PeftModel.from_pretrained, None], ids=["model", "configuration"])
@pytest.mark.parametrize("content", NO_CONFIGURATIONS)
def test_a_file_that_peft_reads_first_is_named(content, load, folder):
    (folder / CONFIG).write_bytes(NO_CONFIGURATIONS[content])
    with pytest.raises(ValueError, match=re.escape(str(folder / CONFIG))) as refused:
        load(build("llama"), str(folder)) if load else PeftConfig.from_pretrained(str(folder))
    assert "\n" not in str(refused.value)


def test_a_full_disk_is_said_where_peft_saves(native, tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    model = PeftModel.from_pretrained(build("llama"), str(native))
    monkeypatch.setattr("peft.peft_model.safe_save_file", fails)
    with pytest.raises(DiskFullError, match=f"^The disk is full: not all could be written in {tmp_path}"):
        model.save_pretrained(str(tmp_path))

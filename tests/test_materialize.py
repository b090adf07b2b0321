"""A materialized adapter is a plain LoRA checkpoint, bit for bit, in a process that has only peft."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import CASES, LM, make
from helpers import adapted, logits
from models import build
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from qpa_hf import BottleneckConfig, QPAConfig, materialize
from qpa_hf.materialize import check_target

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
OUR_FIELDS = set(QPAConfig.__dataclass_fields__) - set(LoraConfig.__dataclass_fields__)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Every case materialized, with the answers of the model it came from and of a fresh process."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("exported")
    expected, cases = {}, {}
    for case in CASES:
        name, model = make(case)
        expected[case] = logits(model, name)
        cases[case] = (name, str(materialize(model, root / case)))
        model.save_pretrained(root / "native" / case)
    (root / "cases.json").write_text(json.dumps(cases))
    tests = Path(__file__).parent
    command = [sys.executable, str(tests / "load_plain.py"), str(root / "cases.json"), str(root / "answers.pt")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(tests)})
    return root, expected, torch.load(root / "answers.pt")


@pytest.mark.parametrize("case", CASES)
def test_fresh_process_gives_the_same_bits(case, exported):
    _, expected, answers = exported
    assert torch.equal(answers[case], expected[case])


@pytest.mark.parametrize("case", CASES)
def test_checkpoint_is_what_plain_lora_writes(case, exported, tmp_path):
    root, _, _ = exported
    name, settings = CASES[case]
    lora = {key: value for key, value in settings.items() if key not in OUR_FIELDS}
    plain = get_peft_model(build(name), LoraConfig(r=4, lora_alpha=8, **lora))
    plain.save_pretrained(tmp_path, save_embedding_layers=False)
    ours, theirs = (load_file(Path(p) / "adapter_model.safetensors") for p in (root / case, tmp_path))
    assert {key: (value.shape, value.dtype) for key, value in ours.items()} == {
        key: (value.shape, value.dtype) for key, value in theirs.items()
    }
    settings = json.loads((root / case / "adapter_config.json").read_text())
    assert settings["peft_type"] == "LORA"
    assert not OUR_FIELDS & settings.keys()
    assert "plain LoRA adapter" in (root / case / "README.md").read_text()


@pytest.mark.parametrize("case", CASES)
def test_saved_generator_materializes_without_a_base_model(case, exported, tmp_path):
    root, _, _ = exported
    materialize(root / "native" / case, tmp_path / "out")
    ours, theirs = (load_file(p / "adapter_model.safetensors") for p in (tmp_path / "out", root / case))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def model():
    return adapted("llama", target_modules=["q_proj"], **LM)


def test_materializing_again_replaces_and_keeps_other_files(tmp_path):
    first = model()
    materialize(first, tmp_path / "a")
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    with torch.no_grad():
        first.base_model.lora_qpa["default"].b0.add_(1)
    materialize(first, tmp_path / "a")
    assert (tmp_path / "a" / "tokenizer.json").exists()
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path / "a")
    assert torch.equal(logits(loaded, "llama"), logits(first, "llama"))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("step", ["materialize.save_file", "materialize._prove", "files._take_place"])
@pytest.mark.parametrize("existed", [True, False])
def test_interruption_leaves_the_old_directory_or_none(step, existed, tmp_path, monkeypatch):
    trained = model()
    if existed:
        materialize(trained, tmp_path / "a")
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").glob("*")}

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    room, _, name = step.partition(".")
    monkeypatch.setattr(sys.modules[f"qpa_hf.{room}"], name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        materialize(trained, tmp_path / "a")
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").glob("*")} == before
    assert [p.name for p in tmp_path.iterdir()] == (["a"] if existed else [])


def test_what_a_killed_process_left_is_neither_in_the_way_nor_copied(tmp_path, gone):
    (tmp_path / "a").mkdir()
    for left in (tmp_path / f".a.{gone}.partial", tmp_path / "a" / f".README.md.{gone}.partial"):
        left.touch()
    for _ in range(2):
        materialize(model(), tmp_path / "a")
    assert not [path for path in tmp_path.rglob("*") if gone in path.name]


def test_file_that_a_link_leads_to_is_left_alone(tmp_path):
    trained = model()
    materialize(trained, tmp_path / "a")
    shared = tmp_path / "shared.json"
    shared.write_bytes((tmp_path / "a" / "adapter_config.json").read_bytes() + b" ")
    before = shared.read_bytes()
    (tmp_path / "a" / "adapter_config.json").unlink()
    (tmp_path / "a" / "adapter_config.json").symlink_to(shared)
    materialize(trained, tmp_path / "a")
    assert shared.read_bytes() == before
    assert not (tmp_path / "a" / "adapter_config.json").is_symlink()


def test_old_directorys_mode_and_links_stay(tmp_path):
    trained = model()
    materialize(trained, tmp_path / "a")
    (tmp_path / "a").chmod(0o500)
    (tmp_path / "a" / "link").symlink_to("nowhere")
    materialize(trained, tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o500
    assert (tmp_path / "a" / "link").readlink() == Path("nowhere")


def test_a_mismatch_when_read_back_is_an_error(tmp_path, monkeypatch):
    module = sys.modules["qpa_hf.materialize"]
    write = module.save_file

    def flip(tensors, path, **kwargs):
        write({key: value + 1 for key, value in tensors.items()}, path, **kwargs)

    monkeypatch.setattr(module, "save_file", flip)
    with pytest.raises(RuntimeError, match="differs when read back"):
        materialize(model(), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def broken_model():
    broken = model()
    with torch.no_grad():
        broken.base_model.lora_qpa["default"].w0[0, 0] = float("nan")
    return broken


def native(path):
    model().save_pretrained(path)
    return path


def truncated(path):
    weights = native(path) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    return path


def a_file(path):
    path.write_text("")
    return path


def full(path):
    path.mkdir()
    return a_file(path / "notes.txt").parent


def lora(path):
    get_peft_model(build("llama"), LoraConfig(target_modules=["q_proj"])).save_pretrained(path)
    return path


def broken(folder):
    native(folder)
    (folder / "adapter_config.json").write_text("{")
    return folder


BAD = {
    "not finite": (lambda p: broken_model(), lambda p: p / "a", ValueError, "NaN or infinite values; nothing was"),
    "no PEFT model": (lambda p: build("llama"), lambda p: p / "a", TypeError, "Cannot materialize a LlamaForCausalLM"),
    "no checkpoint": (lambda p: p / "nothing", lambda p: p / "a", ValueError, "no adapter_config.json"),
    "plain LoRA": (lambda p: lora(p / "lora"), lambda p: p / "a", ValueError, "holds a LORA adapter"),
    "truncated": (lambda p: truncated(p / "n"), lambda p: p / "a", ValueError, "incomplete or damaged"),
    "target is a file": (lambda p: model(), lambda p: a_file(p / "f"), ValueError, "is a file"),
    "target below a file": (lambda p: model(), lambda p: a_file(p / "f") / "a", ValueError, "Cannot write"),
    "target is not empty": (lambda p: model(), lambda p: full(p / "d"), ValueError, "holds no adapter"),
    "target is native": (lambda p: model(), lambda p: native(p / "n"), ValueError, "holds a native checkpoint"),
    "target is where we are": (lambda p: model(), lambda p: ".", ValueError, "itself cannot be exchanged"),
    "broken settings": (lambda p: broken(p / "n"), lambda p: p / "a", ValueError, "adapter_config.json is not JSON"),
    "target is the source": (lambda p: native(p / "n"), lambda p: p / "n", ValueError, "holds the generator itself"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_nothing_is_lost(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, target, error, message = BAD[case]
    source, target = source(tmp_path), target(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(error, match=message):
        materialize(source, target)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_link_goes_on_pointing_to_the_adapter(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    materialize(model(), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "adapter_model.safetensors").is_file()


def test_a_mount_is_no_place_for_an_adapter():
    with pytest.raises(ValueError, match="itself cannot be exchanged"):
        check_target(Path("/"))


def test_second_adapter_is_found_in_the_saved_models_folder(tmp_path):
    two = model()
    two.add_adapter("b", QPAConfig(r=4, chunk_size=32, target_modules=["k_proj"], **LM))
    two.save_pretrained(tmp_path / "native")
    materialize(tmp_path / "native", tmp_path / "plain", adapter_name="b")
    weights = load_file(tmp_path / "plain" / "adapter_model.safetensors")
    assert all(".k_proj." in key for key in weights)
    with pytest.raises(ValueError, match="holds no adapter 'c'"):
        materialize(tmp_path / "native", tmp_path / "plain", adapter_name="c")


def test_unknown_adapter_name_lists_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match=r"It has \['default'\] to materialize"):
        materialize(model(), tmp_path / "a", adapter_name="b")


def test_an_adapter_without_a_generator_is_sent_to_peft(tmp_path):
    two = model()
    two.add_weighted_adapter(["default"], [0.5], "c", combination_type="linear")
    bottleneck = get_peft_model(build("llama"), BottleneckConfig(target_modules=["q_proj"]))
    for source, name in ((two, "c"), (bottleneck, "default")):
        with pytest.raises(ValueError, match="is saved as it is by `save_pretrained`"):
            materialize(source, tmp_path / "a", adapter_name=name)


def test_edits_that_no_counter_sees_are_written(tmp_path):
    name, model = make("lm_head")
    logits(model, name)
    for parameter in model.base_model.lora_qpa["default"].parameters():
        parameter.data.mul_(0.5)
    model.save_pretrained(tmp_path / "native")
    materialize(tmp_path / "native", tmp_path / "expected")
    materialize(model, tmp_path / "adapter")
    written, expected = (
        load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("adapter", "expected")
    )
    assert all(torch.equal(written[key], expected[key]) for key in expected)

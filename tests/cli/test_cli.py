"""The `qpa` command: what it prints, its exit codes, and what it leaves behind."""

import errno
import json
import subprocess
import sys

import pytest
from helpers import adapted
from huggingface_hub import constants
from models import build
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from qpa_hf.demo.arms import BASE


def test_installed_command_lists_its_subcommands():
    code = "from qpa_hf_cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    for name in ("train", "plan", "materialize", "inspect", "push", "evaluate", "compare"):
        assert name in result.stdout


def test_plan_reads_only_the_configuration(qpa, tmp_path):
    build("gpt2").config.save_pretrained(tmp_path)
    result = qpa("plan", tmp_path, "--target", "c_attn", "--chunk-size", 16, "--chunk-size", 32, "--json")
    assert [row["chunk_size"] for row in json.loads(result.out)] == [16, 32]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "all-linear", "--target", "c_attn"), "`--target` 'all-linear' goes with no other module"),
        (("--target", "c_attn", "--steps", 0), "--steps"),
        (("--target", "c_attn", "--chunk-size", 0), "`chunk_size`=0 is not allowed"),
    ],
    ids=["a module beside all", "no step", "no chunk"],
)
def test_bad_input_of_a_plan_is_named_as_typed(qpa, options, message, tmp_path):
    build("gpt2").config.save_pretrained(tmp_path)
    result = qpa("plan", tmp_path, *options)
    assert (result.code, message in result.err) == (2, True)


def test_plan_says_what_a_run_measures(qpa, tmp_path):
    build("gpt2").config.save_pretrained(tmp_path)
    result = qpa("plan", tmp_path, "--target", "c_attn", "--shots", "20x", "--steps", 10, "--json")
    measuring = json.loads(result.out)[0]["measuring"]
    assert measuring["shots_per_run"] == 10 * measuring["shots_per_step"] > 0


@pytest.fixture
def native(tmp_path):
    adapted("llama", target_modules=["q_proj"]).save_pretrained(tmp_path / "native")
    return tmp_path / "native"


@pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
def test_materialize_writes_a_plain_adapter(qpa, native, tmp_path):
    assert qpa("materialize", native, tmp_path / "adapter").code == 0
    assert any("lora_A" in key for key in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))


@pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
def test_inspect_tells_both_forms_apart(qpa, native, tmp_path):
    qpa("materialize", native, tmp_path / "adapter")
    found = [json.loads(qpa("inspect", folder, "--json").out) for folder in (native, tmp_path / "adapter")]
    assert [one["form"] for one in found] == ["native", "materialized"]
    assert found[0]["generated_numbers"] == found[1]["numbers"]
    assert found[0]["trainable_numbers"] == sum(
        found[0][f"trainable_{part}"] for part in ("angles", "hidden", "output")
    )


@pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
def test_inspect_prints_brackets_as_they_are_and_needs_no_card(qpa, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    adapted("llama", target_modules=r".*\.[qv]_proj").save_pretrained(tmp_path)
    (tmp_path / "README.md").unlink()
    assert r".*\.[qv]_proj" in qpa("inspect", tmp_path).out


@pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
def test_inspect_reports_what_is_not_finite_in_json(qpa, native):
    weights = load_file(native / "adapter_model.safetensors")
    weights[max(weights)].view(-1)[0] = float("nan")  # not in the first tensor
    save_file(weights, native / "adapter_model.safetensors")
    assert json.loads(qpa("inspect", native, "--json").out)["largest_value"] == "nan"


@pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
def test_inspect_counts_numbers_and_not_the_settings_beside_them(qpa, tmp_path):
    model = adapted("llama", target_modules=["q_proj"], shots=50, gradient="exact")
    generator = model.base_model.lora_qpa["default"]
    generator.draw.fill_(1000)  # as after so many steps
    model.save_pretrained(tmp_path)
    found = json.loads(qpa("inspect", tmp_path, "--json").out)
    numbers = [tensor for name, tensor in generator.state_dict().items() if name != "_extra_state"]
    assert found["numbers"] == sum(tensor.numel() for tensor in numbers)
    assert found["largest_value"] == max(float(p.detach().abs().max()) for p in generator.parameters())


@pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
@pytest.mark.parametrize("targets", [["q_proj"], r".*\.[qv]_proj"], ids=str)
def test_inspect_names_the_targets_as_they_were_given(qpa, targets, tmp_path):
    adapted("llama", target_modules=targets).save_pretrained(tmp_path)
    assert json.loads(qpa("inspect", tmp_path, "--json").out)["target_modules"] == targets


@pytest.mark.parametrize("arguments", [("materialize", "nothing", "adapter"), ("inspect", "native")], ids=str)
def test_wrong_input_is_one_sentence_and_code_2(qpa, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "native").mkdir()
    result = qpa(*arguments)
    assert result.code == 2
    assert result.err.startswith("Error: There is no adapter_config.json")
    assert "Traceback" not in result.err


PLACES = {
    "./nowhere": "There is no directory ./nowhere",
    "no/where": "There is no directory no/where; and as a Hub id: ",
    "no/where/at-all": "There is no directory no/where/at-all, and it is not a Hub id either",
    __file__: "is a file",
}


@pytest.mark.parametrize("place", PLACES, ids=["path", "Hub id", "longer path", "file"])
def test_place_without_an_adapter_is_named(qpa, place, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    result = qpa("inspect", place)
    assert result.code != 0
    assert PLACES[place] in result.err


def test_damaged_weights_are_named(qpa, native):
    (native / "adapter_model.safetensors").write_bytes(b"no weights")
    result = qpa("evaluate", BASE, "--text", __file__, "--adapter", native)
    assert (result.code, "is incomplete or damaged" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (SafetensorError("No space left on device (os error 28)"), 1),
        (PermissionError(errno.EACCES, "Permission denied"), 2),
    ],
    ids=["full disk", "full disk under the weights", "forbidden folder"],
)
def test_a_failed_write_is_one_sentence(qpa, error, code, monkeypatch, tmp_path):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(sys.modules["qpa_hf.materialize"], "materialize", fails)
    result = qpa("materialize", "native", tmp_path / "adapter")
    assert result.code == code
    assert result.err.endswith(f"Error: {error}\n")

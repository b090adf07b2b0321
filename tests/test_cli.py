"""The `qpa` command, run as a program."""

import json
import subprocess
import sys

import pytest
from helpers import adapted
from models import build
from safetensors.torch import load_file


def qpa(*arguments):
    code = "from qpa_hf.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def test_plan_reads_only_the_configuration(tmp_path):
    build("gpt2").config.save_pretrained(tmp_path)
    result = qpa("plan", tmp_path, "--target", "c_attn", "--chunk-size", 16, "--chunk-size", 32, "--json")
    assert [row["chunk_size"] for row in json.loads(result.stdout)] == [16, 32]


@pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
def test_materialize_writes_a_plain_adapter(tmp_path):
    adapted("llama", target_modules=["q_proj"]).save_pretrained(tmp_path / "native")
    result = qpa("materialize", tmp_path / "native", tmp_path / "adapter")
    assert result.returncode == 0, result.stderr
    assert any("lora_A" in key for key in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))


def test_wrong_input_is_one_sentence(tmp_path):
    result = qpa("materialize", tmp_path / "nothing", tmp_path / "adapter")
    assert result.returncode == 2
    assert result.stderr.startswith("Error: There is no adapter_config.json")
    assert "Traceback" not in result.stderr

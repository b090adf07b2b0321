"""From a text file to someone else's process: `qpa train`, `qpa push`, then plain peft from the Hub."""

import json
import os
import subprocess
import sys

import pytest
from loophub import LoopHub

from qpa_hf.demo.arms import BASE

TOKEN = "hf_writes"
FRESH = """
import sys
sys.modules["qpa_hf"] = None
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
model = PeftModel.from_pretrained(base, sys.argv[2]).eval()
blocks = torch.load(sys.argv[3])
loss = model(input_ids=blocks, labels=blocks).loss
print(repr(loss.item()))
"""


@pytest.fixture
def hub(tmp_path):
    with LoopHub(tmp_path / "hub") as running:
        yield running


def test_trained_adapter_is_pushed_and_loads_with_plain_peft(qpa, tiny, hub, tmp_path):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    qpa("train", "--output", tmp_path / "run", *tiny)
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
    command = [sys.executable, "-c", "from qpa_hf_cli import main; main()"]

    def run(*arguments):
        return subprocess.run(arguments, env=env, capture_output=True, text=True)

    pushed = run(*command, "push", str(tmp_path / "run" / "adapter"), "alice/adapter", "--tag", "v1", "--json")
    assert pushed.returncode == 0, pushed.stderr
    seen = run(*command, "inspect", "alice/adapter", "--revision", json.loads(pushed.stdout)["commit"], "--json")
    assert json.loads(seen.stdout)["form"] == "materialized"
    missing = run(*command, "inspect", "alice/other", "--json")
    assert missing.returncode == 1
    assert "\nError: " in f"\n{missing.stderr}"  # bitsandbytes may speak before
    assert TOKEN not in missing.stderr
    blocks = torch.randint(3, 2000, (2, 16), generator=torch.Generator().manual_seed(0))
    torch.save(blocks, tmp_path / "blocks.pt")
    loaded = run(sys.executable, "-c", FRESH, str(BASE), "alice/adapter", str(tmp_path / "blocks.pt"))
    assert loaded.returncode == 0, loaded.stderr
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    here = PeftModel.from_pretrained(base, tmp_path / "run" / "native").eval()
    assert float(loaded.stdout) == here(input_ids=blocks, labels=blocks).loss.item()

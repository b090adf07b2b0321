"""The command line in this process, on the demo's base model and text."""

import sys
from pydoc_data.topics import topics

import pytest
import torch
from safetensors.torch import load_file

from qpa_hf.demo.arms import BASE
from qpa_hf.demo.data import distinct_topics
from qpa_hf.training import run
from qpa_hf_cli import main

TINY = ("adapter.target_modules=[c_attn]", "adapter.fan_in_fan_out=true", "adapter.r=8", "data.block_length=32")


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def qpa(monkeypatch, capsys):
    """Run `qpa` and return its exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["qpa", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        return Result(stop.value.code or 0, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    """A text file of about a thousand tokens."""
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text("\n\n".join(topics[name] for name in distinct_topics()[:3])[:12_000], encoding="utf-8")
    return path


@pytest.fixture
def tiny(book):
    """Options of a run of a few steps."""
    settings = [*TINY, "training.max_steps=4", "training.learning_rate=1e-3", "training.per_device_train_batch_size=2"]
    return ["--model", BASE, "--train", book, *(word for setting in settings for word in ("--set", setting))]


@pytest.fixture(params=["train", "compare"])
def command(request):
    """Each command that trains in a folder, as short as it can be."""
    return {"train": ["train"], "compare": ["compare", "--arm", "LoRA r=1", "--rate", "1e-2"]}[request.param]


@pytest.fixture(scope="session")
def weights():
    """Return what a run wrote as its plain adapter."""
    return lambda folder: load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.fixture
def goes_on(qpa, weights, tmp_path, monkeypatch):
    """Train twice with the same options, once killed at a step and begun again, and return the equal weights."""

    def trained(options, step):
        def stop(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise KeyboardInterrupt

        assert qpa("train", "--output", tmp_path / "whole", *options).code == 0
        with monkeypatch.context() as patch:
            patch.setattr(run.QuietProgress, "on_step_end", stop)
            assert qpa("train", "--output", tmp_path / "parts", *options).code == 130
        assert qpa("train", "--output", tmp_path / "parts", *options).code == 0
        whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[name], parts[name]) for name in whole)
        return whole

    return trained

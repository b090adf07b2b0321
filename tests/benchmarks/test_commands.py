"""Each benchmark in miniature."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra `plots`")


def run(name, *options):
    """Run one benchmark's command in this process: starting Python anew would take longer than the benchmark."""
    n_threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *options])
        importlib.import_module(f"benchmarks.{name}").main()
    torch.set_num_threads(n_threads)


@pytest.fixture(scope="module", params=["circuit", "generator", "step"])
def quick(request, tmp_path_factory):
    """Run one benchmark and return its JSON's text and its plot's path."""
    output = tmp_path_factory.mktemp(request.param) / "result.json"
    run(request.param, "--quick", "--output", str(output))
    return output.read_text(encoding="utf-8"), output.with_suffix(".png")


def test_record_says_what_it_was_measured_on(quick):
    result = json.loads(quick[0])
    assert result["rows"]
    assert {"config", "seed", "machine", "versions", "commit", "timestamp", "targets"} <= result.keys()
    assert result["threads"] == 1


def test_record_names_no_folder(quick):
    assert str(ROOT) not in quick[0]
    assert str(Path.home()) not in quick[0]


def test_plot_is_written(quick):
    assert quick[1].stat().st_size > 10_000


def test_rivals_that_are_missing_are_named(quick):
    is_installed = importlib.util.find_spec("torchquantum") is not None
    assert ("TorchQuantum" in json.loads(quick[0])["missing"]) != is_installed


def test_no_rounds_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match="`--rounds` 0 is not allowed. Set it to at least 1."):
        run("circuit", "--rounds", "0", "--output", str(tmp_path / "result.json"))

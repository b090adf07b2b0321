"""The benchmark in miniature."""

import importlib.util
import json
import sys

import pytest
import torch

pytestmark = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra `plots`")


def test_costs_of_shots_are_recorded_beside_the_exact_ones(tmp_path, monkeypatch):
    from benchmarks import measurement

    n_threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", ["measurement", "--quick", "--output", str(tmp_path / "result.json")])
    measurement.main()
    torch.set_num_threads(n_threads)
    result = json.loads((tmp_path / "result.json").read_text())
    assert set(result["rows"][0]["over_exact"]["training step"]) == set(measurement.ARMS)
    assert {row["ansatz"] for row in result["shifts"]} == set(measurement.ANSATZE)
    assert (tmp_path / "result.png").stat().st_size > 10_000

"""The noise study in miniature: its parts, its resumption, its page, and what its figures must be."""

import dataclasses
import importlib.util
import json

import pytest
import torch
from quality import tiny

from benchmarks.harness.protocol import Protocol
from benchmarks.harness.report import count
from benchmarks.noise import __main__ as command
from benchmarks.noise import estimators, gradients, parts, short
from benchmarks.noise.setting import Setting
from benchmarks.noise.study import Measurements, settings_of
from benchmarks.quality import study as quality_study
from qpa_hf.comparison.statistics import Difference

pytestmark = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the extra `plots`")
N_RUNS = len(set(sum((part(parts.QUICK_GRID) for part in parts.PARTS.values()), [])))


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return short.Short(tiny.sst2(tmp_path_factory.mktemp("sst2")), steps=2)


@pytest.fixture(scope="module")
def done(task, tmp_path_factory):
    """The folder of a finished study of one task, and its arguments."""
    folder = tmp_path_factory.mktemp("study")
    arguments = {"task": ["sst2"], "quick": True, "output": folder / "results", "build": folder / "build"}
    n_threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(short.TASKS, "sst2", lambda *_: task)
        command.study(**arguments)
    torch.set_num_threads(n_threads)
    return folder / "results", arguments


def test_every_setting_is_trained(done):
    found = json.loads((done[0] / "noise_sst2.json").read_text())
    assert len(found["runs"]) == N_RUNS
    assert not [arm for arm in found["arms"].values() if "failed" in arm]


def test_page_has_every_part_and_picture(done):
    text = (done[0] / "noise.md").read_text()
    for heading in ("shots (Fig. 8)", "noise (Fig. 9)", "interpolation", "estimated gradients", "(Fig. 10)"):
        assert heading in text
    assert {path.name for path in done[0].glob("*.png")} == {"noise_sst2.png", "noise_gradients.png"}


def test_finished_runs_are_not_repeated(done, task, monkeypatch):
    monkeypatch.setitem(short.TASKS, "sst2", lambda *_: task)
    for module, name in ((quality_study, "fit"), (estimators, "measure"), (gradients, "measure")):
        monkeypatch.setattr(module, name, None)
    before = (done[0] / "noise_sst2.json").read_text()
    command.study(**done[1])
    assert (done[0] / "noise_sst2.json").read_text() == before


def test_parts_done_before_are_kept(done, task, tmp_path):
    (tmp_path / "noise_sst2.json").write_text((done[0] / "noise_sst2.json").read_text())
    arms = tuple(setting.name for setting in settings_of(parts.QUICK_GRID, ["shots"]))
    protocol = Protocol(arms, (parts.QUICK_GRID.rate,), 1, tmp_path / "elsewhere", tuning_seeds=())
    found = protocol.run(Measurements(task, grid=parts.QUICK_GRID), tmp_path / "noise_sst2.json")
    assert len(found["runs"]) == N_RUNS


@pytest.mark.parametrize("n_qubits", parts.GRIDS["wikitext"].widths)
def test_chunk_follows_from_the_qubits(task, n_qubits):
    shapes = ((384, 384),) * 6
    config = Setting(n_qubits).config(dataclasses.replace(task.targets, shapes=shapes), seed=1)
    assert config.generator_spec(6 * config.r**2).n_qubits == n_qubits


def test_only_significant_differences_are_counted():
    below, above = Difference(-0.2, (-0.3, -0.1), 0.01), Difference(0.2, (0.1, 0.3), 0.01)
    found = [above, below, Difference(0.1, (0.01, 0.2), 0.08), None]
    assert count(found) == "worse in 1, better in 1, undecided in 1 of 3"


@pytest.mark.parametrize("quantity", gradients.QUANTITIES)
@pytest.mark.parametrize("ansatz", ["ry_cnot", "rx_cnot"])
def test_deep_circuits_have_the_variance_of_random_states(quantity, ansatz):
    case = {"quantity": quantity, "ansatz": ansatz, "n_qubits": 5, "depths": (16,), "n_circuits": 400}
    (row,) = gradients.measure(case)
    assert row["variance"] == pytest.approx(row["plateau"], rel=0.2)


def test_spread_of_estimates_without_bias_is_not_taken_for_one():
    exact = torch.ones(3, dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    found = estimators.compare(exact + torch.randn(4000, 3, generator=rng, dtype=torch.float64), exact)
    assert found["spread"] == pytest.approx(1, rel=0.05)
    assert found["bias"] < 2 * found["resolution"] < 0.04

"""The study's tasks: real data, split without overlap, the same for all arms."""

import importlib
import runpy
from pathlib import Path

import pytest
import torch

from benchmarks.quantum_train import cartpole, co2, digits
from benchmarks.quantum_train.arms import ARMS, DIRECT
from benchmarks.quantum_train.cartpole import CartPole, play
from benchmarks.quantum_train.tasks import TASKS

LIBRARIES = {"digits": "sklearn", "co2": "statsmodels", "cartpole": "gymnasium"}


def require(name):
    pytest.importorskip(
        LIBRARIES[name], reason=f"{LIBRARIES[name]} is not installed: pip install 'qpa-hf[quantum-train]'"
    )


@pytest.fixture(params=TASKS)
def task(request):
    require(request.param)
    return TASKS[request.param](n_steps=2)


def losses(task, seed):
    torch.manual_seed(0)
    model = task.build(4)
    return [loss.item() for loss in task.losses(model, seed)]


def test_data_of_a_run_belong_to_its_seed(task):
    assert losses(task, 1) == losses(task, 1)
    assert losses(task, 1) != losses(task, 2)


def test_whole_network_learns(task):
    model = task.build(task.width)
    before = task.evaluate(model, "development")["loss"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for loss in type(task)(n_steps=15).losses(model, 1):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert task.evaluate(model, "development")["loss"] < before


@pytest.mark.parametrize("name", ARMS)
def test_planned_numbers_are_those_that_are_trained(task, name):
    plan = ARMS[name].make(task)
    assert plan.n_trainable(task) == sum(p.numel() for p in plan.model(task, 1).parameters() if p.requires_grad)


@pytest.mark.parametrize("name", [name for name in ARMS if name.startswith(("smaller", "subspace"))])
def test_arms_of_equal_size_are_of_nearly_equal_size(task, name):
    like = ARMS[ARMS[name].control_of].make(task).n_trainable(task)
    assert ARMS[name].make(task).n_trainable(task) == pytest.approx(like, rel=0.08)


def test_whole_network_is_trained_directly(task):
    assert ARMS[DIRECT].make(task).settings is None


def test_every_digit_is_in_one_part():
    require("digits")
    parts = [tuple(image.flatten().tolist()) for images, _ in digits.load().values() for image in images]
    assert len(parts) == len(set(parts)) == 1797  # no two of the images are alike


def test_forecasts_are_tested_on_later_months_than_all_others():
    require("co2")
    parts, months = co2.load(), co2.changes()
    torch.testing.assert_close(torch.cat([following for _, following in parts.values()]), months[co2.WINDOW :])
    assert list(parts) == ["train", "development", "test"]


def test_persistence_has_the_size_of_the_changes_as_its_error():
    require("co2")
    expected = co2.changes()[-co2.N_MONTHS["test"] :].square().mean().sqrt().item()
    assert co2.Co2().references()["persistence"] == pytest.approx(expected)


def test_episodes_are_those_of_single_poles():
    require("cartpole")
    gymnasium = importlib.import_module("gymnasium")
    model = CartPole().build(8)
    episodes = play(model, 4, seed=3, is_greedy=True)
    pole = gymnasium.make("CartPole-v1")
    for number in range(4):
        pole.reset(seed=0)
        state = (episodes.observed[0, number] * cartpole.SCALE).double().numpy()
        pole.unwrapped.state = state
        length, is_over = 0, False
        while not is_over:
            with torch.no_grad():
                action = model(torch.tensor(state, dtype=torch.float32) / cartpole.SCALE).argmax().item()
            state, _, has_fallen, is_late, _ = pole.step(action)
            length, is_over = length + 1, has_fallen or is_late
        assert episodes.is_alive[:, number].sum() == length


def test_advantages_are_returns_to_go_less_the_mean_of_those_still_playing():
    found = CartPole(discount=0.5)._advantages(torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    assert found[0].tolist() == [0.25, -0.25]
    assert found[1, 0] == 0


def test_example_ends_with_a_plain_network(tmp_path, monkeypatch, capsys):
    require("digits")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(Path(__file__).parents[3] / "examples" / "quantum_train.py"))
    assert "960 numbers are trained" in capsys.readouterr().out
    assert {name.split(".")[0] for name in torch.load(tmp_path / "digits.pt")} == {"0", "3", "7"}

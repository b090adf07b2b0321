"""PushMaterializedCallback against a Hub on this machine, through the genuine client."""

import pytest
import torch
from generated_methods import EVALUATING, METHODS, generated, method_model
from helpers import logits
from huggingface_hub import ModelCard, constants
from loophub import LoopHub
from models import build
from peft import PeftModel, get_peft_model
from trained import StopAt, trainer

from qpa_hf import QPAConfig
from qpa_hf.hub import AccessDenied, HubUnavailable, RetryPolicy
from qpa_hf.model_cards import RunRecord
from qpa_hf.trainer_callbacks import MaterializeCallback, PushMaterializedCallback
from qpa_hf.tuners.bottleneck import BottleneckConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub against its HTTP client
]
SAVING = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
QUICK = RetryPolicy(attempts=2, total_seconds=60.0, first_wait=0.001, longest_wait=0.002)
REPO = "alice/run"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with LoopHub(tmp_path / "hub") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub


def run(tmp_path, callbacks=(), token="hf_writes", model=None, trainer_settings=None, **settings):
    record = RunRecord(datasets=["alice/texts"])
    ours = PushMaterializedCallback(REPO, record=record, token=token, policy=QUICK, **settings)
    return trainer(tmp_path / "out", callbacks=[ours, *callbacks], model=model, **SAVING, **(trainer_settings or {}))


def titles(hub):
    """Titles of the commits, oldest first, without the Hub's own."""
    commits = sorted(hub.repos[REPO]["commits"].values(), key=lambda commit: commit["number"])
    return [commit["title"] for commit in commits[1:]]


def pushed(hub, tmp_path, name):
    """A file at the tip of the main branch, copied out of the Hub's store."""
    repo = hub.repos[REPO]
    entry = repo["commits"][repo["branches"]["main"]]["tree"][name]
    content = (hub.root / ("lfs" if "lfs" in entry else "blobs") / entry.get("lfs", entry["oid"])).read_bytes()
    path = tmp_path / "pushed" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def bottleneck(activation):
    config = BottleneckConfig(
        bottleneck_size=4, activation=activation, target_modules=["q_proj"], task_type="CAUSAL_LM"
    )
    return get_peft_model(build("llama"), config)


EXACT, NEAR = {"rtol": 0, "atol": 0}, {"rtol": 1e-5, "atol": 1e-6}
# The model (None: with a QPA adapter), how its card calls the adapter, and how near the plain one is.
PUSHED = {
    "QPA": (lambda: None, "This is a plain LoRA adapter. Nothing but peft is needed", EXACT),
    "a generated method": (lambda: method_model("prefix"), METHODS["prefix"][1], EXACT),
    "a bottleneck that is a LoRA": (
        lambda: bottleneck("none"),
        "It was trained as a feed-forward adapter",
        NEAR,
    ),
    "a generated bottleneck": (lambda: generated(bottleneck("relu")), "import qpa_hf", EXACT),
}


@pytest.mark.parametrize("case", PUSHED)
def test_one_commit_at_the_end_holds_adapter_and_card(case, hub, tmp_path):
    make_model, kind, near = PUSHED[case]
    training = run(tmp_path, model=make_model())
    training.train()
    assert titles(hub) == ["Upload the materialized adapter of out after 4 steps"]
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        pushed(hub, tmp_path, name)
    plain = PeftModel.from_pretrained(build("llama"), tmp_path / "pushed")
    torch.testing.assert_close(logits(plain, "llama"), logits(training.model.eval(), "llama"), **near)
    card = ModelCard.load(pushed(hub, tmp_path, "README.md"))
    assert card.data.datasets == ["alice/texts"]
    assert kind in card.text
    assert f'PeftModel.from_pretrained(base, "{REPO}")' in card.text


def test_best_weights_of_an_adapter_with_another_name_are_pushed(hub, tmp_path):
    settings = {"r": 4, "chunk_size": 16, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    model = get_peft_model(build("llama"), QPAConfig(**settings), adapter_name="task")
    best = {"load_best_model_at_end": True, **EVALUATING}
    run(
        tmp_path, callbacks=[MaterializeCallback("task")], model=model, adapter_name="task", trainer_settings=best
    ).train()
    assert titles(hub) == ["Upload the materialized adapter of out after 2 steps"]
    name = "adapter_model.safetensors"
    expected = tmp_path / "out" / "checkpoint-2" / "plain" / "adapter" / name
    assert pushed(hub, tmp_path, name).read_bytes() == expected.read_bytes()


def test_weights_that_trainer_does_not_exchange_for_the_best_are_called_the_last(hub, tmp_path):
    model = generated(get_peft_model(build("llama"), METHODS["VeRA"][0], adapter_name="task"))
    best = {"load_best_model_at_end": True, **EVALUATING}
    run(tmp_path, model=model, adapter_name="task", trainer_settings=best).train()
    assert titles(hub) == ["Upload the materialized adapter of out after 4 steps"]


def test_place_that_cannot_be_written_is_known_before_training(hub, tmp_path):
    (tmp_path / "out" / "adapter").mkdir(parents=True)
    (tmp_path / "out" / "adapter" / "notes.txt").write_text("mine")
    training = run(tmp_path)
    with pytest.raises(ValueError, match="holds no adapter"):
        training.train()
    assert training.state.global_step == 0


def test_every_save_is_one_commit(hub, tmp_path):
    run(tmp_path, every_save=True).train()
    assert titles(hub) == [f"Upload the materialized adapter of out after {step} steps" for step in (2, 4, 4)]


def test_a_push_that_fails_on_the_way_is_made_up_for(hub, tmp_path):
    hub.fault("POST .*/commit/", "status", times=QUICK.attempts)
    run(tmp_path, every_save=True).train()
    assert [title[-7:] for title in titles(hub)] == ["4 steps", "4 steps"]


def test_a_push_that_fails_at_the_end_raises(hub, tmp_path):
    hub.fault("POST .*/commit/", "status", times=QUICK.attempts)
    with pytest.raises(HubUnavailable, match="run the same command again later"):
        run(tmp_path).train()


def test_a_hub_that_is_away_at_the_start_stops_no_training(hub, tmp_path):
    hub.fault("POST .*/repos/create", "status", times=QUICK.attempts)
    run(tmp_path).train()
    assert len(titles(hub)) == 1


def test_a_lost_answer_doubles_no_commit(hub, tmp_path):
    hub.fault("POST .*/commit/", "lost")
    run(tmp_path).train()
    assert len(titles(hub)) == 1


def test_a_token_that_may_not_write_is_known_before_training(hub, tmp_path):
    training = run(tmp_path, token="hf_reads")
    with pytest.raises(AccessDenied):
        training.train()
    assert training.state.global_step == 0


def test_resumed_training_pushes_to_the_same_repository(hub, tmp_path):
    run(tmp_path, callbacks=[StopAt(2)]).train()
    run(tmp_path).train(resume_from_checkpoint=True)
    assert [title[-7:] for title in titles(hub)] == ["2 steps", "4 steps"]


@pytest.mark.parametrize(("name", "value"), [("is_world_process_zero", False), ("is_hyper_param_search", True)])
def test_other_processes_and_searches_push_nothing(name, value, hub, tmp_path):
    training = trainer(tmp_path, **SAVING)
    setattr(training.state, name, value)
    callback = PushMaterializedCallback(REPO, every_save=True, token="hf_writes", policy=QUICK)
    for event in (callback.on_train_begin, callback.on_save, callback.on_train_end):
        event(training.args, training.state, training.control, model=training.model)
    assert not hub.repos

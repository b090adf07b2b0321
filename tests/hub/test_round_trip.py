"""Push, and load elsewhere: with plain peft, with ours, as a pull request, on a branch; and what does not go along."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from client import PATHS, TESTS
from helpers import adapted, logits
from models import build
from scene import READER, TOKEN

from qpa_hf import materialize
from qpa_hf.hub.folder import FORMS
from qpa_hf.hub.repository import Repository

NAME = "llama"


@pytest.fixture(scope="module")
def model():
    return adapted(NAME, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    """The same adapter in both forms."""
    root = tmp_path_factory.mktemp("saved")
    model.save_pretrained(root / "native")
    materialize(model, root / "materialized")
    return root


@pytest.fixture
def lfs(scenes):
    """One path where the way that contents travel makes no difference."""
    return scenes("lfs")


def test_a_pushed_adapter_loads_with_plain_peft(scene, model, saved, tmp_path):
    repo = scene.repo_name()
    scene.push(saved / "materialized", repo)
    (tmp_path / "cases.json").write_text(json.dumps({"pushed": [NAME, repo]}))
    env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | PATHS[scene.path]
    env |= {"HF_ENDPOINT": scene.hub.url, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(TESTS)}
    script = [sys.executable, str(TESTS / "load_plain.py"), tmp_path / "cases.json", tmp_path / "answers.pt"]
    subprocess.run(script, env=env, check=True, capture_output=True)
    assert torch.equal(torch.load(tmp_path / "answers.pt")["pushed"], logits(model, NAME))


@pytest.mark.parametrize("form", sorted(FORMS.values()))
def test_both_forms_load_onto_a_base_model(form, scene, model, saved):
    repo = scene.repo_name()
    scene.push(saved / form, repo, tag="v1")
    result = scene.client.call("load", repo, base=NAME, revision="v1", token=READER, cache_dir=str(scene.cache()))
    assert torch.equal(torch.tensor(result["value"]), logits(model, NAME))


@pytest.fixture
def with_base(saved, tmp_path):
    """Return a function that copies the adapter and lets its configuration name a base model."""

    def get(base):
        materialize(saved / "native", tmp_path / "adapter")
        settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        (tmp_path / "adapter" / "adapter_config.json").write_text(
            json.dumps(settings | {"base_model_name_or_path": base})
        )
        return tmp_path / "adapter"

    return get


def test_the_base_model_is_found_by_itself(lfs, model, with_base, tmp_path):
    build(NAME).save_pretrained(tmp_path / "base")
    repo = lfs.repo_name()
    lfs.push(with_base(str(tmp_path / "base")), repo)
    result = lfs.client.call("load", repo, token=READER, cache_dir=str(lfs.cache()))
    assert torch.equal(torch.tensor(result["value"]), logits(model, NAME))


def test_a_missing_base_model_is_named(lfs, with_base):
    repo = lfs.repo_name()
    lfs.push(with_base("alice/no-base"), repo)
    result = lfs.client.call("load", repo, token=READER, cache_dir=str(lfs.cache()))
    assert result["error"] == "RepositoryMissing"
    assert "alice/no-base" in result["message"]


@pytest.mark.parametrize("fault", [None, "drop", "lost"])
def test_a_pull_request_is_opened_once(fault, scene, table):
    folder, repo = scene.adapter(), scene.repo_name()
    scene.push(scene.adapter(), repo)
    before = scene.tip(repo)
    scene.hub.clear()
    if fault:
        scene.hub.fault("POST .*/commit/main.create_pr=1", fault)
    result = scene.client.call("push", str(folder), repo, create_pr=True, token="hf_bob")
    assert not scene.hub.unused
    again = scene.push(folder, repo, create_pr=True, token="hf_bob")
    assert result["value"] == again["value"] == scene.tip(repo, "refs/pr/1")
    assert again["pull_request"].endswith(f"{repo}/discussions/1")
    assert list(scene.repo(repo)["pulls"]) == ["1"]
    assert scene.holds(repo, again["value"], folder)
    assert scene.tip(repo) == before
    words = {"drop": "cut (reset), then well", "lost": "answer lost"}
    row = {"step": "open a pull request", "outcome": "succeeds", "state": "one pull request"}
    if fault:
        table.add(scene.path, call="push", **row, fault=words[fault], rerun="changes nothing")


@pytest.mark.parametrize("fault", ["drop", "lost"])
def test_a_missing_branch_is_made(fault, scene, table):
    folder, repo = scene.adapter(), scene.repo_name()
    scene.push(scene.adapter(), repo)
    before = scene.tip(repo)
    scene.hub.clear()
    scene.hub.fault("POST .*/branch/dev", fault)
    result = scene.client.call("push", str(folder), repo, revision="dev", token=TOKEN)
    assert not scene.hub.unused
    assert scene.tip(repo, "dev") == result["value"]
    assert scene.holds(repo, result["value"], folder)
    assert scene.tip(repo) == before
    again = scene.push(folder, repo, revision="dev")
    assert again["value"] == result["value"]
    words = {"drop": "cut (reset), then well", "lost": "answer lost"}
    row = {"step": "make a branch", "fault": words[fault], "outcome": "succeeds", "state": "one commit"}
    table.add(scene.path, call="push", **row, rerun="changes nothing")


def test_a_new_repository_can_be_private(lfs):
    repo = lfs.repo_name()
    lfs.push(lfs.adapter(), repo, private=True)
    assert lfs.repo(repo)["private"]


def test_only_the_adapters_own_files_go(lfs):
    folder, repo = lfs.adapter(), lfs.repo_name()
    for name in ("optimizer.pt", "training_args.bin", "trainer_state.json", ".hidden.json"):
        (folder / name).write_text("state")
    (folder / "checkpoint-2").mkdir()
    (folder / "checkpoint-2" / "adapter_config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    oid = lfs.push(folder, repo)["value"]
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json", ".gitattributes"}
    assert set(lfs.repo(repo)["commits"][oid]["tree"]) == names


@pytest.mark.parametrize("options", [{}, {"create_pr": True}], ids=str)
def test_an_earlier_adapters_record_goes(options, lfs):
    folder, repo = lfs.adapter(), lfs.repo_name()
    (folder / "qpa_run.json").write_text("{}")
    lfs.push(folder, repo)
    (folder / "qpa_run.json").unlink()
    oid = lfs.push(folder, repo, **options)["value"]
    assert "qpa_run.json" not in lfs.repo(repo)["commits"][oid]["tree"]
    assert lfs.push(folder, repo, **options)["value"] == oid


@pytest.mark.parametrize(("message", "title"), [(None, "run/checkpoint-4"), ("Third try", "Third try")])
def test_the_commit_names_the_run(message, title, lfs, saved, tmp_path):
    folder, repo = tmp_path / "run" / "checkpoint-4" / "plain" / "adapter", lfs.repo_name()
    materialize(saved / "native", folder)
    oid = lfs.push(folder, repo, commit_message=message)["value"]
    assert lfs.repo(repo)["commits"][oid]["title"].endswith(title)


def test_a_native_folder_can_go_materialized(lfs, saved):
    repo = lfs.repo_name()
    oid = lfs.push(saved / "native", repo, form="materialized")["value"]
    entry = lfs.repo(repo)["commits"][oid]["tree"]["adapter_config.json"]
    assert json.loads((lfs.hub.root / "blobs" / entry["oid"]).read_text())["peft_type"] == "LORA"


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def cut(folder):
    weights = Path(folder) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("damage", "options", "words"),
    [
        (remove("README.md"), {}, "There is no README.md"),
        (remove("adapter_config.json"), {}, "There is no adapter_config.json"),
        (remove("adapter_model.safetensors"), {}, "There is no adapter_model.safetensors"),
        (cut, {}, "incomplete or damaged"),
        (write("adapter_config.json", "{"), {}, "Save or download the adapter again"),
        (write("adapter_config.json", '{"peft_type": "OTHER"}'), {}, "Pass a native (QPA) or a materialized one"),
        (write("adapter_config.json", '{"peft_type": "QPA"}'), {}, "Save the adapter again"),
        (str, {"form": "native"}, "Push it as it is"),
        (str, {"form": "onnx"}, "Use one of ['materialized', 'native']"),
        (str, {"create_pr": True, "tag": "v1"}, "Tag it when merged"),
    ],
)
def test_what_cannot_be_pushed_is_said_before_the_hub_is_asked(damage, options, words, lfs):
    folder, repo = lfs.adapter(), lfs.repo_name()
    damage(folder)
    result = lfs.push(folder, repo, **options)
    assert result["error"] == "ValueError"
    assert words in result["message"]
    assert lfs.hub.log == []


def test_a_name_without_an_owner_is_refused_before_the_hub_is_asked():
    with pytest.raises(ValueError, match="'adapter' has no owner"):
        Repository("adapter").create(None)

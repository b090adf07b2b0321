"""What may not be done, and what is not there: the true cause, and what to do about it."""

import json

import pytest
from scene import READER, TOKEN

FIXED = "succeeds with what the message asks for"
BOB, WRONG = "hf_bob", "hf_of_nobody"
PUSHES = [  # fault, options, error, words
    ("401: unknown token", {"token": WRONG}, "AccessDenied", "Log in with `hf auth login`"),
    ("401: no token", {"token": None}, "AccessDenied", "Log in with `hf auth login`"),
    ("403: a token that only reads", {"token": READER}, "AccessDenied", "write access"),
    ("403: somebody else's repository", {"token": BOB}, "AccessDenied", "write access"),
    ("a public repository where a private one is asked", {"private": True}, "AccessDenied", "without asking"),
    ("a tag that names something else", {"tag": "taken"}, "TagTaken", "Choose another tag"),
]
DOWNLOADS = [  # fault, state of the repository, options, error, words
    ("401: unknown token", {}, {"token": WRONG}, "AccessDenied", "Log in with `hf auth login`"),
    ("gated", {"gated": "auto"}, {"token": BOB}, "GatedRepository", "accept its conditions"),
    ("gated, no token", {"gated": "auto"}, {"token": None}, "GatedRepository", "accept its conditions"),
    ("private, no token", {"private": True}, {"token": None}, "RepositoryMissing", "if it is private, pass a `token`"),
    ("private, another's token", {"private": True}, {"token": BOB}, "RepositoryMissing", "if it is private"),
    ("missing revision", {}, {"revision": "v9"}, "RevisionMissing", "Pass a branch, tag or commit"),
    ("missing commit", {}, {"revision": "0" * 40}, "RevisionMissing", "Pass a branch, tag or commit"),
    ("missing repository", None, {}, "RepositoryMissing", "Check the name"),
]


def name_of(row):
    return row[0]


@pytest.fixture
def repo(scene):
    """A public repository with an adapter, whose first commit is tagged "taken"."""
    repo = scene.pushed()[1]
    state = scene.repo(repo)
    first = min(state["commits"], key=lambda oid: state["commits"][oid]["number"])
    scene.hub.change(repo, tags={"taken": first})
    yield repo
    scene.hub.change(repo, **state)


@pytest.mark.parametrize("row", PUSHES, ids=name_of)
def test_a_push_that_is_refused(row, scene, repo, table):
    fault, options, error, words = row
    folder, before = scene.adapter(), scene.repo(repo)
    scene.hub.clear()
    result = scene.client.call("push", str(folder), repo, **{"token": TOKEN} | options)
    assert result.get("error") == error, result
    assert words in result["message"]
    assert scene.repo(repo) == before
    assert not scene.leaks(result)
    assert scene.push(folder, repo)["value"] == scene.tip(repo)
    add(table, scene, "push", fault, error, "nothing changed")


@pytest.mark.parametrize("row", DOWNLOADS, ids=name_of)
def test_a_download_that_is_refused(row, scene, repo, table):
    fault, state, options, error, words = row
    scene.hub.change(repo, **(state or {}))
    scene.hub.clear()
    cache, asked = scene.cache(), "alice/nothing" if state is None else repo
    result = scene.client.call("download", asked, cache_dir=str(cache), **{"token": READER} | options)
    assert result.get("error") == error, result
    assert words in result["message"]
    assert not list(cache.glob("*/snapshots/*/*.safetensors"))
    assert not scene.leaks(result)
    assert "value" in scene.download(repo, cache, token=TOKEN)
    add(table, scene, "download", fault, error, "nothing in the cache")


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_repository_without_an_adapter(missing, scene, repo, table):
    state = scene.repo(repo)
    del state["commits"][state["branches"]["main"]]["tree"][missing]
    scene.hub.change(repo, commits=state["commits"])
    result = scene.download(repo, scene.cache())
    assert result["error"] == "FileMissing"
    assert missing in result["message"]
    assert "Check the name" in result["message"]
    scene.push(scene.adapter(), repo)
    assert "value" in scene.download(repo, scene.cache())
    add(table, scene, "download", f"missing file: {missing}", "FileMissing", "nothing in the cache")


def test_the_hubs_answer_may_repeat_the_token(scene, repo, table):
    scene.hub.clear()
    scene.hub.fault("POST .*/commit/", "echo", status=422)
    result = scene.client.call("push", str(scene.adapter()), repo, token=TOKEN)
    assert "Refused: Bearer <token>" in result["message"]
    assert not scene.leaks(result)
    assert "value" in scene.push(scene.adapter(), repo)
    add(table, scene, "push", "an error page that repeats the token", "HubError", "the token is in no text")


@pytest.mark.parametrize("place", ["qpa_run.json", "commit_message"])
def test_nothing_that_contains_the_token_is_pushed(place, scene, repo):
    folder, before = scene.adapter(), scene.repo(repo)
    text = json.dumps({"hub_token": TOKEN})
    if place == "qpa_run.json":
        (folder / place).write_text(text)
    result = scene.push(folder, repo, **({place: text} if place == "commit_message" else {}))
    assert result["error"] == "ValueError"
    assert place in result["message"]
    assert "contains your access token" in result["message"]
    assert scene.repo(repo) == before
    assert not scene.leaks(result)


def add(table, scene, call, fault, error, state):
    table.add(scene.path, call=call, step="access", fault=fault, outcome=error, state=state, rerun=FIXED)

"""Without a Hub: what was downloaded whole serves; what was not, or was damaged since, does not."""

import pytest
from scene import LARGE, READER, SMALL, same_files

from qpa_hf.hub.client import KEEPS_LISTS, LISTS_SINCE

QUICK = {"attempts": 2, "silence_seconds": 0.3}
needs_lists = pytest.mark.skipif(not KEEPS_LISTS, reason=f"huggingface_hub keeps lists of files from {LISTS_SINCE} on")


@pytest.fixture
def pushed(scene):
    return *scene.pushed(), scene.cache()


def weights_in(cache):
    [path] = cache.glob("*/snapshots/*/adapter_model.safetensors")
    return path.resolve()


def damage(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)


def add(table, scene, pushed, fault, outcome, state):
    """Look that all is well when the Hub is back, and add a row to the table."""
    folder, repo, cache = pushed
    assert same_files(folder, scene.download(repo, cache)["value"])
    row = {"fault": fault, "outcome": outcome, "state": state, "rerun": "succeeds when the Hub is there"}
    table.add(scene.path, call="download", step="cache", **row)


@needs_lists
def test_offline_with_a_warm_cache(scene, pushed, table):
    folder, repo, cache = pushed
    scene.download(repo, cache)
    scene.hub.clear()
    result = scene.client.call("download", repo, token=READER, cache_dir=str(cache), offline=True)
    assert same_files(folder, result["value"])
    assert scene.hub.log == []
    add(table, scene, pushed, "HF_HUB_OFFLINE, warm cache", "succeeds", "the files of one commit")


def test_offline_with_an_empty_cache(scene, pushed, table):
    result = scene.download(pushed[1], pushed[2], offline=True)
    assert result["error"] == "NotCached"
    assert "Unset HF_HUB_OFFLINE" in result["message"]
    add(table, scene, pushed, "HF_HUB_OFFLINE, empty cache", "NotCached", "nothing in the cache")


@needs_lists
@pytest.mark.parametrize("what", ["status", "hang", "drop"])
def test_a_hub_that_is_down_with_a_warm_cache(what, scene, pushed, table):
    folder, repo, cache = pushed
    scene.download(repo, cache)
    scene.hub.clear()
    scene.hub.fault("/api/models/", what, times=10_000)
    result = scene.client.call("download", repo, token=READER, cache_dir=str(cache), policy=QUICK)
    assert same_files(folder, result["value"])
    assert "Using the copy of commit" in result["log"]
    words = {"status": "503", "hang": "silent", "drop": "cut"}
    add(
        table,
        scene,
        pushed,
        f"Hub down ({words[what]}), warm cache",
        "succeeds, with a warning",
        "the files of one commit",
    )


@needs_lists
def test_a_hub_that_does_not_listen(scene, pushed, table):
    folder, repo, cache = pushed
    scene.download(repo, cache)
    scene.hub.__exit__()
    warm = scene.client.call("download", repo, token=READER, cache_dir=str(cache), policy=QUICK)
    cold = scene.client.call("download", repo, token=READER, cache_dir=str(scene.cache()), policy=QUICK)
    scene.hub.start()
    assert same_files(folder, warm["value"])
    assert cold["error"] == "HubUnavailable"
    assert "run the same command again" in cold["message"]
    add(table, scene, pushed, "Hub does not listen, warm cache", "succeeds, with a warning", "the files of one commit")
    add(table, scene, pushed, "Hub does not listen, empty cache", "HubUnavailable", "nothing in the cache")


@needs_lists
def test_a_commit_that_is_here_whole_needs_no_hub(scene, pushed):
    folder, repo, cache = pushed
    scene.download(repo, cache)
    result = scene.download(repo, cache, revision=scene.tip(repo))
    assert same_files(folder, result["value"])
    assert scene.hub.log == []


@needs_lists
def test_a_file_damaged_in_the_cache_is_fetched_again(scene, pushed, table):
    folder, repo, cache = pushed
    scene.download(repo, cache)
    damage(weights_in(cache))
    assert scene.download(repo, cache, offline=True)["error"] == "NotCached"
    assert same_files(folder, scene.download(repo, cache)["value"])
    add(table, scene, pushed, "a file damaged in the cache", "succeeds", "the files of one commit")
    add(table, scene, pushed, "HF_HUB_OFFLINE, a file damaged in the cache", "NotCached", "nothing changed")


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_full_disk_is_named_and_another_attempt_cannot_help(size, scene):
    _, repo = scene.pushed(size)
    cache = scene.cache()
    result = scene.download(repo, cache, room=size - 1000)
    if result["error"] == "no file system":
        pytest.skip("no file system can be mounted here")
    assert result["error"] == "DiskFullError", result
    assert f"The disk is full: not all could be written in {cache}" in result["message"]
    assert "Trying again" not in result["log"]


def test_a_push_needs_a_hub(scene):
    result = scene.push(scene.adapter(), scene.repo_name(), offline=True)
    assert result["error"] == "NotCached"
    assert "HF_HUB_OFFLINE is set. Unset it" in result["message"]

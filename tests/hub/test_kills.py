"""The client or the Hub is killed in the middle; afterwards the same call finishes the work."""

import pytest
from scene import LARGE, READER, SMALL, TOKEN, damaged, same_files

PATIENT = {"attempts": 1000, "first_wait": 0.01, "longest_wait": 0.05}
UPLOAD = {"lfs": "PUT /_lfs/", "xet": "POST /_cas/v1/xorbs/"}
WEIGHTS = {"lfs": "GET /_storage/", "xet": "GET /_cas/xorb/"}
COMMIT, TAG = "POST .*/commit/main", "POST .*/tag/"
PUSHES = [  # step, request, before or after the Hub's work, commits then
    ("upload", UPLOAD, "before", 0),
    ("commit", COMMIT, "before", 0),
    ("commit", COMMIT, "after", 1),
    ("tag", TAG, "before", 1),
]


def name_of(row):
    return f"{row[0]}-{row[2]}"


def on(path, request):
    return request[path] if isinstance(request, dict) else request


def finish(scene, folder, repo):
    """Push the same again; look that there is one whole commit with its tag."""
    again = scene.push(folder, repo, tag="v1")
    assert scene.commits(repo) == [again["value"]]
    assert scene.repo(repo)["tags"] == {"v1": again["value"]}
    assert scene.is_clean(repo, folder)


@pytest.mark.parametrize("row", PUSHES, ids=name_of)
def test_the_client_is_killed_while_pushing(row, scene, table):
    step, request, when, n_commits = row
    folder, repo = scene.adapter(), scene.repo_name()
    scene.hub.clear()
    scene.hub.fault(on(scene.path, request), "hang" if when == "before" else "hang_after")
    call = scene.client.start("push", str(folder), repo, tag="v1", token=TOKEN)
    scene.hub.await_hang()
    assert call.kill() == {}
    assert len(scene.commits(repo)) == n_commits
    assert scene.is_clean(repo, folder)
    finish(scene, folder, repo)
    state = "one commit" if n_commits else "tip not moved, nothing half-written"
    fault = f"client killed {when} the Hub's work"
    table.add(scene.path, call="push", step=step, fault=fault, outcome="killed", state=state, rerun="finishes it")


@pytest.mark.parametrize("row", PUSHES, ids=name_of)
def test_the_hub_is_killed_while_we_push(row, scene, table):
    step, request, when, _ = row
    folder, repo = scene.adapter(), scene.repo_name()
    scene.hub.clear()
    scene.hub.fault(on(scene.path, request), "exit" if when == "before" else "exit_after")
    call = scene.client.start("push", str(folder), repo, tag="v1", token=TOKEN, policy=PATIENT)
    scene.hub.await_death()
    scene.hub.start()
    result = call.result()
    assert scene.commits(repo) == [result["value"]]
    assert scene.is_clean(repo, folder)
    finish(scene, folder, repo)
    fault, state = f"Hub killed {when} its work, and restarted", "one commit"
    table.add(
        scene.path, call="push", step=step, fault=fault, outcome="succeeds", state=state, rerun="changes nothing"
    )


def test_the_client_is_killed_while_downloading(scene, table):
    folder, repo = scene.pushed(LARGE)
    cache = scene.cache()
    scene.hub.clear()
    scene.hub.fault(on(scene.path, WEIGHTS), "stall", at=SMALL)
    call = scene.client.start("download", repo, token=READER, cache_dir=str(cache))
    scene.hub.await_hang()
    call.kill()
    assert not damaged(cache, folder)
    offline = scene.download(repo, cache, offline=True)
    assert offline["error"] == "NotCached"
    assert same_files(folder, scene.download(repo, cache)["value"])
    row = {"step": "fetch the weights", "fault": "client killed", "outcome": "killed", "rerun": "finishes it"}
    table.add(scene.path, call="download", **row, state="nothing wrong in the cache")


def test_the_hub_is_killed_while_we_download(scene, table):
    folder, repo = scene.pushed(LARGE)
    scene.hub.clear()
    scene.hub.fault(on(scene.path, WEIGHTS), "exit")
    call = scene.client.start("download", repo, token=READER, cache_dir=str(scene.cache()), policy=PATIENT)
    scene.hub.await_death()
    scene.hub.start()
    assert same_files(folder, call.result()["value"])
    row = {"step": "fetch the weights", "fault": "Hub killed, and restarted", "outcome": "succeeds"}
    table.add(scene.path, call="download", **row, state="the files of one commit", rerun="downloads nothing")


def test_two_pushes_at_once_are_two_whole_commits(scene, table):
    folders, repo = [scene.adapter(), scene.adapter()], scene.repo_name()
    scene.push(scene.adapter(), repo)
    first = set(scene.commits(repo))
    calls = [scene.client.start("push", str(folder), repo, token=TOKEN) for folder in folders]
    results = [call.result()["value"] for call in calls]
    assert set(scene.commits(repo)) - first == set(results)
    assert all(scene.holds(repo, oid, folder) for oid, folder in zip(results, folders, strict=True))
    assert scene.tip(repo) in results
    again = scene.push(folders[0], repo)
    assert again["value"] == scene.tip(repo)
    assert scene.holds(repo, scene.tip(repo), folders[0])
    row = {"step": "commit", "fault": "another push at the same time", "outcome": "succeeds"}
    table.add(scene.path, call="push", **row, state="a commit of each", rerun="has its files at the tip")

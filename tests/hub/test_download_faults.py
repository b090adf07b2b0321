"""Downloading while something goes wrong: one commit's files, whole, or an error and nothing wrong in the cache."""

import pytest
from case import on_paths
from download_cases import CASES
from scene import READER, damaged, same_files

ADVICE = {"HubUnavailable": "run the same command again", "DamagedFile": "Try again later"}
RERUN = {True: "downloads what is missing", False: "downloads nothing"}


@pytest.fixture(scope="module")
def pushed():
    """Repositories with an adapter, by path and size of the weights."""
    return {}


@pytest.mark.parametrize(("path", "case"), **on_paths(CASES))
def test_a_fault_while_downloading(case, scene, pushed, table):
    key = scene.path, case.size
    if key not in pushed:
        pushed[key] = scene.adapter(case.size), scene.repo_name()
        scene.push(*pushed[key])
    folder, repo = pushed[key]
    error, cache, commit = case.error_on(scene.path), scene.cache(), scene.tip(repo)
    case.inject(scene.hub, scene.path)
    result = scene.client.call("download", repo, token=READER, cache_dir=str(cache), policy=case.policy)
    assert not scene.hub.unused
    assert result.get("error") == error, result
    assert error is None or ADVICE[error] in result["message"]
    assert error or same_files(folder, result["value"])
    assert not damaged(cache, folder)
    assert not scene.leaks(result)

    again = scene.download(repo, cache, revision=commit)
    assert same_files(folder, again["value"])
    table.add(
        scene.path,
        call="download",
        step=case.step,
        fault=case.fault,
        outcome=error or "succeeds",
        state="nothing wrong in the cache" if error else "the files of one commit",
        rerun=RERUN[bool(error)],
    )
    if scene.tip(repo) != commit:
        del pushed[key]

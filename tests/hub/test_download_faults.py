"""Downloading while something goes wrong: one commit's files, whole, or an error and nothing wrong in the cache."""

import pytest
from case import on_paths
from download_cases import CASES
from scene import READER, damaged, same_files

ADVICE = {"HubUnavailable": "run the same command again", "DamagedFile": "Try again later"}
RERUN = {True: "downloads what is missing", False: "downloads nothing"}


@pytest.mark.parametrize(("path", "case"), **on_paths(CASES))
def test_a_fault_while_downloading(case, scene, table):
    folder, repo = scene.pushed(case.size)
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
    assert error or not scene.hub.log
    table.add(
        scene.path,
        call="download",
        step=case.step,
        fault=case.fault,
        outcome=error or "succeeds",
        state="nothing wrong in the cache" if error else "the files of one commit",
        rerun=RERUN[bool(error)],
    )
    scene.hub.change(repo, branches={"main": commit})

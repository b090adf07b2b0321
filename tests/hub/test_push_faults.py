"""Pushing while something goes wrong: no commit doubled or lost, nothing half-written, and the same call finishes."""

import pytest
from case import on_paths
from push_cases import AFTER_COMMIT, CASES
from scene import TOKEN

ADVICE = {"HubUnavailable": "run the same command again", "AccessDenied": "Pass a `token`"}
RERUN = {  # by whether the call failed and whether the commit was there
    (True, False): "one commit and its tag",
    (True, True): "adds the tag",
    (False, True): "changes nothing",
}


@pytest.mark.parametrize(("path", "case"), **on_paths(CASES))
def test_a_fault_while_pushing(case, scene, table):
    error = case.error_on(scene.path)
    is_pushed = error is None or case.step in AFTER_COMMIT
    folder, repo = scene.adapter(case.size), scene.repo_name()
    case.inject(scene.hub, scene.path)
    result = scene.client.call("push", str(folder), repo, tag="v1", token=TOKEN, policy=case.policy)
    assert not scene.hub.unused
    assert result.get("error") == error, result
    assert error is None or ADVICE[error] in result["message"]
    assert len(scene.commits(repo)) == is_pushed
    assert scene.is_clean(repo, folder)
    assert not scene.leaks(result)

    again = scene.push(folder, repo, tag="v1")
    assert scene.tip(repo) == again["value"]
    assert len(scene.commits(repo)) == case.n_commits
    assert scene.is_clean(repo, folder)
    assert scene.holds(repo, scene.repo(repo)["tags"]["v1"], folder)
    table.add(
        scene.path,
        call="push",
        step=case.step,
        fault=case.fault,
        outcome=error or "succeeds",
        state="one commit" if is_pushed else "tip not moved, nothing half-written",
        rerun=RERUN[bool(error), is_pushed] if case.n_commits == 1 else "puts our files on top again",
    )

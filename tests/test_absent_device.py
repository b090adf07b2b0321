"""Whole steps on an accelerator that is not there: everything is on it, and nothing makes the host wait for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absent_cases import CASES, WAITS
from absent_device import IS_THERE

pytestmark = pytest.mark.skipif(not IS_THERE, reason="this torch takes no device from Python")


@pytest.fixture(scope="module")
def waited():
    """Run all cases in a process of their own, which is changed for good."""
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("absent_cases.py")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("case", CASES)
def test_only_what_is_listed_makes_the_host_wait(case, waited):
    assert waited[case] == WAITS.get(case, [])


def test_every_listed_case_is_run():
    assert WAITS.keys() <= CASES.keys()

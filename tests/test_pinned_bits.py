"""Generated numbers, checkpoint names and configuration keys are those of the table, to the bit on its machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TABLE = json.loads((HERE / "pinned.json").read_text())


@pytest.fixture(scope="module")
def now():
    ended = subprocess.run([sys.executable, HERE / "pinned.py"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize("name", TABLE["found"])
def test_names_are_as_they_were(now, name):
    assert now["found"][name].get("keys") == TABLE["found"][name].get("keys")


@pytest.mark.parametrize("name", TABLE["found"])
def test_numbers_are_as_they_were(now, name):
    found, expected = now["found"][name], TABLE["found"][name]
    if now["machine"] == TABLE["machine"]:
        assert found == expected
        return
    for part in [part for part in expected if "numbers" in expected[part]]:  # other processors round otherwise
        for key, numbers in expected[part]["numbers"].items():
            assert found[part]["numbers"][key] == pytest.approx(numbers, rel=1e-3, abs=1e-4)

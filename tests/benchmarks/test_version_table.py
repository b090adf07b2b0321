"""The table of versions: its rows, how it counts, where it goes on, and what it says of a failure."""

import json

import pytest

from benchmarks.versions import checks, environment
from benchmarks.versions.rows import QUICK_ROWS, ROWS
from benchmarks.versions.table import COLUMNS, Table, failures

REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_one"/>
<testcase classname="tests.test_a" name="test_two"><skipped message="no GPU"/></testcase>
<testcase classname="tests.test_a" name="test_three">
<failure message="ValueError: no /one/folder/file&#10;at line 3"/></testcase>
</testsuite></testsuites>"""
RESULTS = {
    "demo": {"passed": True, "seconds": 9},
    "contract": {"passed": 3, "skipped": 0, "failed": {}, "seconds": 9},
    "core": {"passed": 1, "skipped": 1, "failed": {"tests.test_a::test_three": "ValueError: no ..."}, "seconds": 9},
}
ROW = {
    "set": "lowest",
    "python": 11,
    "pins": [],
    "commit": "c0ffee",
    "versions": dict.fromkeys(environment.LISTED, "1.0"),
}


@pytest.fixture
def table(tmp_path):
    return Table(tmp_path / "versions.json", tmp_path / "docs" / "versions.md")


def test_every_path_that_is_run_is_there():
    for path in (*checks.CORE, *checks.QUICK_CORE, checks.CONTRACT[-1]):
        assert (environment.ROOT / path).exists(), path


def test_rows_of_one_torch_stand_together():
    torches = [row.torch for row in ROWS]
    blocks = [torch for torch, before in zip(torches, [None, *torches], strict=False) if torch != before]
    assert len(blocks) == len(set(blocks))


def test_names_are_distinct():
    names = [row.name for row in (*ROWS, *QUICK_ROWS)]
    assert len(names) == len(set(names))


def test_counts_are_those_of_the_report(tmp_path):
    (tmp_path / "tests.xml").write_text(REPORT, encoding="utf-8")
    expected = {name: value for name, value in RESULTS["core"].items() if name != "seconds"}
    assert checks.counted(tmp_path / "tests.xml") == expected


def test_a_row_is_written_at_once_and_not_run_again_on_its_commit(table):
    table.add(ROW | {"results": RESULTS})
    again = Table(table.path, table.text)
    assert again.has("lowest", 11, commit="c0ffee")
    assert not again.has("lowest", 11, commit="another")
    assert not again.has("lowest", 12, commit="c0ffee")
    again.add(ROW | {"results": RESULTS, "commit": "another"})
    assert [row["commit"] for row in json.loads(table.path.read_text(encoding="utf-8"))] == ["another"]


def test_text_names_what_failed(table):
    table.add(ROW | {"results": RESULTS})
    table.add(ROW | {"python": 14, "unresolved": "no wheels"})
    text = table.text.read_text(encoding="utf-8")
    assert "| lowest | 3.11 | " in text
    assert "| passed | 3 passed | 1 passed, 1 failed, 1 skipped | " in text
    assert "- lowest, Python 3.11: tests.test_a::test_three: `ValueError: no ...`" in text
    assert "- lowest, Python 3.14: no wheels" in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {len(COLUMNS) + 1}


def test_a_run_that_did_not_end_is_a_failure():
    stopped = {"passed": 0, "seconds": 1, "printed": ["Traceback", "ImportError: no module"]}
    found = failures(ROW | {"results": RESULTS | {"core": stopped}})
    assert found == ["lowest, Python 3.11: core: `ImportError: no module`"]


def test_without_uv_it_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="Install it with `pip install uv`"):
        environment.uv("--version")


def test_what_is_resolved_is_what_setup_cfg_asks_for(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(environment, "uv", lambda *arguments: asked.append(arguments) or "")
    environment._resolved(ROWS[0], "python", tmp_path)
    lines = (tmp_path / "requirements.txt").read_text(encoding="utf-8").split()
    assert {line.partition(">=")[0] for line in lines} >= {"torch", "transformers", "peft", "numba", "matplotlib"}
    assert str(tmp_path / "requirements.txt") in asked[0]

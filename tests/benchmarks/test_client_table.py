"""The table of clients: what counts as working, where it goes on, and that page and record say the same."""

import ast
import json

import pytest

from benchmarks.clients import arms, rows
from benchmarks.clients.figures import Figure, difference, others
from benchmarks.clients.table import JSON, TEXT, Table, failures, listed, passed
from benchmarks.versions.environment import ROOT

WORKS = {"figures": [{"what": "logits", "value": 2e-7, "bound": 1e-5}, {"what": "tokens", "value": 0, "bound": 0}]}
ROW = {"client": "TRL", "commit": "c0ffee", "versions": {"trl": "1.0"}, "cases": {"SFT": {"LoRA": WORKS}}}
ORDER = ("TRL", "transformers")


@pytest.fixture
def table(tmp_path):
    return Table(tmp_path / "clients.json", tmp_path / "clients.md")


def module_of(client):
    return ROOT / "benchmarks" / "clients" / "tried" / f"{client.module}.py"


def test_page_is_that_of_the_record():
    assert TEXT.read_text(encoding="utf-8") == Table().as_text()


def test_every_client_that_can_be_tried_was():
    assert [row["client"] for row in Table().rows] == [client.name for client in rows.CLIENTS]


@pytest.mark.parametrize("client", rows.CLIENTS, ids=lambda client: client.name)
def test_record_has_each_case_and_arm(client):
    row = next(row for row in json.loads(JSON.read_text(encoding="utf-8")) if row["client"] == client.name)
    tree = ast.parse(module_of(client).read_text(encoding="utf-8"))  # the client itself is not installed here
    cases = next(n.value for n in tree.body if isinstance(n, ast.AnnAssign) and n.target.id == "CASES")
    assert list(row["cases"]) == [key.value for key in cases.keys]
    assert all(list(found) == [arm.name for arm in arms.ARMS] for found in row["cases"].values())


def test_names_are_distinct():
    names = [client.name for client in rows.CLIENTS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("value", [1e-4, float("nan")])
def test_what_is_too_far_apart_is_no_pass(value):
    assert not passed({"figures": [Figure("logits", value)._asdict()]})
    assert passed(WORKS)
    assert not passed({"error": "ValueError: no"})


def test_other_shapes_and_other_names_are_errors():
    import torch

    one = torch.ones(2)
    assert difference("logits", one, one).value == 0
    with pytest.raises(AssertionError, match=r"shapes \(2,\) and \(1, 2\) differ"):
        difference("logits", one, one[None])
    with pytest.raises(AssertionError, match="parameters: .*'a'.* are in one of the two alone"):
        difference("parameters", {}, {"a": one})
    assert not others("tokens", [1, 2], [1, 3]).is_met


def test_a_client_is_written_at_once_and_not_tried_again_on_its_commit(table):
    table.add(ROW | {"client": "transformers"})
    table.add(ROW)
    again = Table(table.path, table.text)
    assert again.has("TRL", commit="c0ffee")
    assert not again.has("TRL", commit="another")
    assert [row["client"] for row in again.rows] == list(ORDER)


def test_page_says_what_does_not_work(table):
    bad = {"LoRA": WORKS, "QPA": {"error": "ValueError: no"}, "QPA, gradient bases": {"figures": []}}
    bad["QPA, gradient bases"]["figures"] = [{"what": "logits", "value": 0.5, "bound": 1e-5}]
    row = ROW | {"cases": {"SFT": bad}}
    table.add(row)
    text = table.text.read_text(encoding="utf-8")
    assert "| TRL | SFT | 2e-07 | no | no |" in text
    assert "- TRL, SFT, QPA: `ValueError: no`" in text
    assert "- TRL, SFT, QPA, gradient bases: logits: 0.5, not at most 1e-05" in text
    assert failures(ROW | {"unresolved": "no wheels"}) == ["TRL: no wheels"]
    assert failures(ROW | {"printed": ["a", "Killed"]}) == ["TRL did not end: `Killed`"]


def test_versions_of_what_decides_are_told_once():
    assert listed(("transformers",)) == ("transformers", "torch", "peft")

"""The table of PEFT methods, written by the tests that try them."""

from pathlib import Path

import pytest

HEAD = """# PEFT methods with generated tensors

Written by `python -m pytest tests/networks/test_methods.py --method-table FILE`, on models of a few thousand numbers.
"Same bits" means: after random changes to the generator, what `materialize` wrote gave the same logits in a process
without qpa_hf, and was what PEFT itself saves for the same values; the generator, saved and loaded again, gave them as
well.

| method | numbers | trained numbers of the generator | |
|---|---|---|---|
"""


def pytest_addoption(parser):
    parser.addoption("--method-table", help="write what became of each PEFT method to this Markdown file")


@pytest.fixture(scope="session")
def table(request):
    """Rows by method, to be filled."""
    rows = {}
    yield rows
    path = request.config.getoption("--method-table", None)
    if path:
        lines = [f"| {method} | {' | '.join(map(str, rows[method]))} |" for method in sorted(rows)]
        Path(path).write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")

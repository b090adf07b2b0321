"""The notebooks of the examples run, and what is committed of them is what a reader wants to see."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
LARGEST = 100_000  # bytes
# Objects by their addresses, escapes of a terminal, colours and bars that were drawn over one another.
UNREADABLE = re.compile(r" at 0x[0-9a-f]{6}|\x1b|\r.")


def texts(notebook):
    """Return every text that a notebook's cells have put out."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return [output.text if output.output_type == "stream" else output.data.get("text/plain", "") for output in outputs]


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / ".ci" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.run


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, run):
    assert not [text for text in texts(run(path)) if UNREADABLE.search(text)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_those_of_one_run_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert path.stat().st_size < LARGEST
    assert not [text for text in texts(notebook) if UNREADABLE.search(text)]

"""Run the notebooks of the examples and keep what they put out: `python .ci/notebooks.py`, or with their names."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "notebooks"
# What libraries say of one another, and of bars that need widgets: nothing that a reader can act on.
QUIET = {"PYTHONWARNINGS": "ignore::FutureWarning,ignore:IProgress not found", "HF_HUB_OFFLINE": "1"}
SECONDS = 600  # of one cell, on a machine that does other things, too


def notebooks() -> list[Path]:
    """Return all notebooks, by name."""
    return sorted(FOLDER.glob("*.ipynb"))


def run(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a run in an empty folder; an error of a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=SECONDS, record_timing=False, resources=resources).execute(
            env=os.environ | QUIET
        )
    notebook.metadata.language_info = {"name": "python"}  # the version of Python would be a change without meaning
    return notebook


if __name__ == "__main__":
    for path in [FOLDER / f"{name}.ipynb" for name in sys.argv[1:]] or notebooks():
        print(path.name, flush=True)
        nbformat.write(run(path), path)

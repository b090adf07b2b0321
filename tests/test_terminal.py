"""Progress bars: gone from a terminal when they are done, one line of a notebook."""

import pytest
from rich.progress import track

from qpa_hf.terminal import bar_options


@pytest.mark.parametrize(("is_notebook", "n_lines"), [(True, 1), (False, 0)], ids=["notebook", "elsewhere"])
def test_what_a_bar_leaves(is_notebook, n_lines, monkeypatch, capsys):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: is_notebook)
    if is_notebook:
        monkeypatch.setenv("FORCE_COLOR", "1")  # as in the kernels of Jupyter
    for _ in track(range(3), "counting", **bar_options()):
        pass
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ["counting" in line for line in printed.err.splitlines() if line] == [True] * n_lines
    assert "\x1b" not in printed.err

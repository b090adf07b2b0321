"""What pictures show: the value before training, whole numbers, no name over another, no line by colour alone."""

import itertools
import math
from types import SimpleNamespace

import pytest

pytest.importorskip("matplotlib")
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from benchmarks.harness.labels import place_names
from qpa_hf import plots
from qpa_hf.training import TASKS


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    found = []
    monkeypatch.setattr(plots, "_saved", lambda figure, path: found.append(figure))
    return found


def test_losses_begin_before_training(drawn):
    started = {"task": TASKS["text"], "before": {"perplexity": 20.0}}
    finished = SimpleNamespace(losses=[(1, 2.0), (3, 1.5)], validation_losses=[(3, 1.75)], **started)
    with plots.in_style():
        plots._losses(finished, None)
    (figure,) = drawn
    training, validation = figure.axes[0].get_lines()
    assert list(validation.get_xdata()) == [0, 3]
    assert validation.get_ydata()[0] == pytest.approx(math.log(20))
    assert training.get_linestyle() != validation.get_linestyle()
    assert training.get_marker() != validation.get_marker()
    assert figure._supxlabel.get_text().startswith("Lower is better")


def test_whole_numbers_are_marked_alone():
    axes = Figure().subplots()
    axes.plot([4, 6], [0, 1])
    plots.whole_numbers(axes.xaxis)
    assert [tick for tick in axes.get_xticks() if tick != round(tick)] == []


@pytest.mark.parametrize("ends", [(40, 65), (300, 300_000)])
def test_numbers_of_logarithmic_axes_do_not_cover_each_other(ends):
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    axes.plot(ends, ends)
    axes.set_xscale("log")
    plots.plain_numbers(axes.xaxis)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    labels = [
        label for label in axes.get_xticklabels() if ends[0] <= float(label.get_text().replace(",", "")) <= ends[1]
    ]
    assert len(labels) > 2
    boxes = [label.get_window_extent(canvas.get_renderer()) for label in labels]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_no_name_covers_another_or_a_mark():
    axes = Figure(figsize=(8, 6)).subplots()
    points = [(x / 7, (x * 5 % 11) / 11) for x in range(8)] + [(0.5, 0.5), (0.501, 0.502), (0.499, 0.5), (0.5, 0.51)]
    axes.set(xlim=(-0.2, 1.2), ylim=(-0.2, 1.2))
    place_names(axes, [(f"name of {i}", point) for i, point in enumerate(points)], points, size=7)
    renderer = FigureCanvasAgg(axes.figure).get_renderer()
    names = [text for text in axes.texts if isinstance(text, Annotation)]
    assert len(names) == len(points)
    for name in names:
        name.update_positions(renderer)
    boxes = [Text.get_window_extent(name, renderer) for name in names]  # without the line that leads to a point
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert not any(box.contains(*axes.transData.transform(point)) for box in boxes for point in points)

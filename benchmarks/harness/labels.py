"""Names beside the points of a picture, none over another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Point = tuple[float, float]

GAP = 4  # points between a mark and its name
RINGS = (1, 3, 5, 8, 11)  # how far from its point a name may go, in gaps; from the third on a line leads to it


def place_names(axes: Any, named: Sequence[tuple[str, Point]], marks: Sequence[Point], size: float) -> None:
    """Write a name beside each point, at the nearest place where it covers no mark and no other name.

    The axes' limits must be those that they will have.

    Args:
        axes: of the picture, which is drawn on once to learn where things stand.
        named: each name and its point, in the axes' data.
        marks: all points that a mark is drawn at.
        size: of the letters, in points.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    canvas = FigureCanvasAgg(axes.figure)
    axes.figure.draw_without_rendering()
    scale = axes.figure.dpi / 72  # pixels a point
    taken = [Bbox.from_bounds(x - 3 * scale, y - 3 * scale, 6 * scale, 6 * scale) for x, y in _pixels(axes, marks)]
    style = {"textcoords": "offset points", "fontsize": size, "va": "bottom", "annotation_clip": True}
    for name, point in named:
        text = axes.annotate(name, point, (0, 0), **style)
        box = text.get_window_extent(canvas.get_renderer())
        ((x, y),) = _pixels(axes, [point])
        fit, ring = _free(box.width / scale, box.height / scale, (x / scale, y / scale), taken, axes.bbox, scale)
        text.remove()
        line = {"arrowstyle": "-", "linewidth": 0.4, "color": "gray", "shrinkA": 0, "shrinkB": 2}
        axes.annotate(name, point, fit, arrowprops=line if ring > 3 else None, **style).set_in_layout(False)
        left, low = x + fit[0] * scale, y + fit[1] * scale
        taken.append(Bbox.from_bounds(left, low, box.width, box.height))


def _pixels(axes: Any, points: Sequence[Point]) -> Any:
    return axes.transData.transform(points) if points else []


def _free(
    width: float, height: float, point: Point, taken: Sequence[Any], inside: Any, scale: float
) -> tuple[Point, int]:
    """Return how far from its point a name's lower left corner may stand, in points, and in which ring that is."""
    from matplotlib.transforms import Bbox

    for ring in RINGS:
        gap = ring * GAP
        rows = (gap / 4, -height / 2, -gap / 2 - height, gap, -gap - height)
        places = [(side, row) for row in rows for side in (gap, -gap - width)]
        for place in [*places, (-width / 2, gap), (-width / 2, -gap - height)]:
            x, y = ((start + step) * scale for start, step in zip(point, place, strict=True))
            box = Bbox.from_bounds(x, y, width * scale, height * scale)
            is_inside = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if is_inside and not box.count_overlaps(taken):
                return place, ring
    return (GAP, GAP), 1

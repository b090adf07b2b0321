"""Pictures of a run and of a comparison, where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from qpa_hf.circuit import find_ansatz
from qpa_hf.comparison.arms import OWN
from qpa_hf.comparison.result import Comparison
from qpa_hf.files import replacing
from qpa_hf.models import bank_of
from qpa_hf.training.run import Finished

STYLE = Path(__file__).with_name("pictures.mplstyle")
# By name, as the style has them: for what is told apart by its kind and not by its turn.
PALETTE = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "gray": "#767676",
}
MOST_LINES = 7  # more layers than these are drawn without a name: the style has as many kinds of lines


def is_available() -> bool:
    """Whether matplotlib is installed (`pip install 'qpa-hf[plots]'`)."""
    return importlib.util.find_spec("matplotlib") is not None


@contextmanager
def in_style() -> Iterator[None]:
    """Draw in the package's style within this block; around a function, it is a decorator."""
    from matplotlib import style

    with style.context(STYLE):
        yield


def _figure(caption: str) -> tuple[Any, Any]:
    """Return a picture with one pair of axes, above a sentence of what to see in it."""
    from matplotlib.figure import Figure

    figure = Figure()
    figure.supxlabel(caption, fontsize="small", x=0.01, ha="left")
    return figure, figure.subplots()


def _saved(figure: Any, path: Path) -> Path:
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix[1:])
    return path


def of_run(finished: Finished, folder: Path) -> list[Path]:
    """Write loss.png, probabilities.png and singular_values.png; return what was written, none without matplotlib."""
    if not is_available():
        return []
    model: Any = finished.model
    generator = bank_of(model).generator
    with torch.no_grad(), in_style():
        written = [_losses(finished, folder / "loss.png")]
        if generator.spec.has_circuit:
            p, is_real = generator.circuit_probabilities(), find_ansatz(generator.spec.ansatz).is_real
            written.append(_probabilities(p, is_real, folder / "probabilities.png"))
        written.append(_singular_values(model, folder / "singular_values.png"))
    return written


def _losses(finished: Finished, path: Path) -> Path:
    caption = "Lower is better; a validation loss that rises again while the training loss falls is overfitting."
    figure, axes = _figure(caption)
    at_start = finished.task.loss_of(finished.before)
    before = [(0, at_start)] if math.isfinite(at_start) else []
    curves = {"training": finished.losses, "validation": before + finished.validation_losses}
    for label, points in curves.items():
        if points:
            axes.plot(*zip(*points, strict=True), label=label)
    for step, loss in before:
        axes.annotate(
            "before training", (step, loss), (6, 0), textcoords="offset points", fontsize="small", va="center"
        )
    axes.set(xlabel="training step", ylabel="loss (nats)", title="Loss")
    whole_numbers(axes.xaxis)
    axes.legend()
    return _saved(figure, path)


def _probabilities(p: Tensor, is_real: bool, path: Path) -> Path:
    """Histogram of 2^N p over basis states, p: (n_circuits, 2**n_qubits), beside the law of random states.

    Porter and Thomas: chi-squared with one degree of freedom for real amplitudes, exponential for complex ones.
    """
    caption = (
        "Each input of the mapping model is such a probability. Near the line, circuits are as spread out as random\n"
        "states; mass at the far left and right: few basis states carry nearly all of it, and most rows see none."
    )
    figure, axes = _figure(caption)
    scaled = (p * p.shape[1]).flatten().cpu().numpy()
    axes.hist(scaled, bins=60, density=True, log=True, label=f"{len(p)} circuits, {p.shape[1]:,} basis states each")
    x = torch.linspace(0.01, float(scaled.max()), 400)
    law = torch.exp(-x / 2) / torch.sqrt(2 * torch.pi * x) if is_real else torch.exp(-x)
    kind = "real" if is_real else "complex"
    axes.plot(x, law, color="black", linestyle="--", marker="", label=f"random {kind} states (Porter and Thomas)")
    axes.set(
        xlabel="probability times number of basis states", ylabel="density", title="Probabilities of the circuits"
    )
    axes.set_ylim(bottom=1e-4)
    axes.legend()
    return _saved(figure, path)


def _singular_values(model: Any, path: Path) -> Path:
    """Singular values of each layer's weight change, from two small triangular factors instead of the product."""
    caption = "How many directions of a layer the adapter changes: after a steep fall, a smaller rank would do."
    figure, axes = _figure(caption)
    layers: dict[str, Any] = {
        name: m for name, m in model.named_modules() if isinstance(m, LoraLayer) and "default" in m.lora_A
    }
    for name, layer in layers.items():
        a, b = layer.lora_A["default"].weight.flatten(1), layer.lora_B["default"].weight.flatten(1)
        product = torch.linalg.qr(b).R @ torch.linalg.qr(a.t()).R.t()
        values = layer.scaling["default"] * torch.linalg.svdvals(product)
        label = name.removeprefix("base_model.model.") if len(layers) <= MOST_LINES else None
        axes.plot(range(1, len(values) + 1), values.cpu(), label=label)
    if layers and len(layers) <= MOST_LINES:
        axes.legend()
    whole_numbers(axes.xaxis)
    title = f"Singular values of the weight change ({len(layers)} layers)"
    axes.set(xlabel="index", ylabel="singular value", yscale="log", title=title)
    return _saved(figure, path)


def of_comparison(result: Comparison, folder: Path) -> Path | None:
    """Write comparison.png, quality against trained parameters; return None without matplotlib."""
    if not is_available() or not result.rows:
        return None
    path = folder / "comparison.png"
    with in_style():
        return _comparison(result, path)


def _comparison(result: Comparison, path: Path) -> Path:
    metric = result.metric
    better, way = ("lower", "down") if metric.is_lower_better else ("higher", "up")
    caption = f"Further {way} and further left is better. Stars: QPA. Bars: standard deviation over seeds."
    figure, axes = _figure(caption)
    markers = itertools.cycle("os^vD<>Pp")  # not as many as colours, so that no two arms look alike
    for row, other in zip(result.rows, markers, strict=False):
        marker, size = ("*", 12) if row.arm in OWN else (other, 7)
        axes.errorbar(
            row.n_trainable, row.mean, yerr=row.spread, marker=marker, markersize=size, linestyle="none", label=row.arm
        )
    axes.set(
        xlabel="trained parameters",
        ylabel=f"{metric.name} on the validation examples ({better} is better)",
        xscale="log",
        yscale="log" if metric.is_lower_better else "linear",
        title="Quality against trained parameters",
    )
    plain_numbers(axes.xaxis, axes.yaxis)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return _saved(figure, path)


def whole_numbers(axis: Any) -> None:
    """Mark whole numbers alone: there is no half qubit, and no half step."""
    axis.get_major_locator().set_params(integer=True)


def plain_numbers(*axes: Any) -> None:
    """Write the numbers of logarithmic axes as they are read, 20,000 and not 2 x 10^4, and none over another."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

    for axis in axes:
        low, high = axis.get_view_interval()
        subs = (1, 2, 5) if high < 100 * low else (1, 3)
        axis.set_major_locator(LogLocator(subs=subs) if high > 10 * low else MaxNLocator(5))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))

"""Pictures of a run and of a comparison, where matplotlib is installed."""

from __future__ import annotations

import importlib.util
import itertools
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

MOST_LINES = 8  # more layers than these are drawn without a name


def is_available() -> bool:
    """Whether matplotlib is installed (`pip install 'qpa-hf[plots]'`)."""
    return importlib.util.find_spec("matplotlib") is not None


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    return figure, figure.subplots()


def _saved(figure: Any, path: Path) -> Path:
    with replacing(path) as partial:
        figure.savefig(partial, dpi=150, format=path.suffix[1:])
    return path


def of_run(finished: Finished, folder: Path) -> list[Path]:
    """Write loss.png, probabilities.png and singular_values.png; return what was written, none without matplotlib."""
    if not is_available():
        return []
    model: Any = finished.model
    generator = bank_of(model).generator
    written = [_losses(finished, folder / "loss.png")]
    with torch.no_grad():
        if generator.spec.has_circuit:
            p, is_real = generator.circuit_probabilities(), find_ansatz(generator.spec.ansatz).is_real
            written.append(_probabilities(p, is_real, folder / "probabilities.png"))
        written.append(_singular_values(model, folder / "singular_values.png"))
    return written


def _losses(finished: Finished, path: Path) -> Path:
    figure, axes = _figure()
    curves = {"training": finished.losses, "validation": finished.validation_losses}
    for label, points in curves.items():
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=label)
    axes.set(xlabel="training step", ylabel="loss (nats)", title="Loss")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return _saved(figure, path)


def _probabilities(p: Tensor, is_real: bool, path: Path) -> Path:
    """Histogram of 2^N p over basis states, p: (n_circuits, 2**n_qubits), beside the law of random states.

    Porter and Thomas: chi-squared with one degree of freedom for real amplitudes, exponential for complex ones.
    """
    figure, axes = _figure()
    scaled = (p * p.shape[1]).flatten().cpu().numpy()
    axes.hist(scaled, bins=60, density=True, log=True, label=f"{len(p)} circuits, {p.shape[1]:,} basis states each")
    x = torch.linspace(0.01, float(scaled.max()), 400)
    law = torch.exp(-x / 2) / torch.sqrt(2 * torch.pi * x) if is_real else torch.exp(-x)
    axes.plot(x, law, color="black", label=f"random {'real' if is_real else 'complex'} states")
    axes.set(
        xlabel="probability times number of basis states", ylabel="density", title="Probabilities of the circuits"
    )
    axes.set_ylim(bottom=1e-4)
    axes.legend()
    return _saved(figure, path)


def _singular_values(model: Any, path: Path) -> Path:
    """Singular values of each layer's weight change, from two small triangular factors instead of the product."""
    figure, axes = _figure()
    layers: dict[str, Any] = {
        name: m for name, m in model.named_modules() if isinstance(m, LoraLayer) and "default" in m.lora_A
    }
    for name, layer in layers.items():
        a, b = layer.lora_A["default"].weight.flatten(1), layer.lora_B["default"].weight.flatten(1)
        product = torch.linalg.qr(b).R @ torch.linalg.qr(a.t()).R.t()
        values = layer.scaling["default"] * torch.linalg.svdvals(product)
        label = name.removeprefix("base_model.model.") if len(layers) <= MOST_LINES else None
        axes.plot(range(1, len(values) + 1), values.cpu(), marker="o", label=label, alpha=0.7)
    if layers and len(layers) <= MOST_LINES:
        axes.legend(fontsize="small")
    title = f"Singular values of the weight change ({len(layers)} layers)"
    axes.set(xlabel="index", ylabel="singular value", yscale="log", title=title)
    return _saved(figure, path)


def of_comparison(result: Comparison, folder: Path) -> Path | None:
    """Write comparison.png, quality against trainable numbers; return None without matplotlib."""
    if not is_available() or not result.rows:
        return None
    metric = result.metric
    figure, axes = _figure()
    markers = itertools.cycle("os^vD<>Pp")  # not as many as colours, so that no two arms look alike
    for row, other in zip(result.rows, markers, strict=False):
        marker, size = ("*", 12) if row.arm in OWN else (other, 7)
        axes.errorbar(
            row.n_trainable, row.mean, yerr=row.spread, marker=marker, markersize=size, linestyle="none", label=row.arm
        )
    better = "lower" if metric.is_lower_better else "higher"
    axes.set(
        xlabel="trainable numbers",
        ylabel=f"{metric.name} on the validation examples ({better} is better)",
        xscale="log",
        yscale="log" if metric.is_lower_better else "linear",
        title="Quality against trainable numbers",
    )
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    path = folder / "comparison.png"
    return _saved(figure, path)

"""`optimize_angles`: SciPy's optimizers without gradients for the circuits' angles."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.optimize import minimize
from torch import nn

from qpa_hf.checkpoint import write_text
from qpa_hf.generator import RECORDED, Generator
from qpa_hf.messages import whole_number
from qpa_hf.models import bank_of, evaluating, unwrapped
from qpa_hf.processes import is_one_of_several
from qpa_hf.schema import fits, parse_object
from qpa_hf.terminal import bar_options
from qpa_hf.tuners.qpa import QPAConfig

Loss = Callable[[nn.Module], float]

# SciPy's name of a method: its options, from the start, the first step and the number of evaluations.
METHODS: dict[str, Callable[[np.ndarray, float, int], dict[str, Any]]] = {
    "COBYLA": lambda x, step, n: {"rhobeg": step, "maxiter": n},
    "Nelder-Mead": lambda x, step, n: {
        "initial_simplex": np.vstack([x, x + step * np.eye(len(x))]),
        "adaptive": True,  # its coefficients depend on the number of angles: with the usual ones many angles stall
        "maxfev": n,
        "maxiter": n,
    },
}


@dataclass(frozen=True)
class Optimized:
    """What an optimization has found.

    Args:
        loss: the smallest one; the model has the angles that gave it.
        first_loss: at the start.
        n_evaluations: of the loss, those of an earlier, interrupted call included.
        is_converged: whether the method ended by itself, before its evaluations were used up.
    """

    loss: float
    first_loss: float
    n_evaluations: int
    is_converged: bool


def optimize_angles(
    model: nn.Module,
    loss: Loss,
    method: str = "COBYLA",
    max_evaluations: int = 1000,
    step: float = 0.3,
    adapter_name: str = "default",
    state: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Optimized:
    """Minimize a loss over the circuits' angles without gradients, as on a device that has none.

    All angles of all circuits move; the mapping model does not. The loss is computed in evaluation mode and with the
    one recorded draw of shots, so that it is a function of the angles alone. Whatever ends the call (Ctrl-C and errors
    of the loss included), the model keeps the best angles so far.

    Args:
        model: a `PeftModel` with a QPA adapter.
        loss: takes the model and returns a number, such as the mean loss over some batches.
        method: a key of `METHODS`.
        max_evaluations: of the loss, at the most; both methods begin with one for each angle.
        step: the first steps, in radians.
        adapter_name: which adapter of the model.
        state: a file to which every evaluation is added. If it is there already, its evaluations are not done again,
            and the call ends where one call without the interruption would have: same start, same path.
        progress: whether to show a bar on standard error.

    Raises:
        TypeError: if `model` is no PEFT model with a QPA adapter of that name.
        ValueError: for an unknown method, too few evaluations, a step that is not above 0, a control without circuits
            or with frozen ones, a mapping model that gives only zeros, a `state` that is something else or damaged,
            or a loss that is not finite.
        RuntimeError: if several processes train together.

    Example:
        >>> from peft import get_peft_model
        >>> _ = torch.manual_seed(0)
        >>> config = QPAConfig(r=2, target_modules=["0"], n_circuits=1, circuit_depth=1, chunk_size=8, start="authors")
        >>> model = get_peft_model(nn.Sequential(nn.Linear(16, 16)), config)
        >>> x = torch.randn(8, 16)
        >>> def loss(model):
        ...     return model(x).square().mean().item()
        >>> found = optimize_angles(model, loss, max_evaluations=20, progress=False)
        >>> found.loss <= loss(model) + 1e-6
        True
    """
    generator = generator_to_optimize(model, method, max_evaluations, step, adapter_name)
    _check_moving(generator)
    evaluations = _Evaluations(generator, Path(state) if state is not None else None, f"{method} {step}")
    x = evaluations.start
    with evaluating(model), torch.no_grad(), _bar(progress, method, max_evaluations) as show:

        def value(x: np.ndarray) -> float:
            found = evaluations.value(x, lambda: loss(model))
            show(evaluations)
            return found

        try:
            result = minimize(value, x, method=method, options=METHODS[method](x, step, max_evaluations))
        finally:
            evaluations.keep_best()
    is_converged = bool(result.success)
    return Optimized(evaluations.best, evaluations.losses[0], evaluations.n_done, is_converged)


def generator_to_optimize(
    model: nn.Module, method: str, max_evaluations: int, step: float, adapter_name: str
) -> Generator:
    """Return the generator whose angles `optimize_angles` would move, or raise what that would raise at once."""
    if method not in METHODS:
        raise ValueError(f"`method`={method!r} is not known. Choose one of {', '.join(map(repr, METHODS))}.")
    generator = _generator(model, adapter_name)
    n_angles = generator.angles.numel()
    if whole_number("max_evaluations", max_evaluations) < n_angles + 2:
        raise ValueError(
            f"`max_evaluations`={max_evaluations} is too small: {method} needs at least {n_angles + 2} for "
            f"{n_angles} angles. Set more, or use fewer circuits or layers."
        )
    if not (math.isfinite(step) and step > 0):
        raise ValueError(f"`step`={step!r} is not allowed. Set it to a finite number above 0.")
    return generator


def _generator(model: nn.Module, adapter_name: str) -> Generator:
    if is_one_of_several():
        raise RuntimeError(
            "Optimizing without gradients runs in one process, because each process would follow its own losses. "
            "Start one process."
        )
    peft_model: Any = unwrapped(model)
    if not isinstance(getattr(peft_model, "peft_config", {}).get(adapter_name), QPAConfig):
        raise TypeError(
            f"The model has no QPA adapter {adapter_name!r}. Pass the model that `get_peft_model` returned."
        )
    generator = bank_of(peft_model, adapter_name).generator
    if not generator.spec.has_circuit:
        raise ValueError(f"An adapter with source={generator.spec.source!r} has no angles. Use source='circuit'.")
    if not generator.spec.train_circuit:
        raise ValueError(
            "The adapter's angles are frozen (train_circuit=False). Make it with gradient='none' instead, and nothing "
            "but this function moves them."
        )
    return generator


def _check_moving(generator: Generator) -> None:
    output_weight = generator.get_parameter(f"w{len(generator.spec.layer_shapes) - 1}")
    if not bool(output_weight.any()):
        raise ValueError(
            "The weight of the mapping model's output layer is all zero, as before training, so that no angle changes "
            "the loss. Train the mapping model first, with gradient='none', or use start='authors'."
        )


class _Evaluations:
    """The losses so far, in memory and in a file: one line for what was optimized, then one for each loss.

    Both methods are deterministic, so the losses alone lead them along the same path again.
    """

    def __init__(self, generator: Generator, path: Path | None, how: str) -> None:
        self._generator = generator
        self._path = path
        self.start = generator.angles.detach().cpu().double().numpy().flatten()
        self.losses: list[float] = []  # those of the file first
        self.n_done = 0  # evaluations of this call
        self.best = math.inf
        self._best_angles = self.start
        self._open({"optimizing": how, "generator": _digest(generator), "start": self.start.tolist()})

    def _open(self, header: dict[str, Any]) -> None:
        if self._path is None:
            return
        found, losses = _recorded(self._path) or (header, [])
        is_same = (found | {"start": None}) == (header | {"start": None})
        if is_same and len(found["start"]) == len(header["start"]):  # an interrupted call leaves better angles
            header, self.losses = found, losses
            self.start = self._best_angles = np.array(found["start"])
        else:
            warnings.warn(f"{self._path} is of another optimization and is replaced.", stacklevel=4)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Anew, without a last line that an interruption cut off.
        write_text(self._path, "\n".join([json.dumps(header), *map(repr, self.losses)]) + "\n")

    def value(self, x: np.ndarray, loss: Callable[[], float]) -> float:
        """Return the loss at `x`, from the file if it is there."""
        if self.n_done < len(self.losses):
            found = self.losses[self.n_done]
        else:
            self._set(x)
            found = float(loss())
            if not math.isfinite(found):
                raise ValueError(f"The loss is {found} at evaluation {self.n_done + 1}; it must be finite.")
            self.losses.append(found)
            if self._path is not None:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(f"{found!r}\n")
        self.n_done += 1
        if found < self.best:
            self.best, self._best_angles = found, x.copy()
        return found

    def _set(self, x: np.ndarray) -> None:
        angles = self._generator.angles
        with torch.no_grad():
            angles.copy_(torch.from_numpy(x).view(angles.shape))

    def keep_best(self) -> None:
        """Give the generator the best angles so far."""
        self._set(self._best_angles)


def _recorded(path: Path) -> tuple[dict[str, Any], list[float]] | None:
    """Return the first line and the losses of an earlier call, or None if there is no file.

    Raises:
        ValueError: if there is something else, which would be lost.
    """
    if not path.exists():
        return None
    try:
        first, *rest = path.read_text(encoding="utf-8").split("\n")
        header, losses = parse_object(first, str(path)), [float(line) for line in rest[:-1]]
    except (OSError, ValueError):
        header = {}
    if not {"optimizing", "generator", "start"} <= header.keys() or not fits(header["start"], list[float]):
        raise ValueError(
            f"`state`={str(path)!r} is damaged, or no file that `optimize_angles` wrote, and stays as it is. Name "
            "another file, or remove this one."
        )
    return header, losses


def _digest(generator: Generator) -> str:
    """Identify everything that is not optimized but decides the loss: the mapping model, the draw, the sizes."""
    # A limit that is raised changes no loss, and neither does another folder.
    spec = replace(generator.spec, device_folder="", max_jobs=None, max_shots=None)
    digest = hashlib.sha256(repr(spec).encode())
    numbers = [*generator.named_parameters(recurse=False), *generator.named_buffers(recurse=False)]
    for name, tensor in sorted(numbers, key=lambda item: item[0]):
        if name not in ("angles", *RECORDED):
            digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _bar(is_shown: bool, method: str, total: int) -> Iterator[Callable[[_Evaluations], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not is_shown, **bar_options()) as bar:
        task = bar.add_task(method, total=total)
        yield lambda done: bar.update(task, completed=done.n_done, description=f"{method}, loss {done.best:.4f}")

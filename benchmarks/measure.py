"""What the benchmarks measure: time by taking turns, paired ratios, peak memory in a fresh process, operations."""

from __future__ import annotations

import multiprocessing
import random
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from scipy.stats import bootstrap
from torch.utils._python_dispatch import TorchDispatchMode

Run = Callable[[], Any]
Times = dict[str, list[float]]  # milliseconds, one number a round

SEED = 0
TURN_SECONDS = 0.02  # calls faster than this are repeated within a turn
CALLS = {"cpu": (1, 5), "cuda": (5, 100)}  # of a turn, at least and at most; a GPU's queue must not run empty
MIN_ROUNDS = 3  # what a budget leaves at least
RESAMPLES = 9999
SET_ASIDE = {f"aten::{name}" for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")}
TOLERANCE = 1e-3  # the same computation, not the same bits


def _milliseconds(run: Run, n_calls: int, device: str) -> list[float]:
    """Time calls one by one; on a GPU all between two events, so that the host waits for it only outside."""
    if device == "cpu":
        times = []
        for _ in range(n_calls):
            start = time.perf_counter()
            run()
            times.append((time.perf_counter() - start) * 1e3)
        return times
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    for _ in range(n_calls):
        run()
    last.record()
    torch.cuda.synchronize()
    return [first.elapsed_time(last) / n_calls]


def take_turns(
    runs: Mapping[str, Run],
    n_rounds: int,
    device: str = "cpu",
    budget: float = float("inf"),
    least: int | None = None,
) -> Times:
    """Time all arms in one process, each once a round, in an order drawn anew for every round.

    A change of the machine's load then meets all alike, and none always follows the same other. A fast call is
    repeated within its turn, after one untimed call that brings its data back into the caches; the turn's median
    counts.

    Args:
        runs: what to call, by the arm's name.
        n_rounds: rounds to time; every arm has run twice before the first.
        device: "cpu" or "cuda".
        budget: seconds; where they will not do, there are fewer rounds, but at least `MIN_ROUNDS`.
        least: timed calls of a turn, if more than `CALLS` says: for slow calls that follow themselves in use, and that
            another arm's large memory would otherwise slow down.

    Returns:
        Milliseconds of one call, a number for each round.
    """
    rng = random.Random(SEED)
    for run in runs.values():
        run()
    seconds = {name: _milliseconds(run, 1, device)[0] / 1e3 for name, run in runs.items()}
    fewest, most = CALLS[device]
    n_calls = {name: min(most, max(least or fewest, int(TURN_SECONDS / taken))) for name, taken in seconds.items()}
    round_seconds = sum(seconds[name] * (n + (n > 1)) for name, n in n_calls.items())
    if n_rounds * round_seconds > budget:
        n_rounds = min(n_rounds, max(MIN_ROUNDS, int(budget / round_seconds)))
    times: Times = {name: [] for name in runs}
    for _ in range(n_rounds):
        for name in rng.sample(list(runs), len(runs)):
            if n_calls[name] > 1:
                runs[name]()
            times[name].append(statistics.median(_milliseconds(runs[name], n_calls[name], device)))
    return times


def medians(times: Times) -> dict[str, float]:
    """Return each arm's median time of a call in milliseconds."""
    return {name: round(statistics.median(taken), 4) for name, taken in times.items()}


def paired_ratio(times: Sequence[float], reference: Sequence[float]) -> dict[str, float]:
    """Return the median over the rounds of times / reference, and its 95 % bootstrap interval."""
    ratios = np.divide(times, reference)
    low = high = float(np.median(ratios))
    if len(ratios) > 1:
        found = bootstrap((ratios,), np.median, n_resamples=RESAMPLES, method="percentile", rng=SEED)
        low, high = (float(bound) for bound in found.confidence_interval)
    return {"ratio": round(float(np.median(ratios)), 4), "low": round(low, 4), "high": round(high, 4)}


def disagreement(found: Any, expected: Any) -> float:
    """Return the largest difference relative to the largest expected entry; `TOLERANCE` is allowed."""
    a, b = (torch.as_tensor(x).detach().cpu().double().flatten() for x in (found, expected))
    return float((a - b).abs().max() / b.abs().max())


def check_agreement(name: str, found: Any, expected: Any) -> None:
    """Refuse to compare the times of two different computations."""
    gap = disagreement(found, expected)
    if not gap <= TOLERANCE:
        raise RuntimeError(f"{name} computes something else than ours: the largest difference is {gap:.2g}.")


def free_bytes(device: str) -> int:
    """Return the memory that a process can still take."""
    return int(psutil.virtual_memory().available if device == "cpu" else torch.cuda.mem_get_info()[0])


def _status_bytes(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}; peak memory is measured on Linux only.")
    return int(found[1]) * 1024


def peak_bytes(run: Run, device: str = "cpu") -> int:
    """Return by how much memory grew, at its peak, while `run` ran; only in a fresh process does it mean anything.

    On a CPU the kernel's own high-water mark is set back before the call. `getrusage` will not do: after a fork it
    starts from the parent's peak.
    """
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status_bytes("VmRSS")
    run()
    return _status_bytes("VmHWM") - before


def _one_thread(function: Callable[..., Any], *args: Any) -> Any:
    torch.set_num_threads(1)
    return function(*args)


def in_fresh_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call an importable function in a process of its own and return its result, or None if the process was killed.

    The process is forked from a server that has imported its module and run nothing, and is thrown away afterwards.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_one_thread, function, *args).result()
        except (BrokenProcessPool, MemoryError):
            return None


class _CountOperations(TorchDispatchMode):
    """Counts operations that do work: views cost nothing on a device, nor does memory that is only set aside."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_free = func.is_view or func is torch.ops.aten._unsafe_view.default or func._schema.name in SET_ASIDE
        self.n += not is_free
        return func(*args, **(kwargs or {}))


def n_operations(run: Run, device: str = "cpu") -> int:
    """Return how many kernels a call launches on a GPU; on a CPU, how many torch operations that are not views."""
    if device == "cpu":
        with _CountOperations() as count:
            run()
        return count.n
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        torch.cuda.synchronize()
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())

"""A job of a device: what tells it from others, its size, and whether counts are its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from torch import Tensor

from qpa_hf.circuit.ansatz import ansatz_label


@dataclass(frozen=True)
class JobSize:
    """The circuits of a job, the basis states of each, and the shots of each."""

    n_circuits: int
    n_states: int
    shots: int


def job_key(angles: Tensor, ansatz: str, shots: int, device: str, seed: int) -> str:
    """Return what tells a job from all others: the same circuits, shots, device and seed give the same key."""
    what = {
        "ansatz": ansatz_label(ansatz),
        "shape": list(angles.shape),
        "shots": shots,
        "device": device,
        "seed": seed,
    }
    content = json.dumps(what, sort_keys=True).encode() + angles.detach().double().cpu().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def is_whole(counts: Tensor, size: JobSize) -> bool:
    """Whether counts have a job's shape, and every shot of every circuit is counted once."""
    is_shaped = tuple(counts.shape) == (size.n_circuits, size.n_states)
    return is_shaped and bool((counts >= 0).all() and (counts.sum(-1) == size.shots).all())

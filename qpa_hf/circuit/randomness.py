"""Seeded random generators."""

from __future__ import annotations

import hashlib

import torch


def seeded(seed: int, purpose: str) -> torch.Generator:
    """Return a CPU random generator of its own for each purpose, so that one draw never shifts another."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))

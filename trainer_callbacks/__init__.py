"""Callbacks for transformers' Trainer."""

from qpa_hf.trainer_callbacks.materialize import MaterializeCallback

__all__ = ["MaterializeCallback"]

"""Callbacks for transformers' Trainer."""

from qpa_hf.trainer_callbacks.angles import OptimizeAnglesCallback
from qpa_hf.trainer_callbacks.bases import GradientBasisCallback
from qpa_hf.trainer_callbacks.materialize import BEST_NAME, MaterializeCallback
from qpa_hf.trainer_callbacks.metrics import CircuitMetricsCallback
from qpa_hf.trainer_callbacks.push import PushMaterializedCallback

__all__ = [
    "BEST_NAME",
    "CircuitMetricsCallback",
    "GradientBasisCallback",
    "MaterializeCallback",
    "OptimizeAnglesCallback",
    "PushMaterializedCallback",
]

"""What a configuration costs, before any weight is loaded: qubits, counts, memory, checkpoint sizes, jobs."""

from qpa_hf.plan.costs import plan
from qpa_hf.plan.rows import Plan, PlanRow

__all__ = ["Plan", "PlanRow", "plan"]

"""A setting of the study: how many qubits, and how the circuits are measured; everything else stays the same."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.quality.task import Targets
from qpa_hf import QPAConfig

# Cores of so large a rank are about as many numbers as the paper generates (204,100 on GPT-2); as in its Fig. 4 the
# smallest circuits then stand beside the largest mapping model.
RANK = 128
N_CIRCUITS, DEPTH = 4, 8  # the bench's number of circuits at the paper's depth, where a device's noise matters


@dataclass(frozen=True)
class Setting:
    """One way to measure the circuits of one width.

    Args:
        n_qubits: of each circuit; the chunk follows from it, as in the paper's Fig. 4.
        shots: as `QPAConfig` takes them; None for exact probabilities.
        gradient: a key of `qpa_hf.measurement.ESTIMATORS`.
        ansatz: a key of `qpa_hf.circuit.ANSATZE`.
        noise: the device whose noise is simulated.
        interpolation: a key of `qpa_hf.generator.INTERPOLATIONS`.
    """

    n_qubits: int
    shots: str | None = None
    gradient: str = "exact"
    ansatz: str = "ry_cnot"
    noise: str | None = None
    interpolation: str = "none"

    @property
    def name(self) -> str:
        """What tells it from all others."""
        shots = f"{self.shots} shots, {self.gradient} gradient" if self.shots else "exact"
        return f"N = {self.n_qubits}, {self.ansatz}, {self.noise or 'noiseless'}, {shots}, {self.interpolation}"

    def config(self, targets: Targets, seed: int) -> QPAConfig:
        """Return the adapter: cores in gradient bases, cut into so many chunks that they need `n_qubits`."""
        r = min(RANK, *(min(shape) for shape in targets.shapes))
        return QPAConfig(
            r=r,
            lora_alpha=r,
            basis="gradient",
            target_modules=targets.modules,
            task_type=targets.task_type,
            chunk_size=-(-len(targets.shapes) * r**2 // 2**self.n_qubits),
            n_circuits=N_CIRCUITS,
            circuit_depth=DEPTH,
            ansatz=self.ansatz,
            shots=self.shots,
            gradient=self.gradient,
            noise=self.noise,
            interpolation=self.interpolation,
            init_seed=seed,
        )

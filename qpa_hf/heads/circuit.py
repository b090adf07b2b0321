"""The circuit that is meant for a device: what measuring its first qubits gives, simulated exactly or with errors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qpa_hf.circuit.noise.snapshot import Snapshot
from qpa_hf.heads.blocks import layer_blocks, prepare, run_blocks, run_blocks_apart
from qpa_hf.heads.errors import PauliErrors, confuse
from qpa_hf.heads.states import product_states, rotate


@dataclass(frozen=True)
class MeasuredCircuit:
    """R_Y uploads the latent vector; `n_reuploads` times a layer of blocks and another upload follow; then the rest.

    The order is ours; the paper does not print it.

    Args:
        n_reuploads: how often the upload is repeated.
        connectivity: see `prepare`.
        n_measured: how many qubits are measured, from the first on.
    """

    n_reuploads: int
    connectivity: int
    n_measured: int

    def exact(self, uploads: Tensor, angles: Tensor) -> Tensor:
        """Return the probabilities of the measured qubits' states.

        Args:
            uploads: radians, shape (n_qubits, batch).
            angles: radians, shape (n_layers, blocks of a layer), the same for the whole batch.

        Returns:
            Shape (2**n_measured, batch).
        """
        n_qubits, n_first = len(uploads), self.n_reuploads
        between = prepare(angles[:n_first, None], n_qubits, self.connectivity)  # a circuit for each layer
        states = product_states(uploads)[None]
        for i in range(n_first):
            states = rotate(run_blocks(states, between.circuit(i))[0], uploads)[None]
        states = run_blocks(states, prepare(angles[None, n_first:], n_qubits, self.connectivity))
        return self._marginal(states[0])

    def noisy(
        self, uploads: Tensor, angles: Tensor, snapshot: Snapshot, n_trajectories: int, rng: torch.Generator
    ) -> Tensor:
        """Return the probabilities of what a device that errs reads, averaged over drawn courses of errors.

        The average is unbiased, and so is its gradient, because no angle decides which errors happen.

        Args:
            uploads: see `exact`.
            angles: likewise.
            snapshot: the device; see `PauliErrors`.
            n_trajectories: courses of errors for each column of the uploads.
            rng: a CPU generator.

        Returns:
            Shape (2**n_measured, batch).
        """
        n_qubits, batch = uploads.shape
        many = uploads.repeat_interleave(n_trajectories, 1)
        errors = PauliErrors(snapshot, n_qubits, batch * n_trajectories, rng)
        blocks = layer_blocks(n_qubits, self.connectivity)
        states = product_states(many * errors.upload().to(many))
        for i, layer in enumerate(angles):
            signs = errors.layer(blocks).to(many)
            states = run_blocks_apart(states, (layer[:, None] * signs)[None], self.connectivity)
            if i < self.n_reuploads:
                states = rotate(states, many * errors.upload().to(many))
        p = errors.flip(self._marginal(states)).unflatten(1, (batch, n_trajectories)).mean(2)
        return confuse(p, snapshot, n_qubits)

    def _marginal(self, states: Tensor) -> Tensor:
        return states.square().unflatten(0, (2**self.n_measured, -1)).sum(1)

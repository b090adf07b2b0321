"""The head's two kinds of circuits: encoders, and the one that is meant for a device."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from qpa_hf.circuit.fused import fused
from qpa_hf.circuit.noise.snapshot import Snapshot
from qpa_hf.heads.blocks import find_windows, layer_blocks, run_blocks_apart, window_matrices
from qpa_hf.heads.errors import PauliErrors, confuse
from qpa_hf.heads.simulation import plan, simulate
from qpa_hf.heads.states import product_states, rotate, z_signs


def _compiled(like: Tensor, n_qubits: int) -> ModuleType | None:
    """Return the compiled simulation if it can be used."""
    compiled = fused("numba", "qpa_hf.heads.compiled") if like.device.type == "cpu" else None
    return compiled if compiled is not None and n_qubits <= compiled.MAX_QUBITS else None


def encode(states: Tensor, angles: Tensor, connectivity: int, n_latent: int) -> Tensor:
    """Return what encoders make of a batch of states, exactly.

    Args:
        states: real amplitudes, shape (n_encoders or 1, 2**n_qubits, batch).
        angles: radians, shape (n_encoders, n_layers, blocks of a layer).
        connectivity: see `window_matrices`.
        n_latent: how many qubits are read, from the first on.

    Returns:
        Pauli-Z expectations, between -1 and 1, shape (n_encoders, n_latent, batch).
    """
    n_qubits = states.shape[1].bit_length() - 1
    none = states.new_empty(0, states.shape[2])
    observables = z_signs(n_qubits, n_latent).to(states)
    if (compiled := _compiled(states, n_qubits)) is not None:
        layers = (layer_blocks(n_qubits, connectivity),) * angles.shape[1]
        return compiled.simulate(states, none, angles.flatten(1), layers, observables)
    windows = find_windows(n_qubits, connectivity, angles.shape[1], angles.dtype, angles.device)
    matrices = window_matrices(angles, n_qubits, connectivity)
    states = states.expand(len(angles), -1, -1)
    return simulate(states, none, matrices, observables, plan((windows.qubits,), n_qubits))


@dataclass(frozen=True)
class MeasuredCircuit:
    """R_Y uploads the latent vector; `n_reuploads` times a layer of blocks and another upload follow; then the rest.

    The order is ours; the paper does not print it.

    Args:
        n_reuploads: how often the upload is repeated.
        connectivity: see `window_matrices`.
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
        n_qubits, n_first, n_layers = len(uploads), self.n_reuploads, len(angles)
        observables = torch.eye(2**self.n_measured).to(uploads).repeat_interleave(2 ** (n_qubits - self.n_measured), 1)
        if (compiled := _compiled(uploads, n_qubits)) is not None:
            blocks = layer_blocks(n_qubits, self.connectivity)
            layers = (None, *[blocks, None] * n_first, *[blocks] * (n_layers - n_first))
            return compiled.simulate(None, uploads, angles.flatten()[None], layers, observables)[0]
        # A circuit for each layer between uploads, then one for all others.
        between = window_matrices(angles[:n_first, None], n_qubits, self.connectivity).flatten(0, 1)
        after = window_matrices(angles[None, n_first:], n_qubits, self.connectivity)[0]
        layer, rest = (
            find_windows(n_qubits, self.connectivity, n, angles.dtype, angles.device).qubits
            for n in (1, n_layers - n_first)
        )
        steps = plan((*[layer] * n_first, rest), n_qubits)
        return simulate(None, uploads, torch.cat((between, after))[None], observables, steps)[0]

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

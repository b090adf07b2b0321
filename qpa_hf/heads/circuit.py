"""The head's two kinds of circuits: encoders, and the one that is meant for a device."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from qpa_hf.accelerators import sent
from qpa_hf.circuit.simulators.compilers import load
from qpa_hf.heads.blocks import find_windows, layer_blocks, run_blocks_apart, window_matrices
from qpa_hf.heads.errors import PauliErrors, confuse
from qpa_hf.heads.simulation import plan, simulate
from qpa_hf.heads.states import product_states, rotate, z_signs
from qpa_hf.measurement.noise.snapshot import Snapshot


def _compiled(like: Tensor, n_qubits: int) -> ModuleType | None:
    """Return the compiled simulation if it can be used."""
    compiled = load("numba", "qpa_hf.heads.compiled") if like.device.type == "cpu" else None
    return compiled if compiled is not None and n_qubits <= compiled.MAX_QUBITS else None


def encode(states: Tensor, angles: Tensor, connectivity: int, n_latent: int) -> Tensor:
    """Return what encoders make of a batch of states, exactly.

    Args:
        states: the real amplitudes, shape (n_encoders or 1, 2**n_qubits, batch).
        angles: the rotation angles in radians, shape (n_encoders, n_layers, blocks of a layer).
        connectivity: the largest distance of a block's qubits, see `window_matrices`.
        n_latent: the number of qubits that are read, from the first on.

    Returns:
        The Pauli-Z expectations, between -1 and 1, shape (n_encoders, n_latent, batch).
    """
    n_qubits = states.shape[1].bit_length() - 1
    none = states.new_empty(0, states.shape[2])
    observables = z_signs(n_qubits, n_latent, states.device).to(states)
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
        n_reuploads: the number of times that the upload is repeated.
        connectivity: the largest distance of a block's qubits, see `window_matrices`.
        n_measured: the number of qubits that are measured, from the first on.
    """

    n_reuploads: int
    connectivity: int
    n_measured: int

    def exact(self, uploads: Tensor, angles: Tensor) -> Tensor:
        """Return the probabilities of the measured qubits' states.

        Args:
            uploads: the angles of the uploads in radians, shape (n_qubits, batch).
            angles: the angles of the blocks in radians, shape (n_layers, blocks of a layer), the same for the whole
                batch.

        Returns:
            The probabilities, shape (2**n_measured, batch).
        """
        n_qubits = len(uploads)
        n_first = self.n_reuploads
        n_layers = len(angles)
        # Projections on the measured qubits' states are diagonal, so their expectations are the probabilities.
        states = torch.eye(2**self.n_measured, dtype=uploads.dtype, device=uploads.device)
        observables = states.repeat_interleave(2 ** (n_qubits - self.n_measured), 1)
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
            uploads: the angles of the uploads in radians, shape (n_qubits, batch).
            angles: the angles of the blocks in radians, shape (n_layers, blocks of a layer).
            snapshot: the calibration of the device; see `PauliErrors`.
            n_trajectories: the number of courses of errors for each column of the uploads.
            rng: the random generator, on the CPU.

        Returns:
            The probabilities, shape (2**n_measured, batch).
        """
        n_qubits, batch = uploads.shape
        # Every course of errors is the same circuit with the signs of some angles turned, so that all courses are
        # columns of one batch, with angles of their own.
        many = uploads.repeat_interleave(n_trajectories, 1)
        errors = PauliErrors(snapshot, n_qubits, batch * n_trajectories, rng)
        blocks = layer_blocks(n_qubits, self.connectivity)
        states = product_states(many * sent(errors.upload(), many, many.dtype))
        for i, layer in enumerate(angles):
            signs = sent(errors.layer(blocks), many, many.dtype)
            states = run_blocks_apart(states, (layer[:, None] * signs)[None], self.connectivity)
            if i < self.n_reuploads:
                states = rotate(states, many * sent(errors.upload(), many, many.dtype))
        p = errors.flip(self._marginal(states)).unflatten(1, (batch, n_trajectories)).mean(2)
        return confuse(p, snapshot, n_qubits)

    def _marginal(self, states: Tensor) -> Tensor:
        return states.square().unflatten(0, (2**self.n_measured, -1)).sum(1)

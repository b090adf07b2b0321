"""`QuantumHead`: embeddings in, logits out."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from huggingface_hub.constants import CONFIG_NAME
from huggingface_hub.constants import SAFETENSORS_SINGLE_FILE as WEIGHTS_NAME
from torch import Tensor, nn
from torch.nn import functional as F

from qpa_hf.accelerators import KnownNumber, warn_of_missing_kernels
from qpa_hf.checkpoint import check_tensors, tensors_in
from qpa_hf.heads.blocks import layer_blocks
from qpa_hf.heads.card import head_card
from qpa_hf.heads.circuit import MeasuredCircuit, encode
from qpa_hf.heads.settings import HeadSettings
from qpa_hf.heads.states import amplitude_states, z_signs
from qpa_hf.measurement import n_shots
from qpa_hf.measurement.noise import find_snapshot
from qpa_hf.measurement.shots import sample
from qpa_hf.messages import one_line
from qpa_hf.model_cards import RunRecord, is_ours
from qpa_hf.reproducible import seeded
from qpa_hf.schema import naming, read_object

ANGLE_SCALE = math.pi  # of the latent vector: expectations from -1 to 1 turn a qubit by half a turn at the most
FIRST_SPREAD = math.pi / 4  # of the first angles, which are normally distributed
SIMULATED_TOGETHER = 1024  # rows without a gradient: the states of more would leave the caches
READOUT_GAIN = 1.5  # first weights: a certain measurement is then worth a logit difference of 3


class QuantumHead(nn.Module, PyTorchModelHubMixin, library_name="qpa_hf"):
    """A classifier of embeddings by simulated quantum circuits, in the place of a linear layer.

    Encoders turn an embedding, as amplitudes, into Pauli-Z expectations; a second circuit takes these as angles, and
    its measured qubits decide between the classes through a small linear readout. A batch goes through at once; all
    states are real. `save_pretrained`, `from_pretrained` and `push_to_hub` are those of huggingface_hub.

    Each training step draws new shots and errors; otherwise the same input, checkpoint and seed give the same bits.

    Args:
        n_features: the length of an embedding.
        n_classes: the number of logits.
        **settings: the other settings, see `HeadSettings`.

    Raises:
        ValueError: for settings that are not allowed.
        TypeError: for settings that do not exist.

    Example:
        >>> head = QuantumHead(n_features=12, n_qubits=4)
        >>> head(torch.ones(2, 12)).shape
        torch.Size([2, 2])
    """

    draw: Tensor

    @torch.inference_mode(False)  # what was made in inference mode could not be trained later
    def __init__(self, n_features: int, n_classes: int = 2, **settings: Any) -> None:
        super().__init__()
        _check_names(settings)
        self.settings = how = HeadSettings(n_features, n_classes, **settings)
        self._hub_mixin_config = asdict(how)  # all of it: defaults may change, checkpoints must not
        rng = seeded(how.seed, "angles")
        # Encoders and the measured circuit draw from one generator in this order, which decides the first angles of a
        # seed.
        layer = len(layer_blocks(how.n_encoder_qubits, how.connectivity))
        self.encoder_angles = self._angles((how.n_encoders, how.n_layers, layer), rng)
        layer = len(layer_blocks(how.n_qubits, how.connectivity))
        self.angles = self._angles((how.n_reuploads + how.n_main_layers, layer), rng)
        self.readout = nn.Linear(how.n_measured, how.n_classes)
        with torch.no_grad():
            # A class is read where the measured qubits show the bits of its number.
            self.readout.weight.copy_(READOUT_GAIN * z_signs(how.n_measured, how.n_measured).t()[: how.n_classes])
            self.readout.bias.zero_()
        self.register_buffer("draw", torch.tensor(0))
        self._known_draw = KnownNumber()

    def _angles(self, shape: tuple[int, ...], rng: torch.Generator) -> nn.Parameter:
        return nn.Parameter(torch.randn(shape, generator=rng) * FIRST_SPREAD, self.settings.train_circuit)

    @torch.compiler.disable  # it is compiled around: a simulation's plans and memory are no graph
    def forward(self, embeddings: Tensor) -> Tensor:
        """Classify embeddings.

        Args:
            embeddings: the embeddings, floating point, shape (..., n_features); only their directions count.

        Returns:
            Logits, shape (..., n_classes), in float32, or float64 where the head is.

        Raises:
            TypeError: if `embeddings` is not a floating point tensor.
            ValueError: if its last dimension is not `n_features`.
        """
        self._check(embeddings)
        warn_of_missing_kernels(embeddings.device)
        is_drawn = self.settings.shots is not None or self.settings.noise is not None
        # Inside a backward pass activation checkpointing computes a second time what has been drawn.
        if is_drawn and self.training and torch._C._current_graph_task_id() == -1:
            self._known_draw.add_one(self.draw)
        dtype = torch.promote_types(self.angles.dtype, torch.float32)
        if not embeddings.numel():
            # Nothing to simulate, but a graph to all parameters, as a linear layer has: their gradients are zero.
            none = embeddings.new_zeros(*embeddings.shape[:-1], self.settings.n_classes, dtype=dtype)
            return none + embeddings.sum() + sum(p.sum() for p in self.parameters())
        with torch.autocast(embeddings.device.type, enabled=False):
            rows = embeddings.reshape(-1, embeddings.shape[-1]).to(dtype)
            p = self._measure(rows)  # (2**n_measured, batch)
            # The readout sees each measured qubit's <Z>, and not all 2**n_measured probabilities: it stays small, and
            # what classifies is the circuit.
            expectations = z_signs(self.settings.n_measured, self.settings.n_measured, p.device).to(p) @ p
            logits = F.linear(expectations.t(), self.readout.weight.to(dtype), self.readout.bias.to(dtype))
        return logits.view(*embeddings.shape[:-1], -1)

    def latent(self, embeddings: Tensor) -> Tensor:
        """Return the encoders' Pauli-Z expectations, always exact.

        Args:
            embeddings: the embeddings, shape (batch, n_features).

        Returns:
            The latent vectors, between -1 and 1, shape (batch, n_latent_values).
        """
        how = self.settings
        states = amplitude_states(embeddings, how.n_encoder_qubits, how.constant)
        found = encode(
            states[None],
            self.encoder_angles.to(embeddings.dtype),
            how.connectivity,
            how.n_latent_each,
        )
        return (found.flatten(0, 1) if how.fusion == "concatenate" else found.mean(0)).t()

    def _measure(self, rows: Tensor) -> Tensor:
        """Return what is measured, (2**n_measured, batch), given embeddings (batch, n_features)."""
        how = self.settings
        errors = None if how.noise is None else seeded(how.seed, f"errors {self._known_draw.of(self.draw)}")
        # Errors are drawn part by part: with a gradient, too, so that they are the same ones.
        is_whole = torch.is_grad_enabled() and how.noise is None
        parts = (rows,) if is_whole else rows.split(SIMULATED_TOGETHER)
        p = torch.cat([self._probabilities(self.latent(part).t(), errors) for part in parts], 1)
        shots = n_shots(how.shots, how.n_measured)
        if shots is None:
            return p
        counts = sample(p.detach().t(), shots, seeded(how.seed, f"shots {self._known_draw.of(self.draw)}")).t()
        # The gradient is that of the probabilities, at the measured values: a simulation's privilege.
        return p + (counts.to(p) / shots - p).detach()

    def _probabilities(self, latent: Tensor, errors: torch.Generator | None) -> Tensor:
        """Return the measured qubits' probabilities, given latent vectors (n_latent_values, batch)."""
        # Qubits without a latent value are uploaded by an angle of zero, which leaves them alone.
        how = self.settings
        uploads = F.pad(latent * ANGLE_SCALE, (0, 0, 0, how.n_qubits - len(latent)))
        circuit = MeasuredCircuit(how.n_reuploads, how.connectivity, how.n_measured)
        angles = self.angles.to(latent.dtype)
        if how.noise is None or errors is None:
            return circuit.exact(uploads, angles)
        return circuit.noisy(uploads, angles, find_snapshot(how.noise), how.n_trajectories, errors)

    def _check(self, embeddings: Tensor) -> None:
        if not isinstance(embeddings, Tensor) or not embeddings.is_floating_point():
            got = embeddings.dtype if isinstance(embeddings, Tensor) else type(embeddings).__name__
            raise TypeError(f"`embeddings` must be a floating point tensor, got {got}. Convert it with `.float()`.")
        if embeddings.dim() == 0 or embeddings.shape[-1] != self.settings.n_features:
            raise ValueError(
                f"`embeddings` have shape {tuple(embeddings.shape)}, but the head was made for "
                f"`n_features`={self.settings.n_features}, their last dimension. Make it for the encoder's width."
            )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Any:
        """Load as huggingface_hub does; of a local checkpoint nothing is made before all of it is known to fit.

        Raises:
            ValueError: if its settings are none of a head, or its weights are incomplete or another head's.
        """
        folder = Path(pretrained_model_name_or_path)
        # huggingface_hub would open it whatever it is, a pipe among others.
        if folder.is_dir() and ("n_features" not in options or os.path.lexists(folder / CONFIG_NAME)):
            known = {field.name for field in fields(HeadSettings)}
            cls._check_saved(folder, {name: value for name, value in options.items() if name in known})
        return super().from_pretrained(pretrained_model_name_or_path, **options)

    @classmethod
    def _check_saved(cls, folder: Path, changes: dict[str, Any]) -> None:
        settings = read_object(folder / CONFIG_NAME) | changes
        try:
            with naming(folder / CONFIG_NAME), torch.device("meta"):
                head = cls(**settings)
        except RuntimeError as error:  # sizes that no tensor can have
            raise ValueError(f"{folder / CONFIG_NAME}: {one_line(error)}. Save or download the head again.") from error
        there = tensors_in(folder, WEIGHTS_NAME)
        if not there:
            raise FileNotFoundError(f"There is no {WEIGHTS_NAME} in {folder}. Save or download the head again.")
        check_tensors(folder, there, head.state_dict(), settings=CONFIG_NAME)

    def _save_pretrained(self, save_directory: Path) -> None:
        super()._save_pretrained(save_directory)
        card = save_directory / "README.md"
        if card.is_file() and is_ours(card):  # of other settings; the mixin writes where there is none
            card.unlink()

    def generate_model_card(self, record: RunRecord | None = None) -> ModelCard:
        """Return the card that `save_pretrained` writes, unless a person has written one.

        Args:
            record: the record of the training; pass it as `model_card_kwargs={"record": record}`.
        """
        return head_card(self.settings, self.n_trained(), record)

    def n_trained(self) -> dict[str, int]:
        """Return the number of trained parameters of each part."""
        parts = {"angles of the encoders": self.encoder_angles, "angles of the measured circuit": self.angles}
        counts = {name: angles.numel() * angles.requires_grad for name, angles in parts.items()}
        return counts | {"readout": sum(p.numel() for p in self.readout.parameters() if p.requires_grad)}

    def extra_repr(self) -> str:
        """Name the settings where the module is printed."""
        return ", ".join(f"{name}={value!r}" for name, value in asdict(self.settings).items())


def _check_names(settings: dict[str, Any]) -> None:
    known = [field.name for field in fields(HeadSettings)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise TypeError(f"{', '.join(map(repr, unknown))} is not a setting of a head. Choose from {', '.join(known)}.")

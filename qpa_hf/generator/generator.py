"""The generator: circuits and a mapping model that produce one flat vector of adapter weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from qpa_hf.accelerators import KnownNumber
from qpa_hf.circuit import ansatz_label
from qpa_hf.generator.features import basis_bits
from qpa_hf.generator.mapping import Layer, add_frozen, hidden_layers, output_layer, split_into
from qpa_hf.generator.numbers import DRAWN, Numbers, uniform
from qpa_hf.generator.saved_settings import as_bytes, check_same
from qpa_hf.generator.spec import GeneratorSpec
from qpa_hf.measurement import BACKENDS
from qpa_hf.reproducible import seeded

if TYPE_CHECKING:
    from jaxtyping import Float


class Generator(Numbers):
    """Circuits and a mapping model: no input, one flat float32 vector of `spec.n_values` numbers.

    Row i of the mapping model belongs to basis state i, always: its inputs are the probabilities that the circuits
    give to that state and, if asked for, the state's bits (Eq. 6 of https://huggingface.co/papers/2410.09846).

    The parameters' names have no dots (`angles`, `w0`, `b0`, ...), because PEFT inserts and removes the adapter's
    name by them.

    Args:
        spec: settings and sizes.
        frozen: frozen numbers added to the first generated ones, as (buffer name, values, saved with a checkpoint?).
            The values are laid end to end from the start of the vector.
        n_basis: number of entries of the frozen bases on which generated cores stand (`FrozenBases`): the buffer
            `basis`, zero until they are known, and saved with a checkpoint.
        n_stages: number of times that bases are found; `stage`, the last one that has them, is saved if there are
            several.
    """

    angles: Tensor
    basis: Tensor
    stage: Tensor
    values: Tensor
    basis_bits: Tensor
    random_features: Tensor
    draw: Tensor
    shares: Tensor
    shares_angles: Tensor
    shares_draw: Tensor
    layout: str | None = None  # stands for the tensors that the vector is cut into, where loading shall compare them

    def __init__(
        self,
        spec: GeneratorSpec,
        frozen: list[tuple[str, Tensor, bool]] | None = None,
        n_basis: int = 0,
        n_stages: int = 1,
    ) -> None:
        super().__init__()
        self.spec = spec
        self._known_draw = KnownNumber()
        self._known_stage = KnownNumber()
        spec.inputs.add_to(self)
        if spec.has_bits:
            self.register_buffer("basis_bits", basis_bits(spec.n_chunks, spec.n_qubits), persistent=False)
        self._add_mapping()
        self.frozen_names = [name for name, _, _ in frozen or []]
        for name, values, persistent in frozen or []:
            self.register_buffer(name, values.to(torch.float32), persistent=persistent)
        self.n_stages = n_stages
        self.n_bases = 0  # stages whose bases are known: `stage`, without asking the device
        if n_basis:
            self.register_buffer("basis", torch.zeros(n_basis, dtype=torch.float32))
        if n_stages > 1:
            self.register_buffer("stage", torch.tensor(0))

    def _add_mapping(self) -> None:
        shapes = self.spec.layer_shapes
        rng = seeded(self.spec.init_seed, "mapping")
        for i, (out, width) in enumerate(shapes):
            is_drawn = i < len(shapes) - 1 or not self.spec.is_identity
            bound = 1 / math.sqrt(width) if is_drawn else 0  # nn.Linear's own initialisation
            self.add_parameter(f"w{i}", uniform((out, width), bound, rng))
            self.add_parameter(f"b{i}", uniform((out,), bound, rng))

    def layers(self, weight: str, bias: str, n_layers: int) -> list[Layer]:
        """Return weights and biases whose names are these, with the layer's number after them."""
        return [(getattr(self, f"{weight}{i}"), getattr(self, f"{bias}{i}")) for i in range(n_layers)]

    def circuit_probabilities(self, n_states: int | None = None) -> Float[Tensor, "n_circuits n_states"]:
        """Return the ideal circuits' probabilities, before noise and shots.

        Args:
            n_states: number of basis states, from state 0 on; None for all.
        """
        return BACKENDS[self.spec.backend].probabilities(self.angles_in_use(), self.spec.ansatz, n_states)

    def angles_in_use(self) -> Tensor:
        """Return all circuits' angles in radians, without a gradient if they are not trained."""
        return self.angles if self.spec.train_circuit else self.frozen("angles")

    def draw_number(self) -> Tensor:
        """Return the number of the draw on the CPU, without a wait for the device where it is known."""
        return self._known_draw.on_cpu(self.draw)

    def draw_anew(self) -> None:
        """Measure with other shots from now on; the number of the draw is saved with a checkpoint.

        Ideal circuits with their exact gradient have nothing to draw, and stay as they are.
        """
        if self.spec.is_measured:
            self.spec.require_device("Training measures the circuits on a device")
            self._known_draw.add_one(self.draw)

    def draw_like(self, other: Generator) -> None:
        """Continue with the draw of another generator, and with what a device measured for it."""
        with torch.no_grad():
            for name in DRAWN:
                if name in self._buffers:
                    self.get_buffer(name).copy_(other.get_buffer(name))

    def begin_stage(self) -> None:
        """Count the bases of a stage; after the first one, start over with numbers as they were before training."""
        with torch.no_grad():
            if self.n_bases:
                for name, values in Generator(self.spec).named_parameters():
                    self.get_parameter(name).copy_(values)
            if hasattr(self, "stage"):
                self._known_stage.add_one(self.stage)
        self.n_bases += 1

    def features(self) -> Float[Tensor, "n_chunks n_features"]:
        """Return the inputs of the mapping model, a row for each chunk; the bits of basis states stand first."""
        bits = [self.basis_bits] if self.spec.has_bits else []
        others = self.spec.inputs.columns(self)
        columns = bits if others is None else [*bits, others]
        return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)

    def forward(self, shapes: Sequence[torch.Size] | None = None) -> tuple[Tensor, ...]:
        """Generate the vector, float32, under no autocast.

        A mapping model without activation functions is one matrix, and is applied as one where that takes fewer
        operations: where there are more chunks than features. Else its layers are applied one after the other.

        Args:
            shapes: shapes of the tensors that the vector is cut into, of `n_values` numbers together; one tensor of
                one dimension if None. The gradients of tensors are never laid end to end, which saves a copy of the
                whole vector.
        """
        spec = self.spec
        frozen = [self.frozen(name) for name in self.frozen_names]
        shapes = shapes or [torch.Size((spec.n_values,))]
        if not spec.inputs.has_mapping:
            return split_into(add_frozen(spec.inputs.values(self), frozen), shapes)
        with torch.autocast(self.device.type, enabled=False):
            layers = self.layers("w", "b", len(spec.layer_shapes))
            hidden = self.features()
            n_chunks, n_features = hidden.shape
            is_linear = spec.activation == "none" and n_chunks > n_features + 1
            n_hidden = 0 if is_linear else len(layers) - 1
            hidden = hidden_layers(hidden, layers[:n_hidden], spec.activation)
            return output_layer(hidden, layers[n_hidden:], frozen, shapes, is_centred=not spec.is_identity)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.spec.inputs.before_saving(self)
        super()._save_to_state_dict(*args, **kwargs)

    def get_extra_state(self) -> Tensor:
        """Return the settings, as JSON in bytes: without them other numbers come from the same parameters."""
        return as_bytes(self._settings)

    def set_extra_state(self, state: Tensor) -> None:
        """Do nothing: what a checkpoint says was checked before its numbers were read."""

    @property
    def _settings(self) -> dict[str, Any]:
        """Return what decides the numbers, by the names in a configuration."""
        return self.spec.decisive() | {"ansatz": ansatz_label(self.spec.ansatz), "layout": self.layout}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Who saved nothing but Parameters saved no settings.
        check_same(self._settings, state_dict.setdefault(prefix + "_extra_state", self.get_extra_state()))
        self.check_whole(state_dict, prefix)
        for name in DRAWN:
            if name in self._buffers:
                state_dict.setdefault(prefix + name, self._buffers[name])  # of a run that was measured otherwise
        stage = state_dict.get(prefix + "stage")
        if stage is not None and not stage.dim() and hasattr(self, "stage"):  # a scalar in older checkpoints
            state_dict[prefix + "stage"] = stage.to(self.stage.dtype).reshape(self.stage.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        # FSDP2 gathers the loaded numbers later, so that they are counted when they are needed.
        self.n_bases = 0 if any(isinstance(p, DTensor) for p in self.parameters()) else self.count_bases()
        if not 0 <= self.n_bases <= self.n_stages:
            raise ValueError(
                f"The checkpoint is in stage {self.n_bases}, of {self.n_stages} stages. Save or download it again."
            )

    def count_bases(self) -> int:
        """Return how many stages have bases, from the numbers, which may be on another device."""
        name = "stage" if hasattr(self, "stage") else "basis"
        if not hasattr(self, name):
            return 0
        numbers = getattr(self, name)
        numbers = numbers.full_tensor() if isinstance(numbers, DTensor) else numbers
        # Within a step of training nobody writes through `.data`; elsewhere the device is asked.
        if name == "basis":
            return int(bool(numbers.any()))
        if not torch.is_grad_enabled():
            self._known_stage = KnownNumber()
        return self._known_stage.of(numbers)

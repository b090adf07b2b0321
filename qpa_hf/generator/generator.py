"""The generator: circuits and a mapping model that produce one flat vector of adapter weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from qpa_hf.circuit import BACKENDS, check_memory, measured, seeded
from qpa_hf.generator.features import FEATURES, basis_bits
from qpa_hf.generator.interpolation import Measured, interpolate
from qpa_hf.generator.mapping import add_frozen, cut, hidden_layers, output_layer
from qpa_hf.generator.spec import GeneratorSpec

# Settings of a spec that may change between a checkpoint and its next training: how circuits are run and measured.
MEASURED = ("train_circuit", "backend", "shots", "gradient", "noise", "device", "interpolation")
RECORDED = ("shares", "shares_angles", "shares_draw")  # what a device measured, of which angles, in which draw


def _uniform(shape: tuple[int, ...], bound: float, rng: torch.Generator) -> Tensor:
    """Return numbers from -bound to bound, in float32 whatever torch's default is."""
    return torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=rng)


class Generator(nn.Module):
    """Circuits and a mapping model: no input, one flat float32 vector of `spec.n_values` numbers.

    Row i of the mapping model belongs to basis state i, always: its inputs are the probabilities that the circuits
    give to that state and, if asked for, the state's bits (Eq. 6 of https://huggingface.co/papers/2410.09846).

    The parameters' names have no dots (`angles`, `w0`, `b0`, ...), because PEFT inserts and removes the adapter's
    name by them.

    Args:
        spec: sizes and seed.
        frozen: frozen numbers added to the first generated ones, as (buffer name, values, saved with a checkpoint?).
            The values are laid end to end from the start of the vector.
        n_basis: numbers of the frozen bases on which generated cores stand (`Basis`): the buffer `basis`, zero until
            they are known, and saved with a checkpoint.
        n_stages: how often bases are found; `stage`, the last one that has them, is saved if there are several.
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
        if spec.source == "circuit":
            BACKENDS[spec.backend].require()
            check_memory(spec.n_qubits, spec.circuit_depth, spec.n_circuits, spec.ansatz)
        self.spec = spec
        self.epoch = 0  # grows whenever cached values may have gone stale without a parameter's version telling so
        self._add_features()
        self._add_mapping()
        self.frozen_names = [name for name, _, _ in frozen or []]
        for name, values, persistent in frozen or []:
            self.register_buffer(name, values.to(torch.float32), persistent=persistent)
        self.n_bases = 0  # stages whose bases are known: `stage`, without asking the device
        if n_basis:
            self.register_buffer("basis", torch.zeros(n_basis, dtype=torch.float32))
        if n_stages > 1:
            self.register_buffer("stage", torch.tensor(0))

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters(recurse=False)).device

    def _add_features(self) -> None:
        spec = self.spec
        if spec.source == "circuit":
            # TorchQuantum's own initialisation, which the authors use
            angles = _uniform(spec.angles_shape, math.pi, seeded(spec.seed, "angles"))
            if spec.train_circuit:
                self._add_parameter("angles", angles)
            else:
                self.register_buffer("angles", angles)
            if spec.is_measured:
                self.register_buffer("draw", torch.tensor(0))
            if spec.device is not None:
                self.register_buffer("shares", torch.zeros(spec.n_circuits, 2**spec.n_qubits, dtype=torch.float32))
                self.register_buffer("shares_angles", torch.full_like(angles, math.nan))
                self.register_buffer("shares_draw", torch.tensor(0))
            self._add_interpolation()
        elif spec.source in ("random", "free"):
            noise = torch.randn(
                (spec.n_chunks, spec.n_circuits), generator=seeded(spec.seed, "random features"), dtype=torch.float32
            )
            if spec.source == "free":
                self._add_parameter("random_features", noise)
            else:
                self.register_buffer("random_features", noise, persistent=False)
        if spec.use_basis_bits or spec.source == "bits":
            self.register_buffer("basis_bits", basis_bits(spec.n_chunks, spec.n_qubits), persistent=False)

    def _add_interpolation(self) -> None:
        spec = self.spec
        rng = seeded(spec.seed, "interpolation")
        if spec.interpolation == "random":
            noise = torch.rand(spec.n_circuits, 2**spec.n_qubits, generator=rng, dtype=torch.float32)
            self.register_buffer("noise", noise, persistent=False)
        for i, (out, width) in enumerate(spec.interpolation_shapes):
            bound = 0 if out == 1 else 1 / math.sqrt(width)  # F starts as a constant
            self._add_parameter(f"f_w{i}", _uniform((out, width), bound, rng))
            self._add_parameter(f"f_b{i}", _uniform((out,), bound, rng))

    def _add_mapping(self) -> None:
        spec = self.spec
        if spec.source == "direct":
            self._add_parameter("values", torch.zeros(spec.n_values, dtype=torch.float32))
        rng = seeded(spec.seed, "mapping")
        last = len(spec.layer_shapes) - 1
        for i, (out, width) in enumerate(spec.layer_shapes):
            is_drawn = i < last or spec.start == "authors"
            bound = 1 / math.sqrt(width) if is_drawn else 0  # nn.Linear's own initialisation
            weight, bias = _uniform((out, width), bound, rng), _uniform((out,), bound, rng)
            self._add_parameter(f"w{i}", weight)
            self._add_parameter(f"b{i}", bias)

    def _add_parameter(self, name: str, values: Tensor) -> None:
        # Not `register_parameter`: PEFT's `low_cpu_mem_usage` patches it to throw values away, and a generator's are
        # few, and needed where a checkpoint does not hold them.
        self._parameters[name] = nn.Parameter(values)

    def circuit_probabilities(self, n_states: int | None = None) -> Tensor:
        """Return the ideal circuits' probabilities, shape (n_circuits, n_states), or of all states if None."""
        return BACKENDS[self.spec.backend].probabilities(self.angles, self.spec.ansatz, n_states)

    def measured_probabilities(self) -> Tensor:
        """Return what noise, shots and interpolation make of the probabilities, shape (n_circuits, 2**n_qubits)."""
        spec = self.spec
        needs_gradient = torch.is_grad_enabled() and self.angles.requires_grad
        if spec.device is not None and not needs_gradient:
            shares = self._recorded_shares()
        else:
            shares = measured(self.angles, spec.measurement, self.draw)
        if spec.n_shots is None:
            return shares
        layers = [(getattr(self, f"f_w{i}"), getattr(self, f"f_b{i}")) for i in range(len(spec.interpolation_shapes))]
        return interpolate(spec.interpolation, Measured(shares, spec.n_shots, layers, self._buffers.get("noise")))

    def _recorded_shares(self) -> Tensor:
        """Return what a device measured; it is saved with a checkpoint, because no seed would give it again."""
        if not (torch.equal(self.shares_angles, self.angles) and torch.equal(self.shares_draw, self.draw)):
            with torch.no_grad():
                self.shares.copy_(measured(self.angles.detach(), self.spec.measurement, self.draw))
                self.shares_angles.copy_(self.angles)
                self.shares_draw.copy_(self.draw)
        return self.shares.clone()  # a graph may keep it beyond the next measurement

    def draw_anew(self) -> None:
        """Measure with other shots from now on; the number of the draw is saved with a checkpoint.

        Ideal circuits with their exact gradient have nothing to draw, and stay as they are.
        """
        if self.spec.is_measured:
            with torch.no_grad():
                self.draw.add_(1)

    def begin_stage(self) -> None:
        """Count the bases of a stage; after the first one, start over with numbers as they were before training."""
        with torch.no_grad():
            if self.n_bases:
                for name, values in Generator(self.spec).named_parameters():
                    self.get_parameter(name).copy_(values)
            if "stage" in self._buffers:
                self.stage.add_(1)
        self.n_bases += 1
        self.epoch += 1

    def features(self) -> Tensor:
        """Return the inputs of the mapping model, shape (n_chunks, n_features)."""
        spec = self.spec
        columns = []
        if spec.use_basis_bits or spec.source == "bits":
            columns.append(self.basis_bits)
        if spec.source in ("random", "free"):
            columns.append(self.random_features)
        elif spec.source == "circuit":
            if spec.is_measured:
                p = FEATURES[spec.features](self.measured_probabilities())
            else:
                n_states = spec.n_chunks if spec.features == "probability" else None
                p = FEATURES[spec.features](self.circuit_probabilities(n_states))
            columns.append(p[:, : spec.n_chunks].t())
        return columns[0] if len(columns) == 1 else torch.cat(columns, dim=1)

    def forward(self, shapes: Sequence[torch.Size] | None = None) -> tuple[Tensor, ...]:
        """Generate the vector, float32, under no autocast.

        Args:
            shapes: cut it into tensors of `n_values` numbers together; one of one dimension if None. The gradients of
                tensors are never laid end to end, which saves a copy of the whole vector.
        """
        frozen = [getattr(self, name) for name in self.frozen_names]
        shapes = shapes or [torch.Size((self.spec.n_values,))]
        if self.spec.source == "direct":
            return cut(add_frozen(self.values.clone(), frozen), shapes)
        with torch.autocast(self.device.type, enabled=False):
            layers = [(getattr(self, f"w{i}"), getattr(self, f"b{i}")) for i in range(len(self.spec.layer_shapes))]
            hidden = self.features()
            n_chunks, n_features = hidden.shape
            is_linear = self.spec.activation == "none" and n_chunks > n_features + 1
            n_hidden = 0 if is_linear else len(layers) - 1
            hidden = hidden_layers(hidden, layers[:n_hidden], self.spec.activation)
            return output_layer(hidden, layers[n_hidden:], frozen, shapes, is_centred=self.spec.start == "authors")

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        # PEFT asks an untrained adapter, too, to load into it: nothing has been measured then.
        if "shares" in self._buffers and (int(self.draw) or not bool(self.shares_angles.isnan().any())):
            self._recorded_shares()
        super()._save_to_state_dict(*args, **kwargs)

    def get_extra_state(self) -> Tensor:
        """Return the settings, as JSON in bytes: without them other numbers come from the same parameters."""
        return torch.tensor(bytearray(json.dumps(self._settings).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Do nothing: what a checkpoint says was checked before its numbers were read."""

    @property
    def _settings(self) -> dict[str, Any]:
        """Return them by their names in a configuration."""
        settings = {name: value for name, value in asdict(self.spec).items() if name not in MEASURED}
        return settings | {"init_seed": settings.pop("seed"), "layout": self.layout}

    def _check_settings(self, saved: Tensor) -> None:
        here = json.loads(json.dumps(self._settings))
        try:
            there = json.loads(bytes(saved.to(torch.uint8).tolist()))
        except ValueError:  # the difference of two checkpoints, for instance
            return
        if differing := [name for name in here if there.get(name, here[name]) != here[name]]:
            if "layout" in differing:
                raise ValueError(
                    "The checkpoint generates tensors of other names or shapes than this adapter. Load it with "
                    "`from_pretrained`, or build the adapter with its `target_modules` and ranks."
                )
            pairs = " and ".join(f"`{name}` {there[name]!r} there and {here[name]!r} here" for name in differing)
            raise ValueError(
                f"The checkpoint is of a generator with other settings: {pairs}. Load it with `from_pretrained`, or "
                "build the adapter with its settings."
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if (saved := state_dict.get(prefix + "_extra_state")) is not None:
            self._check_settings(saved)
        self.epoch += 1  # FSDP2 gathers the loaded numbers later, and preserves the version when it does
        for name in ("draw", *RECORDED):
            if name in self._buffers:
                state_dict.setdefault(prefix + name, self._buffers[name])  # of a run that was measured otherwise
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self.n_bases = self.count_bases()

    def count_bases(self) -> int:
        """Return how many stages have bases, from the buffers, which may be on another device."""
        if "stage" in self._buffers:
            return int(self.stage)
        return int("basis" in self._buffers and bool(self.basis.any()))

    def train(self, mode: bool = True) -> Generator:
        self.epoch += 1
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Generator:
        """Move to another device, but keep float32: a bfloat16 angle would be off by up to 0.01 rad."""
        self.epoch += 1

        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if moved.dtype == tensor.dtype or not tensor.is_floating_point():
                return moved
            return tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)

"""The sizes of a generator: what follows from the number of values it must produce, before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from qpa_hf.circuit import angles_shape
from qpa_hf.generator.settings import GeneratorSettings, settings_in
from qpa_hf.generator.sources import SOURCES, Source
from qpa_hf.measurement import DeviceSettings, Measurement, n_shots
from qpa_hf.measurement.interpolation import layer_shapes

FLOAT_BYTES = 4  # generation is in float32, whatever the base model's dtype


@dataclass(kw_only=True)
class GeneratorSpec(GeneratorSettings):
    """Settings that have been checked, and the sizes that follow from them and the number of values.

    Args:
        n_values: number of values to generate, `m` in the paper.

    Raises:
        ValueError: if `shots` is less than one for so many qubits or more than the device takes, or the circuits are
            wider than the device.
    """

    n_values: int

    @classmethod
    def of(cls, settings: GeneratorSettings, n_values: int) -> Self:
        """Return the spec of a generator.

        Args:
            settings: its settings, or a configuration that has them among others.
            n_values: number of values to generate.
        """
        values: dict[str, Any] = {name: getattr(settings, name) for name in settings_in(cls)}
        values["chunk_size"] = min(settings.chunk_size, n_values)
        return cls(**values, n_values=n_values)

    def __post_init__(self) -> None:
        self.inputs.check(self)

    @property
    def inputs(self) -> Source:
        """What gives the mapping model its inputs."""
        return SOURCES[self.source]

    @property
    def has_circuit(self) -> bool:
        """Whether circuits are run."""
        return self.inputs.has_circuit

    @property
    def has_bits(self) -> bool:
        """Whether the bits of basis states are inputs of the mapping model."""
        return self.use_basis_bits or self.inputs.has_bits

    @property
    def n_chunks(self) -> int:
        """Rows of the mapping model: ceil(n_values / chunk_size), Eq. 8 of the paper."""
        return -(-self.n_values // self.chunk_size)

    @property
    def n_qubits(self) -> int:
        """N = ceil(log2(n_chunks)), never fewer than 1."""
        return max(1, (self.n_chunks - 1).bit_length())

    @property
    def angles_shape(self) -> tuple[int, ...]:
        """Shape of all circuits' angles: (n_circuits, depth, n_qubits); several rotations stand before n_qubits."""
        return (self.n_circuits, *angles_shape(self.ansatz, self.circuit_depth, self.n_qubits))

    @property
    def n_shots(self) -> int | None:
        """Shots of each circuit; None for exact probabilities."""
        return n_shots(self.shots, self.n_qubits)

    @property
    def estimator(self) -> str:
        """How the angles' gradient is estimated, a key of `qpa_hf.measurement.ESTIMATORS`."""
        return self.gradient or ("exact" if self.shots is None else "parameter_shift")

    @property
    def is_measured(self) -> bool:
        """Whether there are circuits, and they are not simply simulated with their exact gradient."""
        is_ideal = self.shots is None and self.estimator == "exact" and self.noise is None
        return self.has_circuit and not is_ideal

    @property
    def is_on_device(self) -> bool:
        """Whether a device measures the circuits: in this process, or where the adapter was trained."""
        return self.has_circuit and self.backend == "ibm"

    def require_device(self, reason: str) -> None:
        """Raise if a device should measure and this process was given none, as a file cannot.

        Raises:
            RuntimeError: with the reason, and how to name a device.
        """
        if self.is_on_device and self.device is None:
            raise RuntimeError(
                f"{reason}, and a file does not choose one. Name yours in this process, by `config="
                "QPAConfig.from_pretrained(folder, device=..., max_jobs=...)` in `PeftModel.from_pretrained`, or by "
                "`load_generated(base, folder, device=..., max_jobs=...)`."
            )

    @property
    def measurement(self) -> Measurement:
        """How the circuits are measured."""
        limits = (self.device_folder, self.max_jobs, self.max_shots)
        device = DeviceSettings(self.device, *limits) if self.device else None
        how = (self.backend, self.noise, device)
        return Measurement(self.ansatz, self.n_shots, self.estimator, *how, self.init_seed)

    @property
    def interpolation_shapes(self) -> list[tuple[int, int]]:
        """(out, in) of each linear layer of the network that interpolates."""
        return layer_shapes(self.interpolation, self.n_qubits) if self.has_circuit else []

    @property
    def n_interpolation(self) -> int:
        """Trainable weights and biases of the network that interpolates."""
        return sum(out * (width + 1) for out, width in self.interpolation_shapes)

    @property
    def n_features(self) -> int:
        """Inputs of the mapping model."""
        return (self.n_qubits if self.has_bits else 0) + self.inputs.n_columns(self)

    @property
    def layer_shapes(self) -> list[tuple[int, int]]:
        """(out, in) of each linear layer of the mapping model; empty if there is none."""
        if not self.inputs.has_mapping:
            return []
        widths = (self.n_features, *self.mapping_widths, self.chunk_size)
        return [(out, width) for width, out in zip(widths[:-1], widths[1:], strict=True)]

    @property
    def n_angles(self) -> int:
        """Angles of all circuits, trained or not; 0 for the controls that have no circuit."""
        return self.inputs.n_angles(self)

    @property
    def n_trained_angles(self) -> int:
        """Angles that an optimizer sees."""
        return self.n_angles if self.train_circuit else 0

    @property
    def n_free(self) -> int:
        """Trained numbers in the circuits' place."""
        return self.inputs.n_free(self)

    @property
    def n_hidden(self) -> int:
        """Trainable weights and biases before the output layer."""
        return sum(out * (width + 1) for out, width in self.layer_shapes[:-1])

    @property
    def n_output(self) -> int:
        """Trainable weights and biases of the output layer; all values where they are trained themselves."""
        if not self.inputs.has_mapping:
            return self.n_values
        out, width = self.layer_shapes[-1]
        return out * (width + 1)

    @property
    def n_saved(self) -> int:
        """Numbers of the generator that a checkpoint holds, without frozen initial values and bases."""
        return self.n_angles + self.n_free + self.n_interpolation + self.n_hidden + self.n_output

    @property
    def n_trainable(self) -> int:
        """Numbers that an optimizer sees."""
        return self.n_trained_angles + self.n_free + self.n_interpolation + self.n_hidden + self.n_output

    def decisive(self) -> dict[str, Any]:
        """Return what decides which numbers the same parameters give, by name."""
        names = [name for name, declared in settings_in(self).items() if not declared.may_change]
        return {"n_values": self.n_values} | {name: getattr(self, name) for name in names}

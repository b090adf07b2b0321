"""The sizes of a generator: what follows from the number of values it must produce, before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from qpa_hf.circuit import DeviceSettings, Measurement, angles_shape, n_shots
from qpa_hf.circuit.device import FAKE_MACHINES
from qpa_hf.circuit.noise import find_snapshot
from qpa_hf.generator.interpolation import layer_shapes

SOURCES = ("circuit", "random", "bits", "free", "direct")
ACTIVATIONS = ("none", "relu", "gelu", "silu", "tanh")
STARTS = ("identity", "authors")

FLOAT_BYTES = 4  # generation is in float32, whatever the base model's dtype


@dataclass(frozen=True)
class GeneratorSpec:
    """Everything that determines a generator's shape and its frozen numbers.

    `QPAConfig` holds the defaults and the checks; a spec is what is left once the number of values is known.

    Args:
        n_values: numbers to generate, `m` in the paper.
        chunk_size: numbers generated for one basis state (the paper's n_mlp).
        n_circuits: independent circuits, one feature column each.
        circuit_depth: layers of the ansatz (the paper's L).
        ansatz: name of the gate pattern, a key of `qpa_hf.circuit.ANSATZE`.
        features: how probabilities become inputs of the mapping model, one of `FEATURES`.
        use_basis_bits: whether the +-1 bits of the basis state are inputs too.
        mapping_widths: hidden widths of the mapping model; empty means one linear layer.
        activation: function between hidden layers, one of `ACTIVATIONS`.
        start: "identity" (the last layer is zero) or "authors" (every layer random, the mean removed).
        source: "circuit", or one of the controls: "random" (fixed numbers) and "free" (trained ones) in the circuits'
            place, "bits" (only the basis states' bits), "direct" (no mapping model: every value is trained itself).
        train_circuit: whether the angles are trained.
        backend: what runs the circuits, a key of `qpa_hf.circuit.BACKENDS`.
        shots: of each circuit, as `qpa_hf.circuit.n_shots` takes them; None for exact probabilities.
        gradient: how the angles' gradient is estimated, a key of `qpa_hf.circuit.ESTIMATORS`.
        noise: the device whose noise is simulated, one of `qpa_hf.circuit.noise.DEVICES`; None for an ideal one.
        device: the device of the backend "ibm"; None for simulators.
        interpolation: what becomes of states that the shots have missed, a key of `INTERPOLATIONS`.
        seed: everything random in the generator comes from it.

    Raises:
        ValueError: if `shots` is less than one for so many qubits, or the circuits are wider than the device.
    """

    n_values: int
    chunk_size: int
    n_circuits: int
    circuit_depth: int
    ansatz: str
    features: str
    use_basis_bits: bool
    mapping_widths: tuple[int, ...]
    activation: str
    start: str
    source: str
    train_circuit: bool
    backend: str
    shots: int | str | None
    gradient: str
    noise: str | None
    device: DeviceSettings | None
    interpolation: str
    seed: int

    def __post_init__(self) -> None:
        if self.source == "circuit":
            n_shots(self.shots, self.n_qubits)  # less than one shot is refused here, and not in the first forward
            simulated = self.noise or (FAKE_MACHINES.get(self.device.name) if self.device else None)
            if simulated is not None:
                find_snapshot(simulated).line(self.n_qubits)  # and so is a circuit wider than the device

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
        """Shape of all circuits' angles: (n_circuits, depth, n_qubits), with a 2 before n_qubits for two rotations."""
        return (self.n_circuits, *angles_shape(self.ansatz, self.circuit_depth, self.n_qubits))

    @property
    def n_shots(self) -> int | None:
        """Shots of each circuit; None for exact probabilities."""
        return n_shots(self.shots, self.n_qubits)

    @property
    def is_measured(self) -> bool:
        """Whether there are circuits, and they are not simply simulated with their exact gradient."""
        is_ideal = self.shots is None and self.gradient == "exact" and self.noise is None
        return self.source == "circuit" and not is_ideal

    @property
    def measurement(self) -> Measurement:
        """How the circuits are measured."""
        return Measurement(self.ansatz, self.n_shots, self.gradient, self.backend, self.noise, self.device, self.seed)

    @property
    def interpolation_shapes(self) -> list[tuple[int, int]]:
        """(out, in) of each linear layer of the network that interpolates."""
        return layer_shapes(self.interpolation, self.n_qubits) if self.source == "circuit" else []

    @property
    def n_interpolation(self) -> int:
        """Trainable weights and biases of the network that interpolates."""
        return sum(out * (width + 1) for out, width in self.interpolation_shapes)

    @property
    def n_features(self) -> int:
        """Inputs of the mapping model."""
        has_bits = self.use_basis_bits or self.source == "bits"
        return (self.n_qubits if has_bits else 0) + (self.n_circuits if self.source != "bits" else 0)

    @property
    def layer_shapes(self) -> list[tuple[int, int]]:
        """(out, in) of each linear layer of the mapping model."""
        if self.source == "direct":
            return []
        widths = (self.n_features, *self.mapping_widths, self.chunk_size)
        return [(out, width) for width, out in zip(widths[:-1], widths[1:], strict=True)]

    @property
    def n_angles(self) -> int:
        """Angles of all circuits, trained or not; 0 for the controls that have no circuit."""
        return prod(self.angles_shape) if self.source == "circuit" else 0

    @property
    def n_free(self) -> int:
        """Trained numbers in the circuits' place; 0 unless `source` is "free"."""
        return self.n_chunks * self.n_circuits if self.source == "free" else 0

    @property
    def n_hidden(self) -> int:
        """Trainable weights and biases before the output layer."""
        return sum(out * (width + 1) for out, width in self.layer_shapes[:-1])

    @property
    def n_output(self) -> int:
        """Trainable weights and biases of the output layer; all values where they are trained themselves."""
        if self.source == "direct":
            return self.n_values
        out, width = self.layer_shapes[-1]
        return out * (width + 1)

    @property
    def n_trainable(self) -> int:
        """Numbers that an optimizer sees."""
        inputs = (self.n_angles if self.train_circuit else 0) + self.n_free + self.n_interpolation
        return inputs + self.n_hidden + self.n_output

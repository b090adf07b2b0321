"""What gives the mapping model its inputs: the circuits, or a control in their place.

An entry of `SOURCES` owns everything that differs between them: its inputs, its counts, its Parameters and buffers,
what it needs of other settings, and its words in the help and in a card.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from qpa_hf.circuit import check_memory
from qpa_hf.generator.checks import Need
from qpa_hf.generator.features import FEATURES
from qpa_hf.generator.numbers import uniform
from qpa_hf.measurement import BACKENDS, measure
from qpa_hf.measurement.device import FAKE_MACHINES, check_device_shots
from qpa_hf.measurement.interpolation import Shares, interpolate
from qpa_hf.measurement.noise import find_snapshot
from qpa_hf.reproducible import seeded

if TYPE_CHECKING:
    from jaxtyping import Float

    from qpa_hf.generator.generator import Generator
    from qpa_hf.generator.spec import GeneratorSpec

# What runs the circuits, in a card's words.
SIMULATORS = {"exact": "qpa_hf's own simulator", "torchquantum": "TorchQuantum", "ibm": "Qiskit Aer"}


class Source:
    """A source of inputs without circuits and without numbers; a control overrides what it has.

    Attributes:
        meaning: words for the help.
        sentence: how the weights come about, for a card.
        output: name of the last trained part, for a card.
        has_circuit: whether circuits are run.
        has_mapping: whether a mapping model makes the values.
        has_bits: whether the bits of basis states are inputs, whatever `use_basis_bits` says.
        needs: what it needs of other settings.
    """

    meaning: str
    sentence: str
    output = "mapping model, output layer"
    has_circuit = False
    has_mapping = True
    has_bits = False
    needs: tuple[Need, ...] = ()

    def n_columns(self, spec: GeneratorSpec) -> int:
        """Return the number of inputs of the mapping model beside the bits of basis states."""
        return 0

    def n_angles(self, spec: GeneratorSpec) -> int:
        """Return the number of angles of all circuits, trained or not."""
        return 0

    def n_free(self, spec: GeneratorSpec) -> int:
        """Return the number of trained numbers in the circuits' place."""
        return 0

    def check(self, spec: GeneratorSpec) -> None:
        """Raise a ValueError for sizes that are not possible."""

    def add_to(self, generator: Generator) -> None:
        """Give a new generator the source's Parameters and buffers."""

    def columns(self, generator: Generator) -> Float[Tensor, "n_chunks n_columns"] | None:
        """Return the inputs of the mapping model beside the bits of basis states; None if there are no others."""
        return None

    def values(self, generator: Generator) -> Float[Tensor, " n_values"]:
        """Return all generated numbers, where no mapping model makes them, in memory of their own."""
        raise NotImplementedError

    def before_saving(self, generator: Generator) -> None:
        """Complete the numbers that a checkpoint holds."""

    def origin(self, spec: GeneratorSpec) -> str:
        """Return how the weights come about, for a card."""
        return self.sentence


class Circuit(Source):
    """The probabilities of circuits, a column for each: the method itself."""

    meaning = "the circuits' probabilities"
    has_circuit = True

    def n_columns(self, spec: GeneratorSpec) -> int:
        return spec.n_circuits

    def n_angles(self, spec: GeneratorSpec) -> int:
        return math.prod(spec.angles_shape)

    def check(self, spec: GeneratorSpec) -> None:
        shots = spec.n_shots  # less than one is refused here, and not in the first forward
        if spec.device is not None and shots is not None:
            check_device_shots(shots)
        simulated = spec.noise or FAKE_MACHINES.get(spec.device or "")
        if simulated is not None:
            find_snapshot(simulated).line(spec.n_qubits)  # and so is a circuit that is wider than the device

    def add_to(self, generator: Generator) -> None:
        """Add the angles, the number of the draw where results are drawn, and the network that interpolates."""
        spec = generator.spec
        BACKENDS[spec.backend].require()
        if torch.get_default_device().type != "meta":
            check_memory(spec.n_qubits, spec.circuit_depth, spec.n_circuits, spec.ansatz)
        # TorchQuantum's own initialisation, which the authors use
        angles = uniform(spec.angles_shape, math.pi, seeded(spec.init_seed, "angles"))
        if spec.train_circuit:
            generator.add_parameter("angles", angles)
        else:
            generator.register_buffer("angles", angles)
        if spec.is_measured:
            generator.register_buffer("draw", torch.tensor(0))
        if spec.is_on_device:
            shape = (spec.n_circuits, 2**spec.n_qubits)
            generator.register_buffer("shares", torch.zeros(shape, dtype=torch.float32))
            generator.register_buffer("shares_angles", torch.full_like(angles, math.nan))
            generator.register_buffer("shares_draw", torch.tensor(0))
        self._add_interpolation(generator)

    def _add_interpolation(self, generator: Generator) -> None:
        spec = generator.spec
        rng = seeded(spec.init_seed, "interpolation")
        if spec.interpolation == "random":
            noise = torch.rand(spec.n_circuits, 2**spec.n_qubits, generator=rng, dtype=torch.float32)
            generator.register_buffer("noise", noise, persistent=False)
        for i, (out, width) in enumerate(spec.interpolation_shapes):
            bound = 0 if out == 1 else 1 / math.sqrt(width)  # the network starts as a constant
            generator.add_parameter(f"f_w{i}", uniform((out, width), bound, rng))
            generator.add_parameter(f"f_b{i}", uniform((out,), bound, rng))

    def columns(self, generator: Generator) -> Float[Tensor, "n_chunks n_columns"]:
        """Return the features of the probabilities of the first basis states, a row for each state.

        Basis state i stands for chunk i, so that the states beyond the last chunk are not used. They are computed
        all the same where a feature is relative to all states.
        """
        spec = generator.spec
        feature = FEATURES[spec.features]
        if spec.is_measured:
            p = self._measured(generator)
        else:
            p = generator.circuit_probabilities(spec.n_chunks if feature.of_each else None)
        return feature.apply(p)[:, : spec.n_chunks].t()

    def _measured(self, generator: Generator) -> Tensor:
        """Return what noise, shots and interpolation make of the probabilities, shape (n_circuits, 2**n_qubits)."""
        spec = generator.spec
        angles = generator.angles_in_use()
        needs_gradient = torch.is_grad_enabled() and angles.requires_grad
        if spec.is_on_device and not needs_gradient:
            shares = self._recorded_shares(generator)
        else:
            spec.require_device("Training measures the circuits on a device")
            shares = measure(angles, spec.measurement, generator.draw_number())
        if spec.n_shots is None:
            return shares
        layers = generator.layers("f_w", "f_b", len(spec.interpolation_shapes))
        noise = getattr(generator, "noise", None)
        return interpolate(spec.interpolation, Shares(shares, spec.n_shots, layers, noise))

    def _recorded_shares(self, generator: Generator) -> Tensor:
        """Return what a device measured; it is saved with a checkpoint, because no seed would give it again."""
        spec = generator.spec
        is_of_angles = torch.equal(generator.shares_angles, generator.angles)
        if not (is_of_angles and torch.equal(generator.shares_draw, generator.draw)):
            spec.require_device("The adapter has no probabilities that a device measured of its present angles")
            with torch.no_grad():
                generator.shares.copy_(measure(generator.angles.detach(), spec.measurement, generator.draw))
                generator.shares_angles.copy_(generator.angles)
                generator.shares_draw.copy_(generator.draw)
        return generator.shares.clone()  # a graph may keep it beyond the next measurement

    def before_saving(self, generator: Generator) -> None:
        """Measure the angles that are saved, if a device is at hand and they were not measured."""
        # PEFT asks an untrained adapter, too, to load into it: nothing has been measured then.
        has_device = generator.spec.is_on_device and generator.spec.device is not None
        if has_device and (int(generator.draw) or not bool(generator.shares_angles.isnan().any())):
            self._recorded_shares(generator)

    def origin(self, spec: GeneratorSpec) -> str:
        circuits = f"{spec.n_circuits} circuit{'s' if spec.n_circuits > 1 else ''} of {spec.n_qubits} qubits"
        shots = f", measured with {spec.n_shots:,} shots each," if spec.n_shots else ""
        turned = f"A mapping model turns the probabilities of {circuits}{shots} into the weights."
        machine = spec.measuring_device
        if machine is not None and machine.startswith("ibm_"):
            return f"{turned} The circuits ran on the quantum computer {machine}; the adapter needs none."
        how = "exactly"
        if spec.noise:
            day = find_snapshot(spec.noise).calibrated.partition(" ")[0]
            how = f"with the noise of ibm_{spec.noise} in its calibration of {day}"
        if machine is not None:
            how = f"as {machine}, with the noise of its calibration snapshot,"
        drawn = ", the shots drawn at random" if spec.n_shots else ""
        return (
            f"{turned} The circuits were simulated {how} on a classical computer ({SIMULATORS[spec.backend]}){drawn}; "
            "no quantum computer was used, and none is needed."
        )


class Random(Source):
    """Gaussian numbers in the circuits' place, as many columns as there would be circuits."""

    meaning = "fixed Gaussian numbers in the circuits' place"
    sentence = "Fixed random numbers stand in the place of circuits; a mapping model turns them into the weights."

    def n_columns(self, spec: GeneratorSpec) -> int:
        return spec.n_circuits

    def add_to(self, generator: Generator) -> None:
        # No checkpoint holds them, because their seed gives them again.
        generator.register_buffer("random_features", self._numbers(generator.spec), persistent=False)

    def _numbers(self, spec: GeneratorSpec) -> Tensor:
        rng = seeded(spec.init_seed, "random features")
        return torch.randn((spec.n_chunks, spec.n_circuits), generator=rng, dtype=torch.float32)

    def columns(self, generator: Generator) -> Float[Tensor, "n_chunks n_columns"]:
        return generator.random_features


class Free(Random):
    """The same numbers, trained."""

    meaning = "trained numbers in the circuits' place"
    sentence = "Trained numbers stand in the place of circuits; a mapping model turns them into the weights."

    def n_free(self, spec: GeneratorSpec) -> int:
        return spec.n_chunks * spec.n_circuits

    def add_to(self, generator: Generator) -> None:
        generator.add_parameter("random_features", self._numbers(generator.spec))


class Bits(Source):
    """The bits of the basis states, and nothing else."""

    meaning = "only the basis state's bits"
    sentence = "There are no circuits; a mapping model turns the bits of basis states into the weights."
    has_bits = True


class Direct(Source):
    """Every generated value is a Parameter: what the mapping model is compared with."""

    meaning = "neither circuit nor mapping model: every generated value is trained itself"
    sentence = "There are neither circuits nor a mapping model: every number of the weights is trained itself."
    output = "the values themselves"
    has_mapping = False
    needs = (Need("start", "identity", "the authors' start is one of mapping models"),)

    def add_to(self, generator: Generator) -> None:
        generator.add_parameter("values", torch.zeros(generator.spec.n_values, dtype=torch.float32))

    def values(self, generator: Generator) -> Float[Tensor, " n_values"]:
        return generator.values.clone()


SOURCES: dict[str, Source] = {
    "circuit": Circuit(),
    "random": Random(),
    "bits": Bits(),
    "free": Free(),
    "direct": Direct(),
}

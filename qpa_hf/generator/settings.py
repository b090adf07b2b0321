"""`GeneratorSettings`: every setting of a generator, declared once.

An adapter's configuration, `generate`, a generator's sizes, cards, `inspect` and the command line read names,
defaults, checks and help from here. A new setting takes an entry in `GeneratorSettings`, and the code that uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from qpa_hf.generator import checks
from qpa_hf.generator.declaring import among, documented, listed, setting, settings_in, with_meanings
from qpa_hf.generator.features import FEATURES
from qpa_hf.generator.mapping import ACTIVATIONS
from qpa_hf.generator.sources import SOURCES
from qpa_hf.measurement import BACKENDS, ESTIMATORS
from qpa_hf.measurement.interpolation import INTERPOLATIONS
from qpa_hf.measurement.noise import DEVICES
from qpa_hf.messages import truth_value

# Sizes that a user leaves open. What was best: benchmarks/LOG.md.
SIZES = {"chunk_size": 384, "n_circuits": 8, "circuit_depth": 8}


class Start(NamedTuple):
    """What the values are at step 0.

    Args:
        is_identity: whether the initial values are frozen and a part that starts at zero is added to them; else the
            values are all generated, from a last layer that is drawn, and the vector's mean is subtracted.
        meaning: words for the help.
    """

    is_identity: bool
    meaning: str


STARTS = {
    "identity": Start(
        True,
        "the adapter changes nothing at step 0: PEFT's initialisation, frozen, plus a generated part whose last layer "
        "starts at zero",
    ),
    "authors": Start(False, "both factors generated, non-zero and mean-free"),
}


@documented
@dataclass(kw_only=True)
class GeneratorSettings:
    """Settings of a generator, with the defaults that serve where no configuration has others.

    Args:
        {settings}

    Raises:
        ValueError: for a value out of range, or values that are not possible together.
        TypeError: for a value of the wrong kind.
        ImportError: if the backend is "ibm" and the extra `noise` is not installed.
    """

    chunk_size: int = setting(
        None,
        "Numbers generated per basis state, n_mlp in the paper. Fewer chunks need fewer qubits; larger chunks need "
        "more trainable numbers. 384, or half a core with gradient bases.",
        checks.count_or_none,
        label="chunk size",
    )
    n_circuits: int = setting(
        None,
        "Independent circuits, one feature column each. 8, or 4 with gradient bases.",
        checks.count_or_none,
        label="circuits",
        of_circuit=True,
    )
    circuit_depth: int = setting(
        None,
        "Layers of the ansatz, L in the paper. 8, or 2 with gradient bases.",
        checks.count_or_none,
        label="depth",
        of_circuit=True,
    )
    ansatz: str = setting(
        "ry_cnot",
        'Gate pattern of a layer: `"ry_cnot"` (Eq. 1), `"rx_cnot"` (Eq. 12), `"rx_rz_cnot"` (Eq. 13), `"ry_rz_cnot"` '
        "(Eq. 14), or one of your own (`register_ansatz`).",
        checks.ansatz,
        label="ansatz",
        of_circuit=True,
    )
    features: str = setting(
        "standardized",
        f"What the mapping model is given of a probability p: {with_meanings(FEATURES)}.",
        among(FEATURES),
        label="features",
        of_circuit=True,
    )
    use_basis_bits: bool = setting(
        False,
        "Also give the +-1 bits of the basis state. Row i has the bits of i, always; the authors' code draws them "
        "anew at every forward pass.",
        truth_value,
        label="basis bits",
    )
    mapping_widths: tuple[int, ...] = setting(
        (),
        "Hidden widths of the mapping model; empty means one linear layer.",
        checks.widths,
        label="hidden widths",
    )
    activation: str = setting(
        "none",
        f"Function between hidden layers, one of {listed(ACTIVATIONS)}; the authors' code has none.",
        among(ACTIVATIONS),
        label="activation",
    )
    start: str = setting("identity", f"Values at step 0: {with_meanings(STARTS)}.", among(STARTS), label="start")
    source: str = setting(
        "circuit",
        f"Where the inputs of the mapping model come from; all but the first are controls: {with_meanings(SOURCES)}.",
        among(SOURCES),
        label="source",
    )
    train_circuit: bool = setting(
        True, "`False` freezes the angles.", truth_value, label="angles", of_circuit=True, may_change=True
    )
    backend: str = setting(
        "exact",
        'What runs the circuits: `"exact"` (our simulator), `"torchquantum"` (the paper\'s: the same numbers, dozens '
        "of times slower, to check ours against; set `config.backend` to load an adapter where it is not installed) "
        'or `"ibm"` (a `device`).',
        among(BACKENDS),
        label="backend",
        of_circuit=True,
        may_change=True,
    )
    device: str | None = setting(
        None,
        'Device of the backend `"ibm"`: `"fake_torino"` or `"fake_fez"` (simulated here), or `"ibm_..."` of the '
        "account that is saved on this computer. A step of training is one job, or several where IBM's limits ask for "
        "them. What a device measured is saved with a checkpoint, and serves wherever it is loaded. This setting and "
        "the next three are never read from a file nor written to one: to measure with a loaded adapter, name them in "
        "`from_pretrained`.",
        label="device",
        of_circuit=True,
        is_local=True,
    )
    device_folder: str = setting(
        "device-jobs",
        "Where every job's counts are kept, so that an interrupted run pays for none twice; the limits count the jobs "
        "of this folder.",
        checks.path,
        is_local=True,
    )
    max_jobs: int | None = setting(None, "Jobs to submit at most.", checks.count_or_none, is_local=True)
    max_shots: int | None = setting(
        None, "Shots to submit at most, over all circuits of all jobs.", checks.count_or_none, is_local=True
    )
    measured_by: str | None = setting(
        None,
        "Written by the model: the device whose results are saved with a checkpoint. Nothing acts on it. Not to be "
        "set by hand.",
        checks.recorded_device,
        may_change=True,
    )
    shots: int | str | None = setting(
        None,
        'Measurements of each circuit in a step; `"20x"` is 20 for each basis state, None the exact probabilities. '
        "Each step of training draws anew, once for all its forwards (of a model compiled as a whole, each forward "
        "does). Evaluating, saving and materializing use the last step's draw, whose number is saved, so that one "
        "checkpoint is one adapter.",
        checks.shots,
        label="shots",
        of_circuit=True,
        may_change=True,
    )
    gradient: str | None = setting(
        None,
        'How the angles\' gradient is estimated: `"exact"` (the backward pass of the simulation, at the measured '
        'values: a simulator\'s privilege), `"parameter_shift"` (two more circuits for each angle), `"spsa"` (random '
        'directions) or `"none"` (for `optimize_angles`). None is `"exact"` without shots and `"parameter_shift"` '
        "with them.",
        among(ESTIMATORS, None),
        label="gradient",
        of_circuit=True,
        may_change=True,
    )
    noise: str | None = setting(
        None,
        'A device whose noise is simulated, `"torino"` or `"fez"` (IBM\'s, from a calibration that comes with the '
        "package); None simulates an ideal one. Up to 10 qubits it is exact; beyond, errors are drawn, anew in each "
        "step of training as shots are.",
        among(DEVICES, None),
        label="noise",
        of_circuit=True,
        may_change=True,
    )
    interpolation: str = setting(
        "none",
        'What basis states without counts are given: `"none"` (zero), `"network"` (a small trained network of their '
        'neighbours at Hamming distance 1) or `"blend"` (the network beside the counts of every state). Baselines: '
        '`"laplace"`, `"neighbours"` (their mean), `"random"`.',
        among(INTERPOLATIONS),
        label="interpolation",
        of_circuit=True,
        may_change=True,
    )
    init_seed: int = setting(
        0, "Everything random in the adapter comes from this seed.", checks.natural_number, label="seed"
    )
    save_init: bool = setting(
        True,
        "Save the frozen initialisation with the checkpoint; `False` rebuilds it from `init_seed` when loading.",
        truth_value,
        may_change=True,
    )

    def __post_init__(self) -> None:
        self.check()
        self.set_sizes(SIZES)

    def check(self) -> None:
        """Raise if a setting has a value that cannot be; put numbers and paths into the form that files hold.

        Raises:
            ValueError: for a value out of range, or values that are not possible together.
            TypeError: for a value of the wrong kind.
            ImportError: if a device needs a library that is not installed.
        """
        for name, declared in settings_in(self).items():
            setattr(self, name, declared.check(name, getattr(self, name)))
        checks.check_together(self)
        checks.check_needs(self, [("source", self.source, need) for need in SOURCES[self.source].needs])

    def set_sizes(self, sizes: dict[str, int]) -> None:
        """Set the sizes that were left open."""
        for name, size in sizes.items():
            if getattr(self, name) is None:
                setattr(self, name, size)

    @property
    def is_identity(self) -> bool:
        """Whether the initial values are kept, and what is generated is added to them."""
        return STARTS[self.start].is_identity

    @property
    def measuring_device(self) -> str | None:
        """Name of the device that measures the circuits, or that has measured what a checkpoint holds."""
        return (self.device or self.measured_by) if self.backend == "ibm" else None


def rows_of(settings: GeneratorSettings) -> list[tuple[str, str]]:
    """Return label and name of each setting that says something of a generator, those of circuits only if it has some.

    Args:
        settings: the generator's settings, or a configuration that has them among others.
    """
    has_circuit = SOURCES[settings.source].has_circuit
    declared = settings_in(settings).items()
    return [(one.label, name) for name, one in declared if one.label and (has_circuit or not one.of_circuit)]

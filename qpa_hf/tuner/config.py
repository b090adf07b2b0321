"""`QPAConfig`: every setting of quantum parameter adaptation, its default and its check."""

from __future__ import annotations

import difflib
import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from peft import LoraConfig
from peft.utils.peft_types import PeftType

from qpa_hf.circuit import ANSATZE, BACKENDS, ESTIMATORS, DeviceSettings
from qpa_hf.circuit.noise import DEVICES
from qpa_hf.generator import ACTIVATIONS, FEATURES, INTERPOLATIONS, SOURCES, STARTS, GeneratorSpec
from qpa_hf.tuner.checks import BASES, FAKES, check
from qpa_hf.tuner.refusals import refuse

# Table 1 of https://huggingface.co/papers/2410.09846 lists [32, 64, 128, 128, 64, 32, n_mlp]; the published code has
# one more layer of 32, and only with it do the paper's parameter counts come out.
PAPER_WIDTHS = (32, 64, 128, 128, 64, 32, 32)

# What was best for each basis: benchmarks/LOG.md. With gradient bases a chunk is half a core.
SIZES: dict[str, Callable[[int], dict[str, int]]] = {
    "kaiming": lambda side: {"chunk_size": 384, "n_circuits": 8, "circuit_depth": 8},
    "gradient": lambda side: {"chunk_size": max(1, side * side // 2), "n_circuits": 4, "circuit_depth": 2},
}


@dataclass
class QPAConfig(LoraConfig):
    """Configuration of quantum parameter adaptation: a LoRA whose tensors a generator produces.

    All of LoRA's own fields keep their meaning (`r`, `lora_alpha`, `target_modules`, `use_dora`, ...). One generator
    serves all targeted layers together: their tensors are laid end to end and cut into chunks.

    Source: Liu et al., ICLR 2025 (https://huggingface.co/papers/2410.09846). `QPAConfig.paper` has its settings.

    Args:
        lora_alpha (`int`, *optional*): LoRA's own. 8; with gradient bases what scales every layer by 1: `r`.
        chunk_size (`int`, *optional*): Numbers generated per basis state, n_mlp in the paper. Fewer chunks need fewer
            qubits; larger chunks need more trainable numbers. 384, or half a core with gradient bases.
        n_circuits (`int`, *optional*): Independent circuits, one feature column each. 8, or 4 with gradient bases.
        circuit_depth (`int`, *optional*): Layers of the ansatz, L in the paper. 8, or 2 with gradient bases.
        ansatz (`str`, *optional*, defaults to `"ry_cnot"`): Gate pattern of a layer: `"ry_cnot"` (Eq. 1),
            `"rx_cnot"` (Eq. 12), `"rx_rz_cnot"` (Eq. 13) or `"ry_rz_cnot"` (Eq. 14).
        features (`str`, *optional*, defaults to `"standardized"`): What the mapping model is given of a probability p:
            `"standardized"` (p * 2^N, zero mean, unit variance), `"authors"` (the post-processing in their code, which
            the paper does not mention) or `"probability"` (p itself, Eq. 6).
        use_basis_bits (`bool`, *optional*, defaults to `False`): Also give the +-1 bits of the basis state. Row i has
            the bits of i, always; the authors' code draws them anew at every forward pass.
        mapping_widths (`tuple[int, ...]`, *optional*, defaults to `()`): Hidden widths of the mapping model; empty
            means one linear layer.
        activation (`str`, *optional*, defaults to `"none"`): Function between hidden layers: `"none"` (as in the
            authors' code), `"relu"`, `"gelu"`, `"silu"` or `"tanh"`.
        start (`str`, *optional*, defaults to `"identity"`): `"identity"`: the adapter changes nothing at step 0
            (PEFT's initialisation, frozen, plus a generated part whose last layer starts at zero). `"authors"`: both
            factors generated, non-zero and mean-free.
        source (`str`, *optional*, defaults to `"circuit"`): Where the features come from. The controls are `"random"`
            (fixed Gaussian numbers in the circuits' place), `"free"` (trained ones), `"bits"` (only the basis state's
            bits) and `"direct"` (neither circuit nor mapping model: every generated value is trained itself).
        basis (`str`, *optional*, defaults to `"kaiming"`): `"kaiming"` generates both factors of each layer.
            `"gradient"` freezes A and U, found once by `initialize_basis` from the gradient's singular vectors, and
            generates only the core R, shape (r, r), of B = U R: r * r numbers a layer.
        n_stages (`int`, *optional*, defaults to 1): How often gradient bases are found in a run. Each stage has
            r / n_stages rows of A and a core of that side; `refresh_basis` begins the next one, and what was
            generated before stays as it is. All trained numbers are trained anew in every stage.
        train_circuit (`bool`, *optional*, defaults to `True`): `False` freezes the angles.
        backend (`str`, *optional*, defaults to `"exact"`): What runs the circuits: `"exact"` (our simulator),
            `"torchquantum"` (the paper's: the same numbers, dozens of times slower, to check ours against; set
            `config.backend` to load an adapter where it is not installed) or `"ibm"` (a `device`).
        device (`str`, *optional*): Of the backend `"ibm"`: `"fake_torino"` or `"fake_fez"` (simulated here), or
            `"ibm_..."` of the account that is saved on this computer. A step of training is one job. What a device
            measured is saved with a checkpoint.
        device_folder (`str`, *optional*, defaults to `"device-jobs"`): Where every job's counts are kept, so that an
            interrupted run pays for none twice; the limits count the jobs of this folder.
        max_jobs (`int`, *optional*): Jobs to submit at most.
        max_shots (`int`, *optional*): Shots to submit at most, over all circuits of all jobs.
        shots (`int` or `str`, *optional*): Measurements of each circuit in a step; `"20x"` is 20 for each basis state,
            None the exact probabilities. Each step of training draws anew, once for all its forwards (of a model
            compiled as a whole, each forward does). Evaluating, saving and materializing use the last step's draw,
            whose number is saved, so that one checkpoint is one adapter.
        gradient (`str`, *optional*): How the angles' gradient is estimated: `"exact"` (the backward pass of the
            simulation, at the measured values: a simulator's privilege), `"parameter_shift"` (two more circuits for
            each angle), `"spsa"` (random directions) or `"none"` (for `optimize_angles`). None is `"exact"` without
            shots and `"parameter_shift"` with them.
        noise (`str`, *optional*): A device whose noise is simulated, `"torino"` or `"fez"` (IBM's, from a calibration
            that comes with the package); None simulates an ideal one. Up to 10 qubits it is exact; beyond, errors are
            drawn, anew in each step of training as shots are.
        interpolation (`str`, *optional*, defaults to `"none"`): What basis states without counts are given: `"none"`
            (zero), `"network"` (a small trained network of their neighbours at Hamming distance 1) or `"blend"` (the
            network beside the counts of every state). Baselines: `"laplace"`, `"neighbours"` (their mean), `"random"`.
        init_seed (`int`, *optional*, defaults to 0): Everything random in the adapter comes from this seed.
        save_init (`bool`, *optional*, defaults to `True`): Save the frozen initialisation with the checkpoint; `False`
            rebuilds it from `init_seed` when loading.
        layout (`list`, *optional*): Written by the model: name and shape of each generated tensor, in the generator's
            order. Not to be set by hand.

    Raises:
        ValueError: for a value out of range, or a LoRA variant that cannot be generated.
        TypeError: for a value of the wrong kind, or an unknown field.
        ImportError: if the backend is "ibm" and the extra `noise` is not installed.

    Example:
        >>> QPAConfig(r=4, target_modules=["lm_head"]).generator_spec(204_100).n_qubits
        10
    """

    lora_alpha: int = field(default=None, metadata={"help": "Lora alpha"})  # type: ignore
    chunk_size: int = field(default=None, metadata={"help": "Numbers generated per basis state (n_mlp)."})  # type: ignore
    n_circuits: int = field(default=None, metadata={"help": "Independent circuits, a feature each."})  # type: ignore
    circuit_depth: int = field(default=None, metadata={"help": "Layers of the ansatz (L)."})  # type: ignore
    ansatz: str = field(default="ry_cnot", metadata={"help": f"Gate pattern, one of {tuple(ANSATZE)}."})
    features: str = field(
        default="standardized", metadata={"help": f"Form of the probabilities, one of {tuple(FEATURES)}."}
    )
    use_basis_bits: bool = field(default=False, metadata={"help": "Give the basis state's +-1 bits as inputs."})
    mapping_widths: tuple[int, ...] = field(default=(), metadata={"help": "Hidden widths; empty = one linear layer."})
    activation: str = field(default="none", metadata={"help": f"Between hidden layers, one of {ACTIVATIONS}."})
    start: str = field(default="identity", metadata={"help": f"Values at step 0, one of {STARTS}."})
    source: str = field(default="circuit", metadata={"help": f"The circuit or a control, one of {SOURCES}."})
    basis: str = field(default="kaiming", metadata={"help": f"Where the frozen factors come from, one of {BASES}."})
    n_stages: int = field(default=1, metadata={"help": "How often gradient bases are found, r / n_stages rows each."})
    train_circuit: bool = field(default=True, metadata={"help": "False freezes the angles."})
    backend: str = field(default="exact", metadata={"help": f"What runs the circuits, one of {tuple(BACKENDS)}."})
    device: str | None = field(default=None, metadata={"help": f"Of backend 'ibm': 'ibm_...', or {FAKES}."})
    device_folder: str = field(default="device-jobs", metadata={"help": "Where a device's counts are kept."})
    max_jobs: int | None = field(default=None, metadata={"help": "Jobs to submit to a device at most."})
    max_shots: int | None = field(default=None, metadata={"help": "Shots to submit to a device at most."})
    shots: int | str | None = field(default=None, metadata={"help": 'Measurements of a circuit; "20x": a state.'})
    gradient: str | None = field(default=None, metadata={"help": f"Of the angles, one of {tuple(ESTIMATORS)}."})
    noise: str | None = field(default=None, metadata={"help": f"Of a device that is simulated, one of {DEVICES}."})
    interpolation: str = field(default="none", metadata={"help": f"Of missed states, one of {tuple(INTERPOLATIONS)}."})
    init_seed: int = field(default=0, metadata={"help": "Everything random comes from this seed."})
    save_init: bool = field(default=True, metadata={"help": "Save the frozen initialisation, or rebuild it."})
    layout: list[Any] | None = field(default=None, metadata={"help": "Names and shapes of the generated tensors."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType("QPA")
        self._is_loaded = False
        check(self)
        if self.lora_alpha is None:
            self._set_alphas()
        for name, size in SIZES[self.basis](self.r // self.n_stages).items():
            if getattr(self, name) is None:
                setattr(self, name, size)
        refuse(self)
        self.mapping_widths = tuple(self.mapping_widths)
        if self.trainable_token_indices is None:
            # PEFT saves the whole base embedding beside an adapter that targets `lm_head`, unless it believes that
            # tokens are trained; then it does so only where the vocabulary was resized, which is what we want.
            self.trainable_token_indices = {}

    def _set_alphas(self) -> None:
        """Set PEFT's default; for gradient bases, which have their scale, what multiplies each layer's update by 1."""
        if self.basis == "kaiming":
            self.lora_alpha = 8
            return
        ranks: dict[str, int] = self.rank_pattern or {}
        alpha: Callable[[int], Any] = math.sqrt if self.use_rslora else int
        self.lora_alpha = alpha(self.r)
        self.alpha_pattern = {name: alpha(rank) for name, rank in ranks.items()} | (self.alpha_pattern or {})

    @classmethod
    def paper(cls, chunk_size: int = 2048, **kwargs: Any) -> QPAConfig:
        """Return the paper's generator for one of its chunk sizes; keyword arguments override or add LoRA's fields.

        Trainable counts are exactly those of the paper. Two things in the authors' code are not copied: basis bits
        drawn at random in every forward pass, and A and B named the other way round.

        Example:
            >>> QPAConfig.paper(2048).generator_spec(204_100).n_trainable
            106264
        """
        settings: dict[str, Any] = {
            "n_circuits": 1,
            "circuit_depth": 8,
            "features": "authors",
            "use_basis_bits": True,
            "mapping_widths": PAPER_WIDTHS,
            "start": "authors",
        }
        return cls(chunk_size=chunk_size, **(settings | kwargs))

    def generator_spec(self, n_values: int) -> GeneratorSpec:
        """Return the sizes of the generator for `n_values` generated numbers."""
        return GeneratorSpec(
            n_values=n_values,
            chunk_size=min(self.chunk_size, n_values),
            n_circuits=self.n_circuits,
            circuit_depth=self.circuit_depth,
            ansatz=self.ansatz,
            features=self.features,
            use_basis_bits=self.use_basis_bits,
            mapping_widths=self.mapping_widths,
            activation=self.activation,
            start=self.start,
            source=self.source,
            train_circuit=self.train_circuit,
            backend=self.backend,
            shots=self.shots,
            gradient=self.gradient or ("exact" if self.shots is None else "parameter_shift"),
            noise=self.noise,
            device=(
                DeviceSettings(self.device, self.device_folder, self.max_jobs, self.max_shots) if self.device else None
            ),
            interpolation=self.interpolation,
            seed=self.init_seed,
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs: Any) -> Any:
        """Load from a directory or the Hub; a local checkpoint that was cut short is refused at once.

        Raises:
            ValueError: if the weights beside a local configuration are incomplete.
        """
        from qpa_hf.checkpoint import check_complete

        folder = os.path.join(pretrained_model_name_or_path, subfolder or "")
        if os.path.isdir(folder):
            check_complete(folder)
        config = super().from_pretrained(pretrained_model_name_or_path, subfolder=subfolder, **kwargs)
        config._is_loaded = True
        return config

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """Save as PEFT does; beside a trained adapter, its card takes the place of PEFT's unfilled one."""
        from qpa_hf.model_cards import write_card

        super().save_pretrained(save_directory, **kwargs)
        if self.layout:
            write_card("native", save_directory, self)


def _name_unknown_fields(init: Any) -> Any:
    """Wrap the dataclass's __init__ so that a misspelt field is answered with the nearest known one."""
    known = [f.name for f in fields(QPAConfig) if f.init]

    @functools.wraps(init)
    def wrapped(self: QPAConfig, *args: Any, **kwargs: Any) -> None:
        for name in kwargs:
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"Did you mean `{near[0]}`?" if near else "See `help(QPAConfig)` for the known ones."
                # PEFT, when it loads what a newer version saved, drops the fields that an error in these words names.
                raise TypeError(f"QPAConfig got an unexpected keyword argument '{name}'. {hint}")
        init(self, *args, **kwargs)

    return wrapped


QPAConfig.__init__ = _name_unknown_fields(QPAConfig.__init__)  # type: ignore[method-assign]

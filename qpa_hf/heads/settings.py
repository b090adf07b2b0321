"""The settings of a quantum head, their defaults, their checks, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from qpa_hf.measurement import n_shots
from qpa_hf.measurement.noise import DEVICES, find_snapshot
from qpa_hf.messages import shown, whole_number
from qpa_hf.schema.kinds import is_number

FUSIONS = ("concatenate", "mean")
MAX_QUBITS = 20  # the states of a batch, and those that a gradient keeps, would not fit beyond


@dataclass(frozen=True)
class HeadSettings:
    """A quantum head: encoders that are simulated, then the circuit that is meant for a device.

    Source: https://arxiv.org/abs/2504.08732, whose letters are given. What it leaves open is said where it is decided.

    Args:
        n_features (`int`): the length d of an embedding.
        n_classes (`int`, defaults to 2): the number of logits; ceil(log2(n_classes)) qubits are measured, one for two
            classes.
        n_qubits (`int`, defaults to 10): Q, the number of qubits of the measured circuit.
        n_encoders (`int`, defaults to 1): E, the number of encoders side by side, each with angles of its own.
        n_layers (`int`, defaults to 8): the number of layers of each encoder.
        n_main_layers (`int`, defaults to 2): R, the number of layers of the measured circuit after the last upload.
        n_reuploads (`int`, defaults to 2): N, the number of times that the latent vector is uploaded again; a layer
            precedes each.
        connectivity (`int`, defaults to 1): C, blocks of CNOT and R_Y join qubits at distances 1 to C on a ring, as
            far as a circuit is wide enough. In our study 4 was more accurate than 1; it takes over twice as long.
        fusion (`str`, defaults to `"concatenate"`): how the encoders' expectations become one latent vector, which
            the paper does not say: end to end, or their `"mean"`.
        n_latent (`int`, *optional*): the number of expectations of each encoder; by default as many as there is room
            for.
        constant (`float`, defaults to 1.0): the amplitude beside the embedding that no embedding changes, not in the
            paper; 0 leaves it out, and the head then cannot tell an embedding from its negative.
        shots (`int` or `str`, *optional*): the number of measurements of each sentence, or per measured state as in
            `"20x"`; exact if None.
        noise (`str`, *optional*): "torino" or "fez": gates and readout err as often as that device's.
        n_trajectories (`int`, defaults to 16): the number of random courses of errors that are averaged for each
            sentence.
        train_circuit (`bool`, defaults to `True`): whether the angles are trained; without it only the readout is, a
            control.
        seed (`int`, defaults to 0): the seed of the first angles, the shots and the errors.

    Example:
        >>> settings = HeadSettings(n_features=384, n_classes=3, n_qubits=6)
        >>> settings.n_measured  # qubits: four states for three classes
        2
    """

    n_features: int
    n_classes: int = 2
    n_qubits: int = 10
    n_encoders: int = 1
    n_layers: int = 8
    n_main_layers: int = 2
    n_reuploads: int = 2
    connectivity: int = 1
    fusion: str = "concatenate"
    n_latent: int | None = None
    constant: float = 1.0
    shots: int | str | None = None
    noise: str | None = None
    n_trajectories: int = 16
    train_circuit: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.fusion not in FUSIONS:
            raise ValueError(
                f"`fusion`={shown(self.fusion)} is not known. Use one of {', '.join(map(repr, FUSIONS))}."
            )
        self._check_qubits()
        self._check_latent()
        n_shots(self.shots, self.n_measured)
        if self.noise is not None:
            if not isinstance(self.noise, str) or self.noise not in DEVICES:
                raise ValueError(
                    f"`noise`={shown(self.noise)} is not known. Use one of {', '.join(map(repr, DEVICES))}."
                )
            find_snapshot(self.noise).line(self.n_qubits)

    def _check_kinds(self) -> None:
        """Make Python's own numbers of all, NumPy's included, which JSON cannot hold."""
        least = {
            "n_features": 1, "n_classes": 2, "n_qubits": 1, "n_encoders": 1, "n_layers": 0, "n_main_layers": 0,
            "n_reuploads": 0, "connectivity": 1, "n_trajectories": 1, "n_latent": 1, "seed": 0,
        }  # fmt: skip
        for name, bound in least.items():
            if name != "n_latent" or self.n_latent is not None:
                object.__setattr__(self, name, whole_number(name, getattr(self, name), bound))
        if isinstance(self.shots, Integral) and not isinstance(self.shots, bool):
            object.__setattr__(self, "shots", int(self.shots))
        if not is_number(self.constant) or self.constant < 0:
            raise ValueError(f"`constant`={shown(self.constant)} is not allowed. Use a number of at least 0.")
        object.__setattr__(self, "constant", float(self.constant))
        if self.train_circuit not in (False, True):
            raise ValueError(f"`train_circuit`={shown(self.train_circuit)} is not allowed. Use True or False.")
        object.__setattr__(self, "train_circuit", bool(self.train_circuit))

    def _check_qubits(self) -> None:
        widest = max(self.n_qubits, self.n_encoder_qubits)
        if widest > MAX_QUBITS:
            raise ValueError(
                f"The head has circuits of {widest} qubits; at most {MAX_QUBITS} are simulated. Use fewer."
            )
        if self.n_measured > self.n_qubits:
            raise ValueError(
                f"`n_classes`={self.n_classes} are told apart by {self.n_measured} measured qubits, but "
                f"`n_qubits`={self.n_qubits}. Set `n_qubits`>={self.n_measured}."
            )
        farthest = max(1, widest // 2)
        if self.connectivity > farthest:
            raise ValueError(
                f"`connectivity`={self.connectivity} is not allowed: on a ring of {widest} qubits no two are farther "
                f"apart than {farthest}. Use 1 to {farthest}."
            )

    def _check_latent(self) -> None:
        n_values = self.n_latent_values
        if self.n_latent is not None and not 1 <= self.n_latent <= self.n_encoder_qubits:
            raise ValueError(
                f"`n_latent`={self.n_latent} is not allowed: an encoder has {self.n_encoder_qubits} qubits. Use 1 to "
                f"{self.n_encoder_qubits}, or leave it None."
            )
        if not 1 <= n_values <= self.n_qubits or self.n_encoders > n_values and self.fusion == "concatenate":
            raise ValueError(
                f"The {self.n_encoders} encoders give {max(n_values, self.n_encoders)} latent values, which need as "
                f"many qubits, but `n_qubits`={self.n_qubits}. Use more qubits, fewer encoders or a smaller "
                "`n_latent`, or fusion='mean'."
            )

    @property
    def n_encoder_qubits(self) -> int:
        """Qubits whose amplitudes hold an embedding, and the constant if there is one."""
        # 768 features and the constant are 769 amplitudes, for which 10 qubits have room: they have 1,024 states.
        return max(1, (self.n_features + bool(self.constant) - 1).bit_length())

    @property
    def n_latent_each(self) -> int:
        """Pauli-Z expectations of each encoder: of its first qubits."""
        room = self.n_qubits // self.n_encoders if self.fusion == "concatenate" else self.n_qubits
        return min(room, self.n_encoder_qubits) if self.n_latent is None else self.n_latent

    @property
    def n_latent_values(self) -> int:
        """Length of the latent vector."""
        return self.n_latent_each * (self.n_encoders if self.fusion == "concatenate" else 1)

    @property
    def n_measured(self) -> int:
        """Qubits that are measured: the first ones."""
        # Two classes are the two results of one qubit, three and four classes those of two qubits.
        return (self.n_classes - 1).bit_length()

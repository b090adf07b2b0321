"""All arms: the base as it is, PEFT's methods, QPA at several sizes, and the controls of its circuits."""

from __future__ import annotations

import math
from typing import Any

from peft import PeftConfig

from benchmarks.harness.study import Arm
from benchmarks.quality.cores import rotation_side
from benchmarks.quality.on_bases import FromCircuits, OnBases, Own
from benchmarks.quality.rivals import RIVALS, core_side, hashing
from benchmarks.quality.task import Targets
from qpa_hf import QPAConfig

BASE = "frozen base"
LORA = "LoRA r=4"  # the arm whose quality is to be had for a tenth of its numbers
CONTROLS: dict[str, dict[str, Any]] = {
    "random": {"source": "random"},
    "bits": {"source": "bits"},
    "free": {"source": "free"},
    "frozen": {"train_circuit": False},
}

CORES = 6144  # numbers in the cores of all targets together, from which ranks follow
FEW = {"n_circuits": 4, "circuit_depth": 2}  # few shallow circuits: see benchmarks/LOG.md


def _qpa(family: str = "QPA", control_of: str | None = None, **fields: Any) -> Arm:
    def config(targets: Targets, seed: int) -> PeftConfig:
        r = fields.get("r", 4)
        own: dict[str, Any] = {"r": r, "lora_alpha": 2 * r, "init_seed": seed}
        return QPAConfig(target_modules=targets.modules, task_type=targets.task_type, **(own | fields))

    return Arm(family, config, control_of)


def _paper(chunk_size: int) -> Arm:
    def config(targets: Targets, seed: int) -> PeftConfig:
        own = {"r": 4, "lora_alpha": 8, "init_seed": seed}
        return QPAConfig.paper(chunk_size, target_modules=targets.modules, task_type=targets.task_type, **own)

    return Arm("QPA, paper", config)


def _gradient(
    rank: Any, n_stages: int = 1, family: str = "QPA, gradient", control_of: str | None = None, **fields: Any
) -> Arm:
    """Cores in bases from the gradient, of one rank or of what `rank` makes of the targets, in each stage."""

    def config(targets: Targets, seed: int) -> PeftConfig:
        r = min(rank(targets) if callable(rank) else rank, *(min(shape) // n_stages for shape in targets.shapes))
        own: dict[str, Any] = {"r": n_stages * r, "n_stages": n_stages, "init_seed": seed, "basis": "gradient"}
        return QPAConfig(target_modules=targets.modules, task_type=targets.task_type, **own, **fields)

    return Arm(family, config, control_of)


def _with_controls(name: str, make: Any, *sizes: Any, **fields: Any) -> dict[str, Arm]:
    controls = {
        f"{name}, {control}": make(*sizes, family="control", control_of=name, **(fields | changes))
        for control, changes in CONTROLS.items()
    }
    return {name: make(*sizes, **fields)} | controls


N_COLUMNS = FEW["n_circuits"]  # inputs of the mapping model; it has a bias, too
MATCHED_RANK = 20
MATCHED_CHUNK = MATCHED_RANK**2 // 2  # QPAConfig's own


def n_trained(source: str, n_generated: int, chunk_size: int) -> int:
    """Return how many numbers QPA, or a control of its circuits, trains for the cores of all targets."""
    n_chunks = -(-n_generated // chunk_size)
    n_qubits = max(1, (n_chunks - 1).bit_length())
    instead = {
        "circuit": N_COLUMNS * FEW["circuit_depth"] * n_qubits,
        "free": N_COLUMNS * n_chunks,
        "random": 0,
        "bits": 0,
    }
    n_inputs = n_qubits if source == "bits" else N_COLUMNS
    return instead[source] + (n_inputs + 1) * chunk_size


def matched_chunk(source: str, n_generated: int) -> int:
    """Return the chunk size with which a control trains as many numbers as QPA, as nearly as there is one."""
    own = n_trained("circuit", n_generated, MATCHED_CHUNK)
    return min(range(1, own), key=lambda size: (abs(n_trained(source, n_generated, size) - own), size))


def _matched(source: str) -> Arm:
    """The control of QPA at r = 20 with as many trained numbers; the adapter and free numbers start as QPA's do."""

    def config(targets: Targets, seed: int) -> PeftConfig | Own:
        chunk_size = matched_chunk(source, MATCHED_RANK**2 * len(targets.shapes))

        def of(source: str) -> QPAConfig:
            own = {"source": source, "chunk_size": chunk_size, **FEW}
            return _gradient(MATCHED_RANK, **own).make(targets, seed)

        return FromCircuits(of("free"), of("circuit")) if source == "free" else of(source)

    return Arm("control", config, f"QPA gradient r={MATCHED_RANK}")


def _core(form: str, rank: Any, n: int, family: str, control_of: str | None = None) -> Arm:
    """A form of `cores.FORMS` whose cores train `n` numbers together, or some fewer."""

    def config(targets: Targets, seed: int) -> OnBases:
        each = n // len(targets.shapes)
        r = min(rank(each) if callable(rank) else rank, *(min(shape) for shape in targets.shapes))
        if form == "leading":
            each = r * (r - 1) // 2  # as many as the rotation has
        elif form == "weights":
            each = r * r
        return OnBases(form, each, seed, _gradient(r, source="direct").make(targets, seed))

    return Arm(family, config, control_of)


CORES_OF_OTHERS: dict[str, Arm] = {
    "aligned orthogonal": _core("rotation", rotation_side, 1200, "orthogonal"),
    "aligned orthogonal, free core": _core("leading", rotation_side, 1200, "control", "aligned orthogonal"),
    "Quantum-PEFT core": _core("circuit", 32, 1200, "Quantum-PEFT"),
    "Quantum-PEFT core, random pairs": _core("paired", 32, 1200, "control", "Quantum-PEFT core"),
    "LoRA-XS 1,200": _core("weights", math.isqrt, 1200, "PEFT"),
}
# The regime in which angles are few and addresses many: each basis state stands for two generated values, some ten
# thousands in all, of LoRA at r = 32 on its ordinary bases. The sizes make about as many trained numbers of each kind
# on the task mnist.
ADDRESSES = "QPA addresses"
ADDRESS: dict[str, Any] = {"r": 32, "chunk_size": 2, "n_circuits": 4, "circuit_depth": 18}
OF_ADDRESSES: dict[str, Arm] = {
    ADDRESSES: _qpa(**ADDRESS),
    f"{ADDRESSES}, free": _qpa("control", ADDRESSES, r=32, chunk_size=181, n_circuits=2, source="free"),
    f"{ADDRESSES}, random": _qpa("control", ADDRESSES, r=32, chunk_size=218, n_circuits=4, source="random"),
    f"{ADDRESSES}, coordinate network": _qpa(
        "control", ADDRESSES, r=32, chunk_size=2, source="bits", mapping_widths=(60,), activation="gelu"
    ),
    f"{ADDRESSES}, hashing": hashing(32, 1090, ADDRESSES),
}
QPA: dict[str, Arm] = {
    "QPA chunk 48": _qpa(chunk_size=48, n_circuits=4),
    **_with_controls("QPA chunk 96", _qpa, chunk_size=96),
    **_with_controls("QPA chunk 384", _qpa, chunk_size=384),
    "QPA chunk 1,536": _qpa(chunk_size=1536),
    **{f"QPA paper {chunk:,}": _paper(chunk) for chunk in (256, 2048, 8192)},
    **{
        name: arm
        for chunk in (64, 192, 512)
        for name, arm in _with_controls(
            f"QPA gradient {chunk}", _gradient, core_side(CORES), chunk_size=chunk, **FEW
        ).items()
    },
    "QPA gradient 2,048": _gradient(core_side(40_000), chunk_size=2048, **FEW),
    **_with_controls("QPA gradient r=20", _gradient, 20),
    **{f"QPA gradient r=20, {source} matched": _matched(source) for source in ("free", "random", "bits")},
    **{f"QPA gradient r={r}": _gradient(r) for r in (10, 14, 26, 32, 48, 64)},
    **_with_controls("QPA gradient 3 x r=20", _gradient, 20, 3),
    **{f"QPA gradient 3 x r={r}": _gradient(r, 3) for r in (32, 48)},
    "gradient, direct 3 x 1,200": _gradient(core_side(1200), 3, family="direct", source="direct"),
    **{
        f"gradient, direct {n:,}": _gradient(core_side(n), family="direct", source="direct")
        for n in (600, 1200, 2400, CORES, 20_000)
    },
}

NOTHING = Arm("base", lambda targets, seed: None, rates=(1e-3,))  # the rate trains nothing
ARMS: dict[str, Arm] = {BASE: NOTHING} | RIVALS | CORES_OF_OTHERS | QPA | OF_ADDRESSES
QUICK = (
    BASE,
    "LoRA r=1",
    LORA,
    "VeRA r=64",
    "VB-LoRA r=1",
    "Uni-LoRA 1,152",
    *(f"QPA gradient r=20{what}" for what in ("", ", random")),
)

"""Fill the card of a native, a materialized or a folded adapter."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path, PureWindowsPath
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import HFValidationError, validate_repo_id
from peft import PeftConfig

from qpa_hf._version import __version__
from qpa_hf.checkpoint import write_text
from qpa_hf.circuit.noise import find_snapshot
from qpa_hf.generator import GeneratorSpec
from qpa_hf.model_cards.record import RECORD_NAME, RunRecord
from qpa_hf.tuner.config import QPAConfig
from qpa_hf.tuner.slots import n_generated, own_slots, slots_of

FOLDER = Path(__file__).parent
CARD_NAME = "README.md"
TEMPLATES = {
    "native": ("native.md", "generator.md", "run.md", "citation.md"),
    "materialized": ("materialized.md", "generator.md", "run.md", "citation.md"),
    "folded": ("folded.md", "run.md"),
}
NAMES = {"LORA": "LoRA", "IA3": "IA3"}  # methods whose names are no common words
UNFILLED = "[More Information Needed]"  # in the template of PEFT's own card, which it writes before ours
# What PEFT adds to that template: its version, and how the base is quantised.
ADDED_BY_PEFT = re.compile(
    r"### Framework versions|- PEFT [\d.]+\S*|## Training procedure|The following `.*` quantization config was used.*"
    r"|- _?(quant_method|load_in_\dbit|llm_int8_\w+|bnb_4bit_\w+): .*"
)
MARKER = (
    f"<!-- Written by qpa_hf {__version__}. Remove this line to keep your changes when the adapter is saved again. -->"
)
MARKER_START = MARKER.partition(f" {__version__}")[0]

# PEFT's task: the Hub's task, and the class that loads the base model.
TASKS = {
    "CAUSAL_LM": ("text-generation", "AutoModelForCausalLM"),
    "SEQ_2_SEQ_LM": ("text2text-generation", "AutoModelForSeq2SeqLM"),
    "SEQ_CLS": ("text-classification", "AutoModelForSequenceClassification"),
    "TOKEN_CLS": ("token-classification", "AutoModelForTokenClassification"),
    "QUESTION_ANS": ("question-answering", "AutoModelForQuestionAnswering"),
    "FEATURE_EXTRACTION": ("feature-extraction", "AutoModel"),
}
OWN_METHODS = ("BOTTLENECK",)  # which peft knows only after `import qpa_hf`
SIMULATORS = {"exact": "qpa_hf's own simulator", "torchquantum": "TorchQuantum", "ibm": "Qiskit Aer"}
GRADIENTS = {
    "exact": "exact, from the simulation (a quantum computer has no such gradient)",
    "parameter_shift": "parameter shift",
    "spsa": "simultaneous perturbation (SPSA)",
    "none": "none",
}
ORIGINS = {
    "random": "Fixed random numbers stand in the place of circuits; a mapping model turns them into the weights.",
    "free": "Trained numbers stand in the place of circuits; a mapping model turns them into the weights.",
    "direct": "There are neither circuits nor a mapping model: every number of the weights is trained itself.",
    "bits": "There are no circuits; a mapping model turns the bits of basis states into the weights.",
}


def make_card(kind: str, config: PeftConfig, record: RunRecord | None = None, method: str = "LORA") -> ModelCard:
    """Return the card of an adapter: how to load it, what was trained, what the run recorded.

    Args:
        kind: a key of `TEMPLATES`: "native" (a generator), "materialized" (the plain adapter that it generates), or
            "folded" (a feed-forward adapter that is a LoRA and had no generator).
        config: configuration of the generator, with the layout that training wrote; of the LoRA if "folded".
        record: what the run recorded; nothing is said where it is silent.
        method: PEFT's name for the method whose tensors are generated.
    """
    record = record or RunRecord()
    base, is_on_hub = _base(config)
    tags = [method.lower().replace("_", "-")]
    is_own = method in OWN_METHODS
    generated: dict[str, Any] = {}
    if isinstance(config, QPAConfig):
        tags.append("qpa")
        generated = _generated(config, record, method)
    return ModelCard.from_template(
        _metadata(config, record, base if is_on_hub else "", tags),
        template_str="".join((FOLDER / name).read_text(encoding="utf-8") for name in TEMPLATES[kind]),
        marker=MARKER,
        base=base,
        method=NAMES.get(method, method.replace("_", " ").lower()),
        is_own=is_own,
        load=_load(
            kind == "native" or is_own,
            config,
            base if is_on_hub else f"path/to/{base or 'the/base/model'}",
            record.repo_id,
        ),
        run=record,
        training=_training(record),
        **generated,
    )


def _generated(config: QPAConfig, record: RunRecord, method: str) -> dict[str, Any]:
    """Return what a card says of the generator."""
    slots = slots_of(config.layout or [])
    spec = config.generator_spec(n_generated(config, slots))
    lora = {"rank": config.r, "lora_alpha": config.lora_alpha} if method == "LORA" else {}
    return {
        "n_values": f"{sum(math.prod(slot.shape) for slot in own_slots(slots)):,}",
        "n_trainable": f"{config.n_stages * spec.n_trainable:,}",
        "bases": " between frozen bases from the gradient" if config.basis == "gradient" else "",
        "split": _split(spec, config.n_stages),
        "beside": _beside(config),
        "origin": _origin(config, spec),
        "settings": _settings(config, spec) | lora,
        "control": _control(config, record),
    }


def _beside(config: QPAConfig) -> list[str]:
    """Return what is trained as it is, beside what is generated."""
    parts = [f"`{name}`" for name in config.modules_to_save or []]
    if config.bias != "none":
        parts.append("all biases" if config.bias == "all" else "the adapted layers' biases")
    indices = config.trainable_token_indices or {}
    by_layer = indices.values() if isinstance(indices, dict) else [indices]
    if n_tokens := len({index for one in by_layer for index in one}):
        parts.append(f"the embeddings of {n_tokens} token{'s' * (n_tokens != 1)}")
    return parts


def write_card(
    kind: str,
    folder: str | os.PathLike[str],
    config: PeftConfig,
    record: RunRecord | None = None,
    method: str = "LORA",
) -> None:
    """Write an adapter's card and its record beside it.

    A card that a person has written is kept. Without a record, that of an earlier adapter in the folder is removed.
    """
    path = Path(folder) / CARD_NAME
    if not path.is_file() or is_ours(path):
        write_text(path, str(make_card(kind, config, record, method)))
    if record is None:
        (Path(folder) / RECORD_NAME).unlink(missing_ok=True)
    else:
        write_text(Path(folder) / RECORD_NAME, record.to_json())


def is_ours(card: Path) -> bool:
    """Whether no person has taken over a card: it has our mark, or is PEFT's empty one."""
    text = card.read_text(encoding="utf-8", errors="replace")
    return MARKER_START in text or (UNFILLED in text and _is_empty(text))


def _is_empty(text: str) -> bool:
    """Whether a card says nothing beyond the template that PEFT fills."""
    template = set(ModelCard.from_template(ModelCardData()).text.splitlines())
    body = re.sub(r"\A---\r?\n.*?^---\r?$", "", text, count=1, flags=re.DOTALL | re.MULTILINE)
    return all(line in template or not line or ADDED_BY_PEFT.fullmatch(line) for line in body.splitlines())


def add_record(folder: str | os.PathLike[str], record: RunRecord) -> None:
    """Put what a run recorded into the card of a saved native adapter, and beside it.

    Raises:
        ValueError: if `folder` holds no native adapter.
    """
    config = QPAConfig.from_pretrained(str(folder))
    if not isinstance(config, QPAConfig):
        raise ValueError(f"{folder} holds no native QPA adapter. Give the record to `materialize` instead.")
    write_card("native", folder, config, record)


def _base(config: PeftConfig) -> tuple[str, bool]:
    """Return the base model's name, without the folders above it, and whether it is a Hub id."""
    name = config.base_model_name_or_path or ""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return PureWindowsPath(name).name, False  # which takes both kinds of separators
    return (Path(name).name, False) if Path(name).exists() else (name, bool(name))


def auto_class(config: PeftConfig) -> str:
    """Return the name of the class of transformers that makes the base model of an adapter's task."""
    return TASKS.get(str(config.task_type), (None, "AutoModel"))[1]


def _load(needs_us: bool, config: PeftConfig, base: str, repo_id: str | None) -> str:
    """Return the program that loads the adapter onto its base model."""
    imports = ["import qpa_hf"] if needs_us else []
    imports.append("from peft import PeftModel")
    first = "base = ...  # the base model, made as for the training"
    if config.task_type in TASKS:
        name = auto_class(config)
        imports.append(f"from transformers import {name}")
        labels = "  # and the `num_labels` of the training" if config.task_type in ("SEQ_CLS", "TOKEN_CLS") else ""
        revision = f', revision="{config.revision}"' if config.revision else ""
        first = f'base = {name}.from_pretrained("{base}"{revision}){labels}'
    last = f'model = PeftModel.from_pretrained(base, "{repo_id or "path/to/this/folder"}")'
    return "\n".join([*imports, "", first, last])


def _metadata(config: PeftConfig, record: RunRecord, base: str, tags: list[str]) -> ModelCardData:
    task = TASKS.get(str(config.task_type), (None,))[0]
    # The Hub refuses results without a task, a data set and a number; these stay in the card's table.
    results = [
        EvalResult(
            task_type=task,
            dataset_type=r.dataset,
            dataset_name=r.dataset,
            dataset_split=r.split,
            metric_type=r.metric,
            metric_name=r.name,
            metric_value=r.value,
        )
        for r in record.results
        if task and r.dataset and math.isfinite(r.value)
    ]
    return ModelCardData(
        base_model=base or None,
        datasets=record.datasets or None,
        eval_results=results or None,
        language=record.language or None,
        library_name="peft",
        license=record.license,
        model_name=(record.repo_id or f"{base or 'adapter'}-{tags[-1]}").rpartition("/")[2] if results else None,
        pipeline_tag=task,
        tags=[*tags, *([f"base_model:adapter:{base}"] if base else [])],
    )


def _split(spec: GeneratorSpec, n_stages: int) -> dict[str, str]:
    inputs = {"numbers in the circuits' place": f"{spec.n_free:,}"} if spec.n_free else {}
    if spec.n_interpolation:
        inputs["network that interpolates between states"] = f"{spec.n_interpolation:,}"
    output = "the values themselves" if spec.source == "direct" else "mapping model, output layer"
    return {
        "angles of the circuits": f"{spec.n_angles if spec.train_circuit else 0:,}",
        **inputs,
        "mapping model, hidden layers": f"{spec.n_hidden:,}",
        output: f"{spec.n_output:,}",
        f"all, in each of {n_stages} stages" if n_stages > 1 else "all": f"{spec.n_trainable:,}",
    }


def _origin(config: QPAConfig, spec: GeneratorSpec) -> str:
    if spec.source != "circuit":
        return ORIGINS[spec.source]
    circuits = f"{spec.n_circuits} circuit{'s' if spec.n_circuits > 1 else ''} of {spec.n_qubits} qubits"
    measured = f", measured with {spec.n_shots:,} shots each," if spec.n_shots else ""
    turned = f"A mapping model turns the probabilities of {circuits}{measured} into the weights."
    if spec.device is not None and spec.device.name.startswith("ibm_"):
        return f"{turned} The circuits ran on the quantum computer {spec.device.name}; the adapter needs none."
    how = "exactly"
    if spec.noise:
        day = find_snapshot(spec.noise).calibrated.partition(" ")[0]
        how = f"with the noise of ibm_{spec.noise} in its calibration of {day}"
    if spec.device is not None:
        how = f"as {spec.device.name}, with the noise of its calibration snapshot,"
    where = f"on a classical computer ({SIMULATORS[config.backend]})"
    drawn = ", the shots drawn at random" if spec.n_shots else ""
    return (
        f"{turned} The circuits were simulated {how} {where}{drawn}; no quantum computer was used, and none is needed."
    )


def _settings(config: QPAConfig, spec: GeneratorSpec) -> dict[str, Any]:
    circuit = {
        "circuits": spec.n_circuits,
        "qubits": spec.n_qubits,
        "depth": spec.circuit_depth,
        "ansatz": spec.ansatz,
        "angles": "trained" if spec.train_circuit else "not trained",
        "backend": config.backend,
        **({"device": config.device} if config.device else {}),
        "shots": f"{spec.n_shots:,}" if spec.n_shots else "none, probabilities are computed",
        "gradient of the angles": GRADIENTS[spec.gradient] if spec.train_circuit else "none",
        "noise": f"ibm_{spec.noise}" if spec.noise else "none",
        "interpolation": spec.interpolation,
        "features": spec.features,
    }
    return (circuit if spec.source == "circuit" else {}) | {
        "source": spec.source,
        "chunk size": spec.chunk_size,
        "hidden widths": ", ".join(map(str, spec.mapping_widths)) or "none",
        "activation": spec.activation,
        "start": spec.start,
        "basis": config.basis,
        **({"stages": f"{config.n_stages}, all numbers trained anew in each"} if config.n_stages > 1 else {}),
        "seed of the generator": spec.seed,
    }


def _control(config: QPAConfig, record: RunRecord) -> str:
    if config.source != "circuit" or not config.train_circuit:
        what = "its angles are not trained" if config.source == "circuit" else f'`source="{config.source}"`'
        return f"This adapter is itself a control: {what}."
    control = record.control
    if control is None:
        return (
            "No control was recorded with this run, so nothing here says whether the circuits contributed anything "
            "over random numbers in their place."
        )
    own = next((r.value for r in record.results if r.metric == control.metric), None)
    against = f", against {own} here" if own is not None else ""
    return f"Control ({control.source}): {control.metric} {control.value}{against}."


def _training(record: RunRecord) -> dict[str, Any]:
    rows = record.hyperparameters | {
        "steps": record.steps,
        "epochs": record.epochs,
        "training loss since the last start": record.train_loss,
        "seconds since the last start": record.train_seconds,
        "commit": record.commit,
    }
    return {name: value for name, value in (rows | record.versions).items() if value is not None}

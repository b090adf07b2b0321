"""QPA beside LoRA, its own controls and PEFT's frugal methods, on the same model, text and budget of tuning."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import peft
from peft import PeftConfig
from rich.console import Console
from scipy.stats import bootstrap
from transformers import AutoConfig

from qpa_hf.checkpoint import to_json, write_text
from qpa_hf.training.data import TextData, read_data
from qpa_hf.training.folder import begun, claim, discard
from qpa_hf.training.run import TrainingError, fit, load_tokenizer
from qpa_hf.training.settings import TRAINING_DEFAULTS, RunSettings, check_least, check_names, check_stages
from qpa_hf.tuner import QPAConfig

# What ends a run that a model or a rate cannot have, and not the comparison.
NOT_RUN = (TrainingError, ValueError, TypeError, AttributeError, NotImplementedError, KeyError)
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
FEWEST_SEEDS = 3  # a bootstrap interval of two differences is no more than the two
DEVELOPMENT_SHARE = 8  # one training block in so many, the last ones, serves to choose the learning rates
QPA = "QPA"
ON_GRADIENTS = "QPA, gradient bases"
OWN = (QPA, ON_GRADIENTS)  # whose differences to other arms are reported
ONCE = {"save_strategy": "no", "eval_strategy": "no"}  # a run of an arm is short, and evaluated at its end
SHARED = (
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "fan_in_fan_out",
    "bias",
    "modules_to_save",
    "task_type",
)


def _shared(settings: RunSettings) -> dict[str, Any]:
    given = {"task_type": "CAUSAL_LM"} | settings.adapter
    return {name: given[name] for name in SHARED if name in given}


def _lora(r: int, **more: Any) -> Callable[[RunSettings, int], PeftConfig]:
    return lambda settings, _: peft.LoraConfig(r=r, lora_alpha=2 * r, **_shared(settings), **more)


def _qpa(**changes: Any) -> Callable[[RunSettings, int], PeftConfig]:
    def config(settings: RunSettings, seed: int) -> PeftConfig:
        adapter = settings.adapter | changes | {"init_seed": seed}
        return RunSettings(settings.model, settings.data, adapter, settings.training).adapter_config()

    return config


def _qpa_on_gradients(**changes: Any) -> Callable[[RunSettings, int], PeftConfig]:
    """QPA on gradient bases with its own defaults, whatever the run's adapter is."""
    fixed: dict[str, Any] = {"basis": "gradient", "r": 20} | changes
    return lambda settings, seed: QPAConfig(**_shared(settings), **fixed, init_seed=seed)


def _method(name: str, **fields: Any) -> Callable[[RunSettings, int], PeftConfig]:
    """A method of PEFT; a version of PEFT without it leaves the arm out."""
    return lambda settings, _: getattr(peft, name)(**_shared(settings), **fields)


def _vb_lora(settings: RunSettings, _: int) -> PeftConfig:
    width = AutoConfig.from_pretrained(settings.model).hidden_size
    return peft.VBLoRAConfig(r=4, num_vectors=64, vector_length=math.gcd(width, 256), **_shared(settings))


# Sizes are the methods' own small ones; what they come to in trainable numbers is in the table and the picture.
ARMS: dict[str, Callable[[RunSettings, int], PeftConfig]] = {
    "LoRA r=1": _lora(1),
    "LoRA r=2": _lora(2),
    "LoRA r=8": _lora(8),
    "DoRA r=1": _lora(1, use_dora=True),
    QPA: _qpa(),
    "QPA, random numbers": _qpa(source="random"),
    "QPA, basis bits": _qpa(source="bits"),
    "QPA, frozen angles": _qpa(train_circuit=False),
    ON_GRADIENTS: _qpa_on_gradients(),
    f"{ON_GRADIENTS}, random numbers": _qpa_on_gradients(source="random"),
    f"{ON_GRADIENTS}, cores trained directly": _qpa_on_gradients(source="direct"),
    "VeRA": _method("VeraConfig", r=64),
    "VB-LoRA": _vb_lora,
    "FourierFT": _method("FourierFTConfig", n_frequency=100),
    "Uni-LoRA": _method("UniLoraConfig", theta_d_length=1024),
    "TinyLoRA": _method("TinyLoraConfig"),
    "OFT": _method("OFTConfig", oft_block_size=32, block_share=True, use_cayley_neumann=True),
}


@dataclass(frozen=True)
class Options:
    """What a comparison runs.

    Args:
        arms: keys of `ARMS`; all if empty.
        rates: learning rates that every arm chooses from.
        n_seeds: runs of each arm at its chosen rate.
    """

    arms: tuple[str, ...] = ()
    rates: tuple[float, ...] = RATES
    n_seeds: int = 1


@dataclass(frozen=True)
class Row:
    """One arm's result."""

    arm: str
    n_trainable: int
    rate: float
    values: list[float]  # perplexity on the validation text, by seed
    is_at_edge: bool = False  # the rate is the smallest or the largest one that was tried

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds, if there are several."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass
class Comparison:
    """All arms' results, and why others are missing."""

    rows: list[Row]
    left_out: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, with the paired differences, for machines."""
        rows = [asdict(row) | {"mean": row.mean, "spread": row.spread} for row in self.rows]
        return {"rows": rows, "left_out": self.left_out, "differences": self.differences()}

    def differences(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return the perplexity of each arm of `OWN` minus each other arm's.

        They are paired by seed, with a 95 % bootstrap interval.
        """
        return {own.arm: self._differences(own) for own in self.rows if own.arm in OWN}

    def _differences(self, own: Row) -> dict[str, dict[str, Any]]:
        found = {}
        for row in self.rows:
            if row.arm != own.arm:
                pairs = [a - b for a, b in zip(own.values, row.values, strict=True)]
                found[row.arm] = {"mean": statistics.fmean(pairs), "interval": mean_interval(pairs)}
        return found

    def sentences(self) -> list[str]:
        """Say what the differences say, and no more."""
        lines = [
            f"{row.arm} is best at {row.rate:g}, an end of the grid: it may do better at rates beyond (--rate)."
            for row in self.rows
            if row.is_at_edge
        ]
        for own, differences in self.differences().items():
            lines += [_sentence(own, arm, **difference) for arm, difference in differences.items()]
        return lines


def _sentence(own: str, arm: str, mean: float, interval: tuple[float, float] | None) -> str:
    line = f"{own}: perplexity {abs(mean):.2f} {'below' if mean < 0 else 'above'} that of {arm}"
    if interval is None:
        return f"{line}; fewer than {FEWEST_SEEDS} seeds are too few to tell a difference from chance."
    return f"{line} (95 % interval of the difference {interval[0]:.2f} to {interval[1]:.2f})."


def mean_interval(values: list[float]) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of the mean; None for fewer than `FEWEST_SEEDS` values.

    For paired differences give the differences.
    """
    if len(values) < FEWEST_SEEDS:
        return None
    found = bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=0).confidence_interval
    return float(found.low), float(found.high)


def compare(settings: RunSettings, folder: Path, options: Options, is_fresh: bool = False) -> Comparison:
    """Run every arm: first each learning rate once, on a part of the training text, then the best one with each seed.

    Every finished run is a JSON file of its own in `folder/runs`, which is not run again. With `is_fresh`, an earlier
    comparison is removed once a run has finished. A learning rate that an arm cannot be trained at is no choice for
    it; an arm without any, or that diverges with some seed, is left out, with the reason.

    Raises:
        ValueError: for an unknown arm, a setting that its runs cannot have, or if no arm can be run.
        FileExistsError: if the folder holds a comparison with other settings.
    """
    check_names(options.arms, ARMS, "A comparison", "arm")
    for rate in options.rates:
        check_least("learning_rate", rate)
    _check_decided(settings)
    data = read_data(settings.data, load_tokenizer(settings.model))
    if len(data.train) < 2:
        raise ValueError(
            "The training text fills one block, and a comparison needs another one to choose learning rates on. Use "
            "more text or a smaller `data.block_length`."
        )
    check_stages(settings.adapter_config(), settings.n_steps(len(_tuning(data).train)))
    with begun(folder, is_fresh):
        claim(folder, settings, data)
        result = _run(settings, data, folder, options)
    write_text(folder / "comparison.json", to_json(result.to_dict()) + "\n")
    return result


def _check_decided(settings: RunSettings) -> None:
    """Refuse what a comparison decides for itself, and a run does not."""
    training = settings.training
    if training.get("load_best_model_at_end"):
        raise ValueError(
            "`training.load_best_model_at_end`=True is not allowed in a comparison: its runs save no checkpoints, and "
            "are evaluated as they are at their end. Leave it out."
        )
    seeds = {"training.seed": training["seed"], "adapter.init_seed": settings.adapter.get("init_seed", 0)}
    for name, seed in seeds.items():
        if seed != TRAINING_DEFAULTS["seed"]:
            raise ValueError(
                f"`{name}`={seed} is not allowed in a comparison: its runs take the seeds 0, 1, 2 and so on. Leave it "
                "out, and say how many with --seeds."
            )


def _tuning(data: TextData) -> TextData:
    """Return the training text as what learning rates are chosen on."""
    n_development = max(1, len(data.train) // DEVELOPMENT_SHARE)
    return TextData(data.train[:-n_development], data.train[-n_development:], data.name, "development")


def _run(settings: RunSettings, data: TextData, folder: Path, options: Options) -> Comparison:
    tuning, result = _tuning(data), Comparison([])
    for arm in dict.fromkeys(options.arms or ARMS):
        runs, scores, reason = _Runs(arm, settings, folder), dict[float, float](), ""
        for rate in options.rates:
            try:
                score = runs.result(tuning, rate, 0, "tuning")["perplexity"]
                if math.isfinite(score):
                    scores[rate] = score
                else:
                    reason = f"its perplexity is {score} at learning rate {rate:g}"
            except NOT_RUN as error:  # a rate at which it diverges, or an arm that this model cannot have
                reason = " ".join(str(error).split())
        if not scores:
            result.left_out[arm] = reason
            continue
        rate = min(scores, key=scores.__getitem__)
        is_at_edge = len(options.rates) > 1 and rate in (min(options.rates), max(options.rates))
        try:
            finished = [runs.result(data, rate, seed, "final") for seed in range(options.n_seeds)]
        except NOT_RUN as error:
            result.left_out[arm] = " ".join(str(error).split())
            continue
        values = [run["perplexity"] for run in finished]
        if not all(map(math.isfinite, values)):
            n_lost = sum(not math.isfinite(value) for value in values)
            result.left_out[arm] = f"it diverged in {n_lost} of {len(values)} runs at learning rate {rate:g}"
            continue
        result.rows.append(Row(arm, finished[0]["n_trainable"], rate, values, is_at_edge))
    if not result.rows:
        arm, reason = next(iter(result.left_out.items()))
        raise ValueError(f"No arm can be run; {arm}: {reason}")
    return result


@dataclass(frozen=True)
class _Runs:
    """The runs of one arm, each recorded in a file."""

    arm: str
    settings: RunSettings
    folder: Path

    def result(self, data: TextData, rate: float, seed: int, purpose: str) -> dict[str, Any]:
        slug = "".join(c if c.isalnum() else "-" for c in self.arm.lower())
        path = self.folder / "runs" / f"{slug}-{purpose}-rate-{rate:g}-seed-{seed}.json"
        if path.is_file():
            known = json.loads(path.read_text(encoding="utf-8"))
            return known | {"perplexity": float(known["perplexity"])}  # which has a name if it is not finite
        config = ARMS[self.arm](self.settings, seed)
        scratch = self.folder / "scratch"
        Console(stderr=True).print(f"{self.arm}: {purpose}, learning rate {rate:g}, seed {seed}")
        finished = fit(config, self.settings, data, scratch, learning_rate=rate, seed=seed, **ONCE)
        result = {
            "arm": self.arm,
            "purpose": purpose,
            "learning_rate": rate,
            "seed": seed,
            "n_trainable": finished.n_trainable,
            "perplexity_before": finished.perplexity_before,
            "perplexity": finished.perplexity,
            "losses": finished.losses,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, to_json(result, indent=None) + "\n")
        discard(self.folder)
        return result

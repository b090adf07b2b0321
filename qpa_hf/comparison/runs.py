"""The runs of a comparison: learning rates chosen on a part of the training text, then several seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qpa_hf.checkpoint import NOT_FINITE, to_json, write_text
from qpa_hf.comparison.arms import ARMS, named_arms
from qpa_hf.comparison.result import Comparison, Row
from qpa_hf.messages import shown
from qpa_hf.schema import fits, read_object
from qpa_hf.terminal import console
from qpa_hf.training.checks import check_least
from qpa_hf.training.data import Examples
from qpa_hf.training.folder import discard, started_run
from qpa_hf.training.run import TrainingError, fit
from qpa_hf.training.settings import TRAINING_DEFAULTS, RunSettings, check_stages, read_data
from qpa_hf.training.tasks import TASKS, Task

# What ends a run that a model or a rate cannot have, and not the comparison.
NOT_RUN = (TrainingError, ValueError, TypeError, AttributeError, NotImplementedError, KeyError)
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
DEVELOPMENT_SHARE = 8  # one training block in so many, the last ones, serves to choose the learning rates
ONCE = {"save_strategy": "no", "eval_strategy": "no"}  # a run of an arm is short, and evaluated at its end


@dataclass(frozen=True)
class Options:
    """What a comparison runs.

    Args:
        arms: the names of the arms, keys of `ARMS` in small or capital letters; all of them if empty.
        rates: the learning rates that every arm chooses from.
        n_seeds: the number of runs of each arm at its chosen rate.
    """

    arms: tuple[str, ...] = ()
    rates: tuple[float, ...] = RATES
    n_seeds: int = 1


def compare(settings: RunSettings, folder: Path, options: Options, is_fresh: bool = False) -> Comparison:
    """Run every arm: first each learning rate once, on a part of the training text, then the best one with each seed.

    Every finished run is a JSON file of its own in `folder/runs`, which is not run again. With `is_fresh`, an earlier
    comparison is removed once a run has finished. A learning rate that an arm cannot be trained at is no choice for
    it; an arm without any, or that diverges with some seed, is left out, with the reason.

    Raises:
        ValueError: for an unknown arm, a setting that its runs cannot have, or if no arm can be run.
        BlockingIOError: if another process uses the folder.
        FileExistsError: if the folder holds a comparison with other settings.
    """
    options = replace(options, arms=tuple(named_arms(options.arms)))
    for rate in options.rates:
        check_least("learning_rate", rate)
    _check_decided(settings)
    task = TASKS[settings.task]
    data = read_data(settings)
    if len(data.train) < 2:
        raise ValueError(
            f"There is only 1 of the {task.unit} to train on, and a comparison needs another one to choose learning "
            "rates on. Use more data, or a smaller `data.block_length`."
        )
    check_stages(settings.adapter_config(), settings.n_steps(len(task.tuning(data, DEVELOPMENT_SHARE).train)))
    with started_run(folder, settings, data, is_fresh):
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


def _run(settings: RunSettings, data: Examples, folder: Path, options: Options) -> Comparison:
    # Every arm has the same budget of tuning, and the examples that the arms are compared on take no part in it.
    task = TASKS[settings.task]
    criterion, metric = task.criterion.name, task.metrics[0]
    tuning = task.tuning(data, DEVELOPMENT_SHARE)
    result = Comparison([], metric=metric)
    for arm in options.arms or ARMS:
        runs = _Runs(arm, settings, folder)
        scores: dict[float, float] = {}
        reason = ""
        for rate in options.rates:
            try:
                score = runs.result(tuning, rate, 0, "tuning")[criterion]
                if math.isfinite(score):
                    scores[rate] = score
                else:
                    reason = f"its {criterion} is {score} at learning rate {rate:g}"
            except NOT_RUN as error:  # a rate at which it diverges, or an arm that this model cannot have
                reason = " ".join(str(error).split())
        if not scores:
            result.left_out[arm] = reason
            continue
        rate = min(scores, key=scores.__getitem__)
        # The best rate of a grid's end may not be the best at all: the table marks it, and a sentence says so.
        is_at_edge = len(options.rates) > 1 and rate in (min(options.rates), max(options.rates))
        try:
            finished = [runs.result(data, rate, seed, "final") for seed in range(options.n_seeds)]
        except NOT_RUN as error:
            result.left_out[arm] = " ".join(str(error).split())
            continue
        values = [run[metric.name] for run in finished]
        n_lost = sum(not math.isfinite(run[criterion]) for run in finished)
        if n_lost:
            result.left_out[arm] = f"it diverged in {n_lost} of {len(values)} runs at learning rate {rate:g}"
            continue
        result.rows.append(Row(arm, finished[0]["n_trainable"], rate, values, is_at_edge))
    if not result.rows:
        arm, reason = next(iter(result.left_out.items()))
        raise ValueError(f"No arm can be run; {arm}: {reason}")
    return result


def _recorded(path: Path, task: Task) -> dict[str, Any]:
    """Return what a finished run wrote; a metric that is not finite has a name there."""
    known = read_object(path)
    n_trainable = known.get("n_trainable")
    for metric in task.metrics:
        found = known.get(metric.name)
        if not fits(n_trainable, int) or not fits(found, float) and found not in NOT_FINITE:
            raise ValueError(
                f"{path} is not the record of a run (`{metric.name}`={shown(found)}, "
                f"`n_trainable`={shown(n_trainable)}). Remove it, and the run is done again."
            )
    return known | {metric.name: float(known[metric.name]) for metric in task.metrics}


@dataclass(frozen=True)
class _Runs:
    """The runs of one arm, each recorded in a file."""

    arm: str
    settings: RunSettings
    folder: Path

    def result(self, data: Examples, rate: float, seed: int, purpose: str) -> dict[str, Any]:
        # The name of a file holds all that tells a run from the others, so a finished one is found without opening
        # any.
        slug = "".join(c if c.isalnum() else "-" for c in self.arm.lower())
        path = self.folder / "runs" / f"{slug}-{purpose}-rate-{rate:g}-seed-{seed}.json"
        if path.is_file():
            return _recorded(path, TASKS[self.settings.task])
        config = ARMS[self.arm](self.settings, seed)
        scratch = self.folder / "scratch"
        console(stderr=True).print(f"{self.arm}: {purpose}, learning rate {rate:g}, seed {seed}")
        finished = fit(config, self.settings, data, scratch, learning_rate=rate, seed=seed, **ONCE)
        result = {
            "arm": self.arm,
            "purpose": purpose,
            "learning_rate": rate,
            "seed": seed,
            "n_trainable": finished.n_trainable,
            **{f"{name}_before": value for name, value in finished.before.items()},
            **finished.after,
            "losses": finished.losses,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, to_json(result, indent=None) + "\n")
        discard(self.folder)
        return result

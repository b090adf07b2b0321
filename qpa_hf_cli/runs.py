"""Commands that train: `qpa train` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qpa_hf_cli.libraries import load
from qpa_hf_cli.options import AsJson, Config, Dataset, Fresh, Model, Recipe, Set, TaskName, Train, Validation

if TYPE_CHECKING:
    from rich.table import Table

    from qpa_hf.comparison.result import Comparison
    from qpa_hf.training.settings import RunSettings


def _settings(
    config: Path | None,
    recipe: str | None,
    overrides: list[str] | None,
    model: str | None,
    train: list[str] | None,
    validation: list[str] | None,
    dataset: str | None,
    task: str | None,
    **defaults: Any,
) -> RunSettings:
    from qpa_hf.training import read_settings

    data: dict[str, Any] = {"train": train, "validation": validation, "dataset": dataset}
    data = {name: value for name, value in data.items() if value}
    if train and not dataset:
        data["dataset"] = None  # of a recipe
    direct: dict[str, Any] = {"model": model} if model else {}
    direct |= {"task": task} if task else {}
    direct |= {"data": data} if data else {}
    reset = ["data.dataset_config=null"] if dataset else []  # of a recipe's dataset; an override still counts
    return read_settings(config, recipe, [*reset, *(overrides or ())], **defaults, **direct)


def train(
    output: Annotated[Path, typer.Option(help="Folder for checkpoints, adapters, card and pictures.")],
    config: Config = None,
    recipe: Recipe = None,
    task: TaskName = None,
    model: Model = None,
    train: Train = None,
    validation: Validation = None,
    dataset: Dataset = None,
    overrides: Set = None,
    fresh: Fresh = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what would be trained, and write nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a QPA adapter, and write it as a generator (native/) and as plain LoRA (adapter/).

    The same command resumes an interrupted run. Example:

        qpa train --model gpt2 --train book.txt --output run --set adapter.r=4
    """
    from qpa_hf import plots
    from qpa_hf.checkpoint import to_json
    from qpa_hf.terminal import say
    from qpa_hf.training import run
    from qpa_hf.training.rehearsal import rehearse
    from qpa_hf_cli.report import lines

    settings = _settings(config, recipe, overrides, model, train, validation, dataset, task)
    if dry_run:
        rehearsal = rehearse(settings, output, fresh)
        say(to_json(rehearsal.to_dict()) if as_json else f"{rehearsal}\nAll is well, and nothing was written.")
        return
    finished = run.train(settings, output, is_fresh=fresh)
    result = {
        "task": finished.task.name,
        "trainable": finished.n_trainable,
        **{f"{name}_before": value for name, value in finished.before.items()},
        **finished.after,
        "native": str(output / "native"),
        "adapter": str(output / "adapter"),
        "pictures": [str(path) for path in plots.of_run(finished, output)],
    } | ({"sample": finished.sample} if finished.sample else {})
    if as_json:
        say(to_json(result))
        return
    for line in lines(finished, settings, output):
        say(line)


def _list_arms(is_asked: bool) -> None:
    if not is_asked:
        return
    load(with_quantised=False)
    from qpa_hf.comparison.arms import ARMS

    print(*ARMS, sep="\n")
    raise typer.Exit


def compare(
    output: Annotated[Path, typer.Option(help="Folder for the arms' records, the table and the picture.")],
    config: Config = None,
    recipe: Recipe = None,
    task: TaskName = None,
    model: Model = None,
    train: Train = None,
    validation: Validation = None,
    dataset: Dataset = None,
    overrides: Set = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="Only these arms, see --list-arms; repeat for several. All if none.")
    ] = None,
    rate: Annotated[list[float] | None, typer.Option(help="Learning rate of the grid; repeat for several.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each arm.")] = 1,
    list_arms: Annotated[
        bool, typer.Option("--list-arms", is_eager=True, callback=_list_arms, help="Name all arms, and stop.")
    ] = False,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Train LoRA, QPA, QPA's controls and PEFT's frugal methods on your model and text: one table, one picture.

    Each arm gets its own learning rate, chosen on a part of the training text. The same command goes on where an
    interrupted comparison stopped.
    """
    from qpa_hf import plots
    from qpa_hf.checkpoint import to_json
    from qpa_hf.comparison.runs import RATES, Options
    from qpa_hf.comparison.runs import compare as run_arms
    from qpa_hf.messages import printable
    from qpa_hf.terminal import console, say

    # Arms on gradient bases are there whatever the adapter is; the others are what they are compared with.
    settings = _settings(config, recipe, overrides, model, train, validation, dataset, task, basis="kaiming")
    options = Options(arms=tuple(arm or ()), rates=tuple(rate or RATES), n_seeds=seeds)
    result = run_arms(settings, output, options, is_fresh=fresh)
    picture = plots.of_comparison(result, output)
    if as_json:
        say(to_json(result.to_dict()))
        return
    shown = console()
    shown.print(_table(result))
    for line in result.sentences():
        shown.print(printable(line))
    shown.print(f"Written: {output}/comparison.json" + (f", {picture}" if picture else ""))


def _table(result: Comparison) -> Table:
    from rich.table import Table

    from qpa_hf.messages import printable

    metric = result.metric
    title = f"{metric.name.capitalize()} on the validation examples"
    table = Table("arm", "trainable", "learning rate", metric.name, "seeds", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in result.rows:
        spread = f" ± {metric.shown(row.spread)}" if row.spread is not None else ""
        shown = f"{metric.shown(row.mean)}{spread}"
        table.add_row(row.arm, f"{row.n_trainable:,}", f"{row.rate:g}", shown, str(len(row.values)))
    for name, reason in result.left_out.items():
        table.add_row(name, "", "", f"left out: {printable(reason)}", "")
    return table


COMMANDS = (train, compare)

"""Commands that run a model: `qpa train`, `evaluate`, `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from qpa_hf.checkpoint import to_json
from qpa_hf.cli.plan import AsJson
from qpa_hf.training import RECIPES, read_settings
from qpa_hf.training.settings import RunSettings

Config = Annotated[Path | None, typer.Option(help="YAML file with sections model, data, adapter, training, record.")]
Recipe = Annotated[str | None, typer.Option(help=f"Start from a recipe: {', '.join(RECIPES)}.")]
Model = Annotated[str | None, typer.Option(help="Hub id or directory of the base model.")]
Train = Annotated[list[str] | None, typer.Option(help="Text file to train on; repeat for several.")]
Validation = Annotated[list[str] | None, typer.Option(help="Text file to evaluate on; the last tenth if none.")]
Dataset = Annotated[str | None, typer.Option(help="Dataset on the Hub, in place of text files.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other setting, as section.field=value: adapter.r=8, training.learning_rate=1e-3."),
]
Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Replace an earlier run in the output folder, once the new one has taken a step."),
]


def _settings(
    config: Path | None,
    recipe: str | None,
    overrides: list[str] | None,
    model: str | None,
    train: list[str] | None,
    validation: list[str] | None,
    dataset: str | None,
) -> RunSettings:
    data: dict[str, Any] = {"train": train, "validation": validation, "dataset": dataset}
    data = {name: value for name, value in data.items() if value}
    if train and not dataset:
        data["dataset"] = None  # of a recipe
    direct: dict[str, Any] = {"model": model} if model else {}
    reset = ["data.dataset_config=null"] if dataset else []  # of a recipe's dataset; an override still counts
    return read_settings(config, recipe, [*reset, *(overrides or ())], **direct, **({"data": data} if data else {}))


def train(
    output: Annotated[Path, typer.Option(help="Folder for checkpoints, adapters, card and pictures.")],
    config: Config = None,
    recipe: Recipe = None,
    model: Model = None,
    train: Train = None,
    validation: Validation = None,
    dataset: Dataset = None,
    overrides: Set = None,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Train a QPA adapter, and write it as a generator (native/) and as plain LoRA (adapter/).

    The same command resumes an interrupted run. Example:

        qpa train --model gpt2 --train book.txt --output run --set adapter.r=4
    """
    from qpa_hf import plots
    from qpa_hf.training import run

    settings = _settings(config, recipe, overrides, model, train, validation, dataset)
    finished = run.train(settings, output, is_fresh=fresh)
    result = {
        "trainable": finished.n_trainable,
        "perplexity_before": finished.perplexity_before,
        "perplexity": finished.perplexity,
        "native": str(output / "native"),
        "adapter": str(output / "adapter"),
        "pictures": [str(path) for path in plots.of_run(finished, output)],
    }
    if as_json:
        print(to_json(result))
        return
    print(f"{finished.n_trainable:,} trained numbers; perplexity on the validation text", end=" ")
    print(f"{finished.perplexity_before:.2f} before, {finished.perplexity:.2f} after.")
    print(f"Generator: {output}/native. Plain LoRA: {output}/adapter.")
    print(f"Share it: qpa push {output}/adapter NAME/REPOSITORY")
    print("Whether the circuits contribute anything: qpa compare, with the same options.")


def evaluate(
    model: Annotated[str, typer.Argument(help="Hub id or directory of a base model.")],
    text: Annotated[list[Path], typer.Option(help="Text file; repeat for several.")],
    adapter: Annotated[str | None, typer.Option(help="Directory or Hub id of an adapter, native or plain.")] = None,
    block_length: Annotated[int, typer.Option(help="Tokens per block.")] = 128,
    padded: Annotated[
        bool, typer.Option(help="Also the paper's protocol, which counts padding; line by line.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure the perplexity of a model, with or without an adapter, on text files."""
    from qpa_hf.evaluation.command import evaluate_files

    found = evaluate_files(model, text, adapter, block_length, padded)
    if as_json:
        print(to_json(found))
        return
    print(f"perplexity {found['perplexity']:.3f} ({found['predicted_tokens']:,} predicted tokens, no padding)")
    trained_with = found["adapter_trained_with"]
    if trained_with not in (None, model):  # a base whose tensors have the same shapes is not noticed otherwise
        print(f"The adapter was trained with {trained_with}; with another model than that this is not its quality.")
    if padded:
        print(
            f"padded perplexity {found['padded_perplexity']:.3f}: the paper's protocol, in which padding counts; it "
            "compares with the paper's tables and with nothing else"
        )


def compare(
    output: Annotated[Path, typer.Option(help="Folder for the arms' records, the table and the picture.")],
    config: Config = None,
    recipe: Recipe = None,
    model: Model = None,
    train: Train = None,
    validation: Validation = None,
    dataset: Dataset = None,
    overrides: Set = None,
    arm: Annotated[list[str] | None, typer.Option(help="Only these arms; repeat for several. All if none.")] = None,
    rate: Annotated[list[float] | None, typer.Option(help="Learning rate of the grid; repeat for several.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each arm.")] = 1,
    fresh: Fresh = False,
    as_json: AsJson = False,
) -> None:
    """Train LoRA, QPA, QPA's controls and PEFT's frugal methods on your model and text: one table, one picture.

    Each arm gets its own learning rate, chosen on a part of the training text. The same command goes on where an
    interrupted comparison stopped.
    """
    from qpa_hf import comparison, plots

    settings = _settings(config, recipe, overrides, model, train, validation, dataset)
    options = comparison.Options(arms=tuple(arm or ()), rates=tuple(rate or comparison.RATES), n_seeds=seeds)
    result = comparison.compare(settings, output, options, is_fresh=fresh)
    picture = plots.of_comparison(result, output)
    if as_json:
        print(to_json(result.to_dict()))
        return
    console = Console(markup=False)  # reasons and names may have brackets
    console.print(_table(result))
    for line in result.sentences():
        console.print(line)
    console.print(f"Written: {output}/comparison.json" + (f", {picture}" if picture else ""))


def _table(result: Any) -> Table:
    table = Table(
        "arm", "trainable", "learning rate", "perplexity", "seeds", title="Perplexity on the validation text"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for row in result.rows:
        spread = f" ± {row.spread:.2f}" if row.spread is not None else ""
        table.add_row(
            row.arm, f"{row.n_trainable:,}", f"{row.rate:g}", f"{row.mean:.2f}{spread}", str(len(row.values))
        )
    for name, reason in result.left_out.items():
        table.add_row(name, "", "", f"left out: {reason}", "")
    return table


COMMANDS = (train, evaluate, compare)

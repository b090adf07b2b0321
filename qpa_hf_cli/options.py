"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TASKS = ("text", "classify", "chat", "image")  # the keys of qpa_hf.training.tasks.TASKS
RECIPES = ("paper-gemma", "paper-gpt2")  # the files in qpa_hf/training/recipes

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Config = Annotated[Path | None, typer.Option(help="YAML file with sections model, data, adapter, training, record.")]
Recipe = Annotated[str | None, typer.Option(help=f"Start from a recipe: {', '.join(RECIPES)}.")]
Model = Annotated[str | None, typer.Option("--model", help="Hub id or directory of the base model.")]
TaskName = Annotated[str | None, typer.Option("--task", help=f"What to train for: {', '.join(TASKS)}; text if none.")]
Train = Annotated[
    list[str] | None, typer.Option(help="Text, table or folder of classes of pictures; can be repeated.")
]
Validation = Annotated[list[str] | None, typer.Option(help="The same to evaluate on; a tenth if none.")]
Dataset = Annotated[str | None, typer.Option(help="Dataset on the Hub, in place of files.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other setting, as section.field=value: adapter.r=8, training.learning_rate=1e-3."),
]
Fresh = Annotated[
    bool,
    typer.Option("--fresh", help="Replace an earlier run in the output folder, once the new one has taken a step."),
]

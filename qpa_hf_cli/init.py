"""`qpa init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qpa_hf_cli.options import Dataset, TaskName, Train

TEMPLATE = Path(__file__).with_name("settings.yaml")
FILES = """# Files: text, tables (JSON, CSV, Parquet), or folders of classes of pictures.
  train: {train}
  # What to evaluate on; a tenth of the above where nothing is named.
  # validation: [other.txt]"""
FROM_THE_HUB = """# Hub id or folder of a dataset, and which of its configurations, splits and columns.
  dataset: {dataset}
  dataset_config: {dataset_config}
  train_split: train
  validation_split: validation"""
# What else a task's data have.
FIELDS = {
    "text": """# The column of a table or a dataset that holds the text.
  text_column: text
  # Tokens of a block; at most as many as the model has positions.
  block_length: 128""",
    "classify": """# The columns of a table or a dataset that hold the text and its class.
  text_column: text
  label_column: label
  # Most tokens of a text; at most as many as the model has positions.
  block_length: 128""",
    "chat": """# A row has `messages` with roles, or `prompt` and `completion`. Most tokens of one.
  block_length: 1024""",
    "image": """# The columns of a dataset that hold the picture and its class; of files, each class is a folder.
  image_column: image
  label_column: label""",
}
DATASET, DATASET_CONFIG = "Salesforce/wikitext", "wikitext-2-raw-v1"


def init(
    file: Annotated[Path, typer.Argument(help="File to write; it must not exist.")] = Path("qpa.yaml"),
    model: Annotated[str, typer.Option(help="Hub id or directory of the base model.")] = "gpt2",
    train: Train = None,
    dataset: Dataset = None,
    task: TaskName = None,
) -> None:
    """Write the settings of a run as a commented file, for `qpa train --config`.

    Without data it trains a language model on WikiText-2.
    """
    from yaml import safe_dump

    def as_yaml(value: object) -> str:
        return safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()

    if file.exists():
        raise FileExistsError(f"{file} exists, and is not replaced. Name another file, or remove it.")
    if train and dataset:
        raise ValueError("A run has either text files (--train) or a dataset (--dataset). Leave one of them out.")
    if task is not None and task not in FIELDS:
        raise ValueError(f"`--task`={task!r} is not known. Choose one of {', '.join(FIELDS)}.")
    if task not in (None, "text") and not train and not dataset:
        raise ValueError(f"Nothing to train on is named for `--task {task}`. Name it by --train or --dataset.")
    is_there = Path.is_dir if task == "image" else Path.is_file
    if missing := [name for name in train or () if not is_there(Path(name))]:
        kind = "folder of classes" if task == "image" else "text file"
        raise FileNotFoundError(f"There is no {kind} {missing[0]}. Check --train.")
    dataset_config = None if dataset else DATASET_CONFIG
    data = FILES.format(train=as_yaml(train)) if train else ""
    if not train:
        data = FROM_THE_HUB.format(dataset=as_yaml(dataset or DATASET), dataset_config=as_yaml(dataset_config))
    settings = TEMPLATE.read_text(encoding="utf-8").replace("@MODEL", as_yaml(model)).replace("@DATA", data)
    settings = settings.replace("@TASK", task or "text").replace("@FIELDS", FIELDS[task or "text"])
    with file.open("x", encoding="utf-8", newline="\n") as written:
        written.write(settings)
    typer.echo(f"{file} is written. Look it over, then: qpa train --config {file} --output run")

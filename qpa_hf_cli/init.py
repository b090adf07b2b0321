"""`qpa init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qpa_hf_cli.options import Dataset, Train

TEMPLATE = Path(__file__).with_name("settings.yaml")
FILES = """# Text files, or tables (JSON, CSV, Parquet) with a column of text.
  train: {train}
  # What to evaluate on; the last tenth of the text above where nothing is named.
  # validation: [other.txt]"""
FROM_THE_HUB = """# Hub id or folder of a dataset, and which of its configurations, splits and columns.
  dataset: {dataset}
  dataset_config: {dataset_config}
  train_split: train
  validation_split: validation"""
DATASET, DATASET_CONFIG = "Salesforce/wikitext", "wikitext-2-raw-v1"


def init(
    file: Annotated[Path, typer.Argument(help="File to write; it must not exist.")] = Path("qpa.yaml"),
    model: Annotated[str, typer.Option(help="Hub id or directory of the base model.")] = "gpt2",
    train: Train = None,
    dataset: Dataset = None,
) -> None:
    """Write the settings of a run as a commented file, for `qpa train --config`.

    Without a text it trains on WikiText-2.
    """
    from yaml import safe_dump

    def as_yaml(value: object) -> str:
        return safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()

    if file.exists():
        raise FileExistsError(f"{file} exists, and is not replaced. Name another file, or remove it.")
    if train and dataset:
        raise ValueError("A run has either text files (--train) or a dataset (--dataset). Leave one of them out.")
    if missing := [name for name in train or () if not Path(name).is_file()]:
        raise FileNotFoundError(f"There is no text file {missing[0]}. Check --train.")
    dataset_config = None if dataset else DATASET_CONFIG
    data = FILES.format(train=as_yaml(train)) if train else ""
    if not train:
        data = FROM_THE_HUB.format(dataset=as_yaml(dataset or DATASET), dataset_config=as_yaml(dataset_config))
    settings = TEMPLATE.read_text(encoding="utf-8").replace("@MODEL", as_yaml(model)).replace("@DATA", data)
    with file.open("x", encoding="utf-8", newline="\n") as written:
        written.write(settings)
    typer.echo(f"{file} is written. Look it over, then: qpa train --config {file} --output run")

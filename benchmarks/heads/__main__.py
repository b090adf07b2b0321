"""The command: `python -m benchmarks.heads`; interrupted, it goes on where it stopped."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.heads import report
from benchmarks.heads.embeddings import load
from benchmarks.heads.study import Data, Study


def study(
    data: Annotated[Path, typer.Option(help="Folder of sst2/.")] = Path("data"),
    output: Annotated[Path, typer.Option(help="JSON file; table and plot lie beside it.")] = report.OUTPUT,
    build: Annotated[Path, typer.Option(help="Folder for embeddings and each run's own file.")] = Path("build/heads"),
    seeds: Annotated[int, typer.Option(min=1, help="Reported runs of each arm on each part.")] = 5,
    report_only: Annotated[bool, typer.Option(help="Run nothing, only report anew what the output has.")] = False,
) -> None:
    """Compare quantum heads with classical classifiers on SST-2; about an hour on one core."""
    torch.set_num_threads(1)
    if not report_only:
        folder = data / "sst2"
        sentences = Data.split(load(folder / "train.tsv", build), load(folder / "dev.tsv", build))
        rows = []
        for row in Study(sentences, build / "runs", seeds).run():
            rows.append(row)
            what = f"{row['part']}, {row['arm']}, {row['purpose']} {row['value']:g}, seed {row['seed']}"
            print(f"{what}: {row['development']:.4f}, {row['cpu_seconds']:.0f} s", flush=True)
            report.write_runs(rows, sentences.sizes, output)  # so that a report can be made at any time
    print(f"Written: {', '.join(map(str, report.write(output)))}")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        typer.run(study)
    except (ValueError, TypeError, OSError, ImportError) as error:
        sys.exit(f"Error: {error}")

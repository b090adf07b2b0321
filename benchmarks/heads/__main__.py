"""The command: `python -m benchmarks.heads`; interrupted, it goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.command import RESULTS, Build, Data, Output, ReportOnly, Seeds, launch
from benchmarks.harness.protocol import Protocol
from benchmarks.heads import report
from benchmarks.heads.embeddings import load
from benchmarks.heads.study import Data as Split
from benchmarks.heads.study import Heads


def study(
    data: Data = Path("data"),
    output: Output = RESULTS,
    build: Build = Path("build/heads"),
    seeds: Seeds = 5,
    report_only: ReportOnly = False,
) -> None:
    """Compare quantum heads with classical classifiers on SST-2; about an hour on one core."""
    path = (output or RESULTS) / "heads.json"
    if not report_only:
        folder = data / "sst2"
        heads = Heads(Split.split(load(folder / "train.tsv", build), load(folder / "dev.tsv", build)))
        Protocol(tuple(heads.arms), (), seeds, build / "runs").run(heads, path)
    print(f"Written: {', '.join(map(str, report.write(path)))}")


if __name__ == "__main__":
    launch(study, "heads")

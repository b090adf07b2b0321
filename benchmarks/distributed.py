"""Are gradients and parameters on two processes those of one? `python -m benchmarks.distributed`, about half a minute.

Two gloo processes on the CPU, each with its own rows and its own global seed, run the cases of `tests/distributed`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.record import RESULTS, Target, worst, write

TESTS = Path(__file__).parent.parent / "tests"
N_PROCESSES = 2
BOUND = 1e-5  # largest distance over steps and tensors, relative to the tensor's norm; float32 rounds at 6e-8


def launch(script: str, folder: Path) -> list[dict[str, Any]]:
    """Run a script of `tests/distributed` under torchrun and return what each process wrote to `rank-N.json`.

    Args:
        script: the file's name.
        folder: an empty directory for what the processes write.

    Raises:
        RuntimeError: if it did not run on two processes.
    """
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(N_PROCESSES)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS / "distributed")])}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [*start, str(TESTS / "distributed" / script), str(folder)]
    run = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False, env=environment
    )
    if run.returncode:
        raise RuntimeError(f"`torchrun {script}` ended with {run.returncode}:\n{run.stderr}")
    ranks = [json.loads((folder / f"rank-{i}.json").read_text(encoding="utf-8")) for i in range(N_PROCESSES)]
    if [rank["world_size"] for rank in ranks] != [N_PROCESSES] * N_PROCESSES:
        raise RuntimeError(f"`torchrun {script}` did not run on {N_PROCESSES} processes but on {ranks}.")
    return ranks


def _targets(ranks: list[dict[str, Any]]) -> list[Target]:
    targets = []
    for kind in ("gradients", "parameters"):
        found = {
            f"{name} (process {i})": case.get(kind, float("inf"))
            for i, rank in enumerate(ranks)
            for name, case in rank["equality"].items()
        }
        targets.append(worst(f"{kind}, distance from one process", "<=", BOUND, found, ""))
    return targets


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed", description=__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS / "distributed.json", help="JSON file to write")
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        ranks = launch("ranks.py", Path(folder))
    table = Table("on two processes", "gradients", "parameters", title="Largest relative distance from one process")
    for name, case in (ranks[0]["equality"] | {"not wrapped at all": ranks[0]["apart"]}).items():
        table.add_row(name, *(f"{case[kind]:.1e}" for kind in ("gradients", "parameters")))
    Console().print(table)
    options = argparse.Namespace(quick=False, rounds=1, device="cpu", output=output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write(options, {"n_processes": N_PROCESSES, "backend": "gloo"}, {}, {"ranks": ranks}, _targets(ranks))
    print(f"Written: {output}")


if __name__ == "__main__":
    main()

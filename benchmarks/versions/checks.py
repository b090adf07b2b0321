"""What is run on each set of versions: the demo, the PEFT contract, and the tests of what everybody uses."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.versions.environment import ROOT

DEMO = ("--steps", "20", "--rounds", "2")  # enough for the claim that its reload shows
QUICK_DEMO = ("--steps", "8", "--rounds", "1")
CONTRACT = ("-m", "contract", "tests/tuners/qpa/test_peft_contract.py", "tests/tuners/qpa/test_two_adapters.py")
CORE = (
    "tests/circuit/test_probabilities.py",
    "tests/generator",
    "tests/tuners/qpa/test_config.py",
    "tests/test_checkpoint.py",
    "tests/test_materialize.py",
    "tests/test_trainer.py",
    "tests/trainer_callbacks/test_push_callback.py",
    "tests/hub/test_client_versions.py",
    "tests/hub/test_limit.py",
    "tests/cli/test_cli.py",
    "tests/cli/test_share.py",
)
QUICK_CONTRACT = (*CONTRACT, "-k", "llama")
QUICK_CORE = (
    "tests/generator/test_generator.py",
    "tests/test_checkpoint.py",
    "tests/hub/test_client_versions.py",
    "tests/cli/test_cli.py",
)
SECONDS = 3600  # for one of the three
PLACE = re.compile(r"(?:/[\w.+~-]+){2,}/?")
LINES = 30  # of what a demo that fails has printed


def run(interpreter: Path, folder: Path, is_quick: bool) -> dict[str, Any]:
    """Run everything in a row's environment and return what came of it."""
    return {
        "demo": _demo(interpreter, folder / "demo", QUICK_DEMO if is_quick else DEMO),
        "contract": _tests(interpreter, folder, QUICK_CONTRACT if is_quick else CONTRACT),
        "core": _tests(interpreter, folder, QUICK_CORE if is_quick else CORE),
    }


def run_python(interpreter: Path, arguments: Sequence[str]) -> tuple[int, str, float]:
    """Run Python offline on one thread, and return its exit code, what it printed and the seconds it took."""
    settings = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "agg"}
    start = time.monotonic()
    # Its output goes to one place, so that an error stands below the line that led to it.
    process = subprocess.Popen(
        [str(interpreter), *arguments],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    try:
        printed, _ = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, _ = process.communicate()
    return process.returncode, printed, time.monotonic() - start


def _demo(interpreter: Path, output: Path, options: Sequence[str]) -> dict[str, Any]:
    code, printed, seconds = run_python(
        interpreter, ["-m", "qpa_hf.demo", "--fresh", "--output", str(output), *options]
    )
    lines = [told(line) for line in printed.strip().splitlines()]
    return {"passed": code == 0, "seconds": round(seconds)} | ({} if code == 0 else {"printed": lines[-LINES:]})


def _tests(interpreter: Path, folder: Path, chosen: Sequence[str]) -> dict[str, Any]:
    report = folder / "tests.xml"
    report.unlink(missing_ok=True)
    options = ["-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider", f"--junitxml={report}"]
    _, printed, seconds = run_python(interpreter, ["-m", "pytest", *options, *chosen])
    if not report.is_file():
        return {
            "passed": 0,
            "seconds": round(seconds),
            "printed": [told(line) for line in printed.strip().splitlines()[-LINES:]],
        }
    return counted(report) | {"seconds": round(seconds)}


def told(line: str) -> str:
    """Return the start of a line without the places of a machine in it."""
    return PLACE.sub("...", line)[:300]


def counted(report: Path) -> dict[str, Any]:
    """Return how many tests passed and were skipped, and the first line of why each other failed, by its name."""
    passed, skipped, failed = 0, 0, {}
    for case in ElementTree.parse(report).iter("testcase"):
        ends = {end.tag: end.get("message", "") for end in case}
        wrong = ends.get("failure", ends.get("error"))
        if wrong is not None:
            failed[f"{case.get('classname')}::{case.get('name')}"] = told(wrong.partition("\n")[0])
        elif "skipped" in ends:
            skipped += 1
        else:
            passed += 1
    return {"passed": passed, "skipped": skipped, "failed": failed}

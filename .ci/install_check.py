"""Resolve every line that installs, and every extra, as on a machine whose pip has no configuration.

Nothing is installed: these are dry runs in a fresh environment. The lines are those of install.py, and those that the
documents, the scripts and the messages of the package tell a reader to run.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import install

ROOT = Path(__file__).resolve().parents[1]
READ = ("*.md", "examples/**/*.md", "docs/**/*.md", "benchmarks/**/*.md", "qpa_hf/**/*.py", "qpa_hf_cli/**/*.py")
# A command in a document or a message ends with its line, or with what stands around it.
LINE = re.compile(r"pip install ((?:'[^'\n]*'|\"[^\"\n]*\"|[^`'\"\n;:&|,()])+)")
N_AT_ONCE = 2


def told() -> set[str]:
    """Return the arguments of each `pip install` that a reader of this tree is told to run."""
    paths = [path for pattern in READ for path in ROOT.glob(pattern)]
    return {line.strip(" .") for path in paths for line in LINE.findall(path.read_text(encoding="utf-8"))}


def lines() -> list[list[str]]:
    """Return pip's arguments of every line, each once; `qpa-hf` stands for this tree."""
    found = [install.torch_line(), [install.TRITON], ["--no-deps", "-r", "constraints.txt"]]
    found += [[f"peft=={version}"] for version in install.PEFT_VERSIONS.split()]
    found += [line for name, calls in install.SETS.items() if name != "package" for line in calls]
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    found += [[f".[{extra}]"] for extra in settings["options.extras_require"]]
    for line in sorted(told()):
        words = [re.sub(r"^qpa-hf(?=\[|$)", ".", word) for word in shlex.split(line, comments=True)]
        found.append([word for word in words if word != "-e"])
    return [list(line) for line in dict.fromkeys(map(tuple, found))]


def resolve(python: Path, kept: Path, line: list[str]) -> tuple[list[str], str]:
    """Return a line and what stands in its way, nothing if it resolves."""
    arguments = [argument.format(kept=kept, extras=install.extras()) for argument in line]
    command = [str(python), "-m", "pip", "install", "--dry-run", "--quiet", *arguments]
    alone = os.environ | {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    result = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=False)
    return line, "" if result.returncode == 0 else result.stderr.strip() or "pip failed without a word"


def main() -> None:
    """Print each line with what came of it, and fail if one does not resolve."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python, kept = Path(folder) / "bin" / "python", Path(folder) / install.KEPT
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)
        kept.write_text(install.TORCH + "\n", encoding="utf-8")
        failed = 0
        with ThreadPoolExecutor(N_AT_ONCE) as pool:
            for line, reason in pool.map(lambda line: resolve(python, kept, line), lines()):
                failed += bool(reason)
                print(("does not resolve: " if reason else "resolves: ") + " ".join(line), reason, flush=True)
    sys.exit(f"{failed} lines do not resolve." if failed else 0)


if __name__ == "__main__":
    main()

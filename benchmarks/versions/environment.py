"""One row's environment: what uv resolves and installs, outside of the checkout, removed when the row is done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path

from benchmarks.versions.rows import Row

ROOT = Path(__file__).parents[2]
EXTRAS = ("fast", "plots")
MODES = {"lowest": "lowest-direct", "highest": "highest", "tested": "highest"}
LISTED = ("torch", "transformers", "peft", "huggingface-hub", "accelerate", "datasets", "numpy", "scipy", "typer")
FREE_BYTES = 15e9  # an environment with a CUDA build of torch, and the downloads it is made from


class Unresolved(RuntimeError):
    """There is no set of versions like that, for example no wheels for this Python."""


def uv(*arguments: str) -> str:
    """Run uv and return what it prints.

    Raises:
        Unresolved: with its reason.
        SystemExit: if there is no uv.
    """
    if shutil.which("uv") is None:
        raise SystemExit(
            "`make matrix` and `make clients` need uv, which is not on the PATH. Install it with `pip install uv`."
        )
    done = subprocess.run(["uv", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise Unresolved(done.stderr.strip())
    return done.stdout


def pythons() -> dict[int, str]:
    """Return the interpreters of this machine that qpa_hf may run on, by minor version: on the PATH, or pyenv's."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    if pyenv := shutil.which("pyenv"):
        root = subprocess.run([pyenv, "root"], capture_output=True, encoding="utf-8", check=True).stdout.strip()
        folders += sorted(Path(root).glob("versions/3.*/bin"))
    found = {sys.version_info.minor: sys.executable}
    for minor in range(11, 15):
        for path in [folder / f"python3.{minor}" for folder in folders]:
            if minor not in found and path.is_file() and _does_run(path):
                found[minor] = str(path)
    return dict(sorted((minor, path) for minor, path in found.items() if minor >= 11))


def _does_run(python: Path) -> bool:
    # pyenv's own stand-ins on the PATH fail where their version is not chosen.
    return subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


@contextmanager
def made(row: Row, python: str, folder: Path) -> Iterator[Path]:
    """Make a row's environment, yield its interpreter, and remove it.

    Raises:
        Unresolved: if there is no such set of versions for this Python.
        SystemExit: if the disk is too full for another one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (free := shutil.disk_usage(folder).free) < FREE_BYTES:
        raise SystemExit(f"{folder} has {free / 1e9:.0f} GB left, and a row needs {FREE_BYTES / 1e9:.0f}. Make room.")
    environment, lock = folder / "environment", folder / "lock.txt"
    try:
        uv("venv", "--clear", "--python", python, str(environment))
        interpreter = str(environment / "bin" / "python")
        lock.write_text(_resolved(row, interpreter, folder), encoding="utf-8")
        install = ("pip", "install", "--python", interpreter)
        uv(*install, *_wheels(row), "-r", str(lock), "-c", str(lock), *row.tools)
        uv(*install, "--no-deps", "--editable", ".")
        yield Path(interpreter)
    finally:
        shutil.rmtree(environment, ignore_errors=True)


def _requirements() -> list[str]:
    """Return what setup.cfg asks for; uv would build the package to learn that, and here it builds nothing."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = [setup["options"]["install_requires"], *(setup["options.extras_require"][extra] for extra in EXTRAS)]
    return "\n".join(lines).split("\n")


def _resolved(row: Row, interpreter: str, folder: Path) -> str:
    asked, pins = folder / "requirements.txt", folder / "pins.txt"
    asked.write_text("\n".join([*_requirements(), *row.beside]), encoding="utf-8")
    pins.write_text("\n".join(row.pins), encoding="utf-8")
    options = ["-c", str(pins), *(("-c", "constraints.txt") if row.take == "tested" else ())]
    options += ["--resolution", MODES[row.take], *_wheels(row), "--python", interpreter, "--no-header"]
    return uv("pip", "compile", str(asked), *options)


def _wheels(row: Row) -> list[str]:
    return [] if row.has_sources else ["--only-binary", ":all:"]


def versions(interpreter: Path, listed: Iterable[str] = LISTED) -> dict[str, str]:
    """Return the versions that an environment has of what decides."""
    found = {
        entry["name"]: entry["version"]
        for entry in json.loads(uv("pip", "list", "--format", "json", "--python", str(interpreter)))
    }
    return {name: found[name] for name in listed}


def drop_torch() -> None:
    """Remove what uv keeps of torch and of the libraries it brings, so that the next build finds room."""
    kept = Path(uv("cache", "dir").strip())
    names = {path.name for path in kept.glob("wheels-v*/*/*") if path.name.startswith(("nvidia-", "torch", "triton"))}
    if names:
        uv("cache", "clean", *sorted(names))

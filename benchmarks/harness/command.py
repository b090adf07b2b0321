"""The options that the commands of all studies share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

RESULTS = Path("benchmarks/results")

Seeds = Annotated[int, typer.Option(min=1, help="Reported runs of each arm.")]
Quick = Annotated[bool, typer.Option(help="A miniature, to see that it runs; its numbers say nothing.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes beside each other, each with one thread.")]
Data = Annotated[Path, typer.Option(help="Folder of sst2/ and wikitext-2/.")]
Output = Annotated[Path | None, typer.Option(help="Folder for JSON, tables and pictures.")]
Build = Annotated[Path, typer.Option(help="Folder for each run's own file and cached data.")]
ReportOnly = Annotated[bool, typer.Option(help="Run nothing, only report anew what the output folder has.")]


def several(what: str) -> Any:
    """Return an option that may be repeated."""
    return typer.Option(help=f"{what}; repeat for several.")


def launch(command: Callable[..., None], extra: str) -> None:
    """Run a study's command; what goes wrong is said in one sentence.

    Args:
        command: the study.
        extra: what `pip install 'qpa-hf[...]'` calls its libraries.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        typer.run(command)
    except ModuleNotFoundError as error:
        sys.exit(f"Error: {error}. Install the study's libraries with `pip install 'qpa-hf[{extra}]'`.")
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        sys.exit(f"Error: {error}")

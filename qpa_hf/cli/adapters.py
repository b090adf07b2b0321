"""Commands on an adapter that is there already: `qpa materialize`, `inspect`, `push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from qpa_hf.checkpoint import check_folder, to_json
from qpa_hf.cli.plan import AsJson
from qpa_hf.hub import download
from qpa_hf.hub import push as push_to_hub
from qpa_hf.hub.folder import neither_here
from qpa_hf.inspection import inspect as inspect_folder
from qpa_hf.materialize import materialize as write_plain


def materialize(
    native: Annotated[Path, typer.Argument(help="Directory of a saved QPA adapter.")],
    adapter: Annotated[Path, typer.Argument(help="Directory to write the plain LoRA adapter to.")],
    as_json: AsJson = False,
) -> None:
    """Write the adapter that a saved generator generates as a plain LoRA checkpoint. Needs no base model."""
    written = write_plain(native, adapter)
    print(to_json({"adapter": str(written)}, indent=None) if as_json else f"Plain LoRA adapter written to {written}")


def inspect(
    adapter: Annotated[str, typer.Argument(help="Directory or Hub id of a native or materialized adapter.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit, for a Hub id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is in an adapter: its kind, base model, sizes, counts, its largest value, and what its run recorded."""
    folder = Path(adapter)
    if not folder.is_dir():
        check_folder(adapter, "adapter")
        with neither_here(adapter):
            folder = Path(download(adapter, revision=revision))
    found = inspect_folder(folder)
    if as_json:
        print(to_json(found))
        return
    table = Table("", adapter, show_lines=False)
    for name, value in found.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    Console(markup=False).print(table)  # a pattern's brackets are no markup


def push(
    adapter: Annotated[Path, typer.Argument(help="Directory of a native or materialized adapter.")],
    repo_id: Annotated[str, typer.Argument(help="Where to push it: name/repository.")],
    private: Annotated[bool | None, typer.Option(help="Whether a new repository is private.")] = None,
    create_pr: Annotated[bool, typer.Option(help="Open a pull request instead of pushing to the branch.")] = False,
    tag: Annotated[str | None, typer.Option(help="Tag the commit.")] = None,
    message: Annotated[str | None, typer.Option(help="Commit message.")] = None,
    as_json: AsJson = False,
) -> None:
    """Push an adapter with its card to the Hub in one commit, and compare what arrived."""
    commit = push_to_hub(adapter, repo_id, private=private, create_pr=create_pr, tag=tag, commit_message=message)
    where = commit.pr_url or commit.commit_url
    print(to_json({"commit": commit.oid, "url": where}, indent=None) if as_json else f"The Hub has it: {where}")


COMMANDS = (materialize, inspect, push)

"""Commands on an adapter that is there already: `qpa materialize`, `export`, `inspect`, `push`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qpa_hf_cli.options import AsJson

Portable = Annotated[bool, typer.Option(help="Fold every scale into lora_B, for llama.cpp, vLLM, SGLang and others.")]


def materialize(
    native: Annotated[Path, typer.Argument(help="Directory of a saved QPA adapter.")],
    adapter: Annotated[Path, typer.Argument(help="Directory to write the plain LoRA adapter to.")],
    portable: Portable = False,
    as_json: AsJson = False,
) -> None:
    """Write the adapter that a saved generator generates as a plain LoRA checkpoint. Needs no base model."""
    from qpa_hf.checkpoint import to_json
    from qpa_hf.materialize import materialize as write_plain
    from qpa_hf.terminal import say

    written = write_plain(native, adapter, portable=portable)
    say(to_json({"adapter": str(written)}, indent=None) if as_json else f"Plain LoRA adapter written to {written}")


def inspect(
    adapter: Annotated[str, typer.Argument(help="Directory or Hub id of a native or materialized adapter.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit, for a Hub id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is in an adapter: its kind, base model, sizes, counts, its largest value, and what its run recorded."""
    from rich.table import Table

    from qpa_hf.checkpoint import check_folder, to_json
    from qpa_hf.hub.folder import no_such_adapter
    from qpa_hf.inspection import inspect as inspect_folder
    from qpa_hf.messages import check_path, one_line
    from qpa_hf.terminal import console, say

    folder = check_path(adapter)
    if not folder.is_dir():
        from qpa_hf.hub import download

        check_folder(adapter, "adapter")
        with no_such_adapter(adapter):
            folder = Path(download(adapter, revision=revision))
    found = inspect_folder(folder)
    if as_json:
        say(to_json(found))
        return
    table = Table("", one_line(adapter), show_lines=False)
    for name, value in found.items():
        is_count = isinstance(value, int) and not isinstance(value, bool)
        table.add_row(one_line(name.replace("_", " ")), f"{value:,}" if is_count else one_line(value))
    console().print(table)


def push(
    adapter: Annotated[Path, typer.Argument(help="Directory of a native or materialized adapter.")],
    repo_id: Annotated[str, typer.Argument(help="Where to push it: name/repository.")],
    private: Annotated[bool | None, typer.Option(help="Whether a new repository is private.")] = None,
    create_pr: Annotated[bool, typer.Option(help="Open a pull request instead of pushing to the branch.")] = False,
    tag: Annotated[str | None, typer.Option(help="Tag the commit.")] = None,
    message: Annotated[str | None, typer.Option(help="Commit message.")] = None,
    portable: Portable = False,
    as_json: AsJson = False,
) -> None:
    """Push an adapter with its card to the Hub in one commit, and compare what arrived."""
    from qpa_hf import hub
    from qpa_hf.checkpoint import to_json
    from qpa_hf.terminal import say

    commit = hub.push(
        adapter,
        repo_id,
        private=private,
        create_pr=create_pr,
        tag=tag,
        commit_message=message,
        portable=portable,
    )
    where = commit.pr_url or commit.commit_url
    say(to_json({"commit": commit.oid, "url": where}, indent=None) if as_json else f"The Hub has it: {where}")


def export(
    adapter: Annotated[Path, typer.Argument(help="Directory of a native or materialized adapter.")],
    path: Annotated[Path, typer.Argument(help="What to write: a .gguf file, or a new directory.")],
    to: Annotated[str, typer.Option(help="Format: gguf (llama.cpp), mlx or diffusers.")],
    base: Annotated[str | None, typer.Option(help="Directory or Hub id of the base model, for gguf.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write an adapter for another reader than PEFT: llama.cpp, mlx-lm or diffusers."""
    from qpa_hf.checkpoint import to_json
    from qpa_hf.export import export as write
    from qpa_hf.terminal import say

    written = write(adapter, path, to, base)
    say(to_json({"path": str(written)}, indent=None) if as_json else f"Written for {to} to {written}")


COMMANDS = (materialize, export, inspect, push)

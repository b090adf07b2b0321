"""The `qpa` command: its subcommands, and what every one of them does with an error."""

from __future__ import annotations

import functools
import io
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from qpa_hf_cli import adapters, circuit, init, plan, runs, trained
from qpa_hf_cli.libraries import load

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
LONGEST_ERROR = 1000  # characters; file names and settings of any length stand in errors
LIBRARIES = ("torch", "transformers", "peft")  # whose versions whoever is asked for help wants to know
RESUMED = {"train", "compare"}  # commands that keep what they have done

app = typer.Typer(
    help="Quantum parameter adaptation for PEFT: train adapters whose weights a quantum circuit generates, collapse "
    "them into plain LoRA, look at them and share them.",
    no_args_is_help=True,
)


def _print_versions(is_asked: bool) -> None:
    if not is_asked:
        return
    found = []
    for name in ("qpa-hf", *LIBRARIES):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} that is not installed")
    print(f"{found[0]} ({', '.join([*found[1:], f'Python {platform.python_version()}'])})")
    raise typer.Exit


@app.callback()
def _about(
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_versions, help="Print the version, and stop.")
    ] = False,
) -> None:
    """Take what is no command's."""


def _with_libraries(command: Callable[..., None], loads_models: bool) -> Callable[..., None]:
    """Return a command that loads the libraries first; its help needs none of them."""

    @functools.wraps(command)
    def run(**options: Any) -> None:
        load(with_quantised=loads_models)
        from qpa_hf.remarks import silence_commands
        from qpa_hf.terminal import guarded

        silence_commands()
        with guarded():
            command(**options)

    return run


app.command()(init.init)
for module, loads_models in ((plan, False), (circuit, False), (runs, True), (trained, True), (adapters, False)):
    for command in module.COMMANDS:
        app.command()(_with_libraries(command, loads_models))


def main() -> None:
    """Run the command line: 0 is success, 1 a failure, 2 bad input, each of the last two with one sentence."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a console's code page has no character for
    try:
        app(prog_name="qpa")
    except SystemExit as ended:  # which Typer makes of Ctrl-C
        if ended.code == INTERRUPTED:
            does_resume = not RESUMED.isdisjoint(sys.argv[1:2])
            goes_on = " The same command, without --fresh, goes on from what is saved." if does_resume else ""
            print(f"Interrupted.{goes_on}", file=sys.stderr)
        raise
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        _stop(error, code)


def _exit_code(error: Exception) -> int | None:
    """Return how the command ends with an error; None for one that is a fault of ours."""
    from safetensors import SafetensorError

    from qpa_hf.files import DISK_FULL
    from qpa_hf.hub.errors import HubError

    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return FAILED
    if isinstance(error, HubError):
        return FAILED
    if isinstance(error, ValueError | TypeError | OSError):
        return BAD_INPUT
    return FAILED if isinstance(error, RuntimeError | ImportError | MemoryError | SafetensorError) else None


def _stop(message: object, code: int) -> None:
    from qpa_hf.terminal import say

    say(f"Error: {str(message)[:LONGEST_ERROR]}", is_error=True)
    sys.exit(code)

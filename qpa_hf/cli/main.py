"""The `qpa` command: its subcommands, and what every one of them does with an error."""

from __future__ import annotations

import errno
import sys
import warnings

import typer
from safetensors import SafetensorError

from qpa_hf.cli import adapters, plan, runs
from qpa_hf.hub import HubError

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
RESUMED = {"train", "compare"}  # commands that keep what they have done
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

app = typer.Typer(
    help="Quantum parameter adaptation for PEFT: train adapters whose weights a quantum circuit generates, collapse "
    "them into plain LoRA, look at them and share them.",
    no_args_is_help=True,
)
for module in (plan, runs, adapters):
    for command in module.COMMANDS:
        app.command()(command)


def main() -> None:
    """Run the command line: 0 is success, 1 a failure, 2 bad input, each of the last two with one sentence."""
    # PEFT and transformers against each other; nothing that a user can act on.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
    try:
        app(prog_name="qpa")
    except (ValueError, TypeError, OSError) as error:
        is_full = isinstance(error, OSError) and error.errno in DISK_FULL
        _stop(error, FAILED if is_full else BAD_INPUT)
    except (HubError, RuntimeError, ImportError, MemoryError, SafetensorError) as error:  # the last: a full disk, too
        _stop(error, FAILED)
    except SystemExit as ended:  # which Typer makes of Ctrl-C
        if ended.code == INTERRUPTED:
            does_resume = not RESUMED.isdisjoint(sys.argv[1:2])
            goes_on = " The same command, without --fresh, goes on from what is saved." if does_resume else ""
            print(f"Interrupted.{goes_on}", file=sys.stderr)
        raise


def _stop(message: object, code: int) -> None:
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(code)

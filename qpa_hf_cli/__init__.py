"""The `qpa` command.

It stands outside of the package `qpa_hf`, whose import makes the method known to PEFT and so loads torch, transformers
and PEFT: what a command needs of it is imported when that command runs, and `qpa --help` is answered at once.
"""

from qpa_hf_cli.main import main

__all__ = ["main"]

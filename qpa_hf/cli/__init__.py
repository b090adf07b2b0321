"""The `qpa` command."""

from qpa_hf.cli.main import main

__all__ = ["main"]

"""The terminal: what is written there may come from a stranger's file, and is shown instead of obeyed."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from qpa_hf.messages import printable


def say(text: object, *, is_error: bool = False, end: str = "\n") -> None:
    """Write text, on the error stream if it is no result."""
    print(printable(text), end=end, file=sys.stderr if is_error else sys.stdout)


def console(**options: Any) -> Console:
    """Return a console of rich's that takes brackets and colons for what they are."""
    return Console(markup=False, emoji=False, **options)


def bar_options() -> dict[str, Any]:
    """Return the options of a bar of rich's on standard error: gone when it is done, but one line of a notebook.

    A notebook shows what moves by widgets alone. Without them rich warns, and with them it leaves an empty output.
    """
    is_notebook = Console().is_jupyter
    console = Console(stderr=True, force_jupyter=False, force_terminal=False if is_notebook else None)
    return {"console": console, "transient": not is_notebook}


@contextmanager
def guarded() -> Iterator[None]:
    """Within this block, warnings and log lines of any library are printable, and users' warnings one sentence."""
    make_record, format_warning = logging.getLogRecordFactory(), warnings.formatwarning

    def printable_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make_record(*args, **kwargs)
        record.msg, record.args = printable(record.getMessage()), ()
        return record

    def printable_warning(message: Any, category: type[Warning], *args: Any, **kwargs: Any) -> str:
        if category is UserWarning:  # meant for whoever runs the command, to whom lines of code say nothing
            return f"Warning: {printable(message)}\n"
        return printable(format_warning(message, category, *args, **kwargs))

    logging.setLogRecordFactory(printable_record)
    warnings.formatwarning = printable_warning
    try:
        yield
    finally:
        logging.setLogRecordFactory(make_record)
        warnings.formatwarning = format_warning

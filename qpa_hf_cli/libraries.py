"""Load `qpa_hf` and the libraries that it stands on, in the least time that they allow."""

from __future__ import annotations

import atexit
import gc
import sys
from typing import Any


def load(with_quantised: bool) -> None:
    """Import `qpa_hf`, once a command is to run.

    The modules of torch, transformers and PEFT make hundreds of thousands of objects that stay. The garbage collector
    would look at them again and again, for a sixth of the time; nor does it look at them later.

    Args:
        with_quantised: whether the command loads base models, which may be quantised. PEFT imports bitsandbytes
            wherever it is installed, and with it a compiler: a fourth of the time of a command that never needs it.
    """
    modules: dict[str, Any] = sys.modules
    if "qpa_hf" in modules:
        return
    if not with_quantised and "peft" not in modules:
        modules.setdefault("bitsandbytes", None)  # as Python has it where a module is not installed
    gc.disable()
    try:
        import qpa_hf  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()
        if "triton" in modules:
            # It counts what is still there at the end, and prints hundreds of lines about it.
            atexit.register(gc.unfreeze)

"""Remarks of PEFT, transformers and bitsandbytes that nobody who trains an adapter can act on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping

# By logger: how the remarks begin. PEFT imports bitsandbytes wherever it is installed, though few models need it.
OF_IMPORTS = {"bitsandbytes.backends.cpu.ops": ("Failed to load CPU gemm_4bit_forward",)}
OF_COMMANDS = {
    "transformers.modeling_utils": (
        "`loss_type=None` was set",  # of every GPT-2, whose loss is right all the same
        "We strongly recommend passing in an `attention_mask`",  # of blocks that hold the end-of-text token, unpadded
    ),
    "transformers.distributed.tensor_parallel": ("The following layers were not sharded",),  # without any plan for it
    "transformers.trainer_utils": ("mtime may not be reliable",),
    "matplotlib.font_manager": ("findfont",),  # a list of fonts that another environment has left; another font serves
}
WARNED = (".*is_gradient_checkpointing.*", "`gradient_checkpointing` is deprecated", "fan_in_fan_out is set to ")


def silence_commands() -> None:
    """Silence what remains of others' remarks in a program of ours: in a user's own, they are the user's."""
    _silence(OF_COMMANDS)
    for words in WARNED:
        warnings.filterwarnings("ignore", message=words)


def _silence(remarks: Mapping[str, tuple[str, ...]]) -> None:
    for name, words in remarks.items():
        logging.getLogger(name).addFilter(_Without(words))


class _Without(logging.Filter):
    def __init__(self, words: tuple[str, ...]) -> None:
        super().__init__()
        self.words = words

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.words)


_silence(OF_IMPORTS)

"""What goes to the Hub: an adapter's own files, by a list of names, copied before anybody looks into them."""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from qpa_hf.materialize import WRITTEN
from qpa_hf.messages import one_line

logger = logging.getLogger(__name__)

PICTURES = {"comparison.png", "loss.png", "probabilities.png", "singular_values.png"}
# What transformers' tokenizers and processors save and load, over all models.
TOKENIZER = {
    "added_tokens.json", "bpe.codes", "byte_maps.json", "chat_template.jinja", "chat_template.json", "dict.txt",
    "emoji.json", "entity_vocab.json", "generation_config.json", "merges.txt", "normalizer.json",
    "preprocessor_config.json", "processor_config.json", "prophetnet.tokenizer", "sentencepiece.bpe.model",
    "sentencepiece.model", "source.spm", "special_tokens_map.json", "spiece.model", "spm.model", "spm_char.model",
    "target.spm", "target_vocab.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "video_preprocessor_config.json", "vocab-src.json", "vocab-tgt.json", "vocab.json", "vocab.txt",
    "word_pronunciation.json", "word_shape.json",
}  # fmt: skip
NAMES = {*WRITTEN, *PICTURES, *TOKENIZER}
# What Trainer keeps beside an adapter to go on with; it is left out without a word.
STATE = re.compile(r"optimizer\.\w+|(scheduler|scaler)\.pt|rng_state\w*\.pth|training_args\.bin|trainer_state\.json")
MOST_NAMED = 8
DESCRIPTORS = Path("/proc/self/fd")  # paths of files that this process has open; Linux
# What a system does not know is left out: on Windows no name can be a pipe, and lines would be translated.
OPENED = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))


def pack(folder: Path, held: ExitStack) -> dict[str, Path]:
    """Copy the files of a folder that belong to an adapter, so that what is checked is what is pushed.

    Subfolders hold other adapters and hidden files are nobody's business. Any other file is left out and named.

    Args:
        folder: the folder that holds the adapter.
        held: the stack that keeps the copies until it closes. On Linux they are files without a name, which a killed
            process takes along; elsewhere such a file has no path, and they lie in a temporary folder of this user's.

    Returns:
        The copies by name, as paths that this process can open.

    Raises:
        ValueError: for a link that leads anywhere but into the Hub's cache, or what is no ordinary file.
    """
    # A list of what may go, and none of what may not: a file that nobody thought of stays here.
    files = {}
    left_out = []
    place = None if DESCRIPTORS.is_dir() else Path(held.enter_context(tempfile.TemporaryDirectory()))
    for path in sorted(folder.iterdir()):
        if path.name in NAMES:
            if place is None:
                copy = held.enter_context(tempfile.TemporaryFile())
                _copy(path, copy)
                files[path.name] = DESCRIPTORS / str(copy.fileno())
            else:
                files[path.name] = place / path.name
                with files[path.name].open("wb") as file:
                    _copy(path, file)
        elif not (path.is_dir() or path.name.startswith(".") or STATE.fullmatch(path.name)):
            left_out.append(one_line(path.name))
    if left_out:
        more = f" and {len(left_out) - MOST_NAMED} more" if len(left_out) > MOST_NAMED else ""
        names = ", ".join(left_out[:MOST_NAMED]) + more
        logger.warning("Not pushed, because they belong neither to an adapter nor to its tokenizer: %s.", names)
    return files


def _copy(path: Path, copy: IO[bytes]) -> None:
    """Copy a file, or what a link in a snapshot of the Hub's cache leads to."""
    source = _in_cache(path) if path.is_symlink() else path
    try:
        # A link or a pipe that has come into its place since is not followed, and not waited for.
        file = os.fdopen(os.open(source, OPENED), "rb")
    except OSError:
        if not source.is_dir():
            raise
        is_file = False
    else:
        with file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            if is_file:
                shutil.copyfileobj(file, copy)
                copy.flush()
    if not is_file:
        raise ValueError(
            f"{one_line(path)} is not an ordinary file, so nothing was pushed. Move it out of the folder."
        )


def _in_cache(link: Path) -> Path:
    """Return what a link leads to, if that is a blob beside the snapshot in which the link lies."""
    snapshot = link.parent.resolve()
    target = Path(os.path.realpath(link))  # which takes a link to itself, too
    blobs = snapshot.parent.with_name("blobs")
    if snapshot.parent.name != "snapshots" or blobs not in target.parents or not target.is_file():
        raise ValueError(
            f"{one_line(link)} is a link that leads elsewhere, so nothing was pushed. Put a copy of the file in its "
            "place, or move the link out of the folder."
        )
    return target

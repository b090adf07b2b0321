"""A file's content as text, or what it is instead."""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

from qpa_hf.messages import one_line

BYTE_ORDER_MARKS = {  # the longer ones first: UTF-16's mark begins UTF-32's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
# The first bytes of files that are often named in place of the text in them.
BEGINNINGS = {
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a zip archive, as many word processors write",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh91AY&SY": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"%PDF-": "a PDF document",
    b"PAR1": "a Parquet table whose name does not end in .parquet",
    b"ARROW1": "an Arrow table, not a Parquet one",
}
CONTROLS = [chr(code) for code in range(32) if chr(code) not in "\t\n\v\f\r\x1a\x1b"]
MOST_CONTROLS = 100  # one character in so many; UTF-16 of many scripts is text with more


def read_bytes(path: Path, option: str) -> bytes:
    """Return the bytes of a regular file; nothing else is opened, because a pipe may never end.

    Args:
        path: the path of the file.
        option: the option that names the file, for messages.

    Raises:
        FileNotFoundError: if it is missing.
        IsADirectoryError: if it is a directory.
        OSError: if it cannot be read, because it may not be, or links to itself.
        ValueError: if it is a pipe, a socket or a device.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(f"{one_line(path)} is a directory. Name the files in it, or check {option}.")
        if not stat.S_ISREG(mode):
            raise ValueError(
                f"{one_line(path)} is a pipe, a socket or a device. Write its text to a file, and name that."
            )
        return path.read_bytes()
    except IsADirectoryError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no text file {one_line(path)}. Check {option}.") from error
    except OSError as error:
        raise type(error)(f"{one_line(path)} cannot be read ({error.strerror}). Check {option}.") from error


def decode(content: bytes, path: Path, option: str) -> str:
    """Return text in UTF-8, without a byte order mark, and with the line ends that Python has.

    Args:
        content: the bytes of the file.
        path: the path of the file, for messages.
        option: the option that names the file, for messages.

    Raises:
        ValueError: if it is none, saying what it is where that can be told, or empty.
    """
    try:
        text = content.decode("utf-8-sig")
        reason = _what_else(text)
    except UnicodeDecodeError as error:
        text = ""
        reason = str(error)
    if reason:
        reason = _kind_of(content) or reason
        raise ValueError(f"{one_line(path)} is not text in UTF-8 ({reason}). Convert it, or check {option}.")
    if not text.strip():
        raise ValueError(f"{one_line(path)} is empty. Leave it out, or check {option}.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _what_else(text: str) -> str:
    """Return why characters can be no text that somebody wrote, or nothing."""
    if "\0" in text:
        return "it has NUL characters"
    is_full = sum(map(text.count, CONTROLS)) * MOST_CONTROLS > len(text)
    return "it is full of control characters" if is_full else ""


def _kind_of(content: bytes) -> str:
    for beginning, kind in BEGINNINGS.items():
        if content.startswith(beginning):
            return f"it is {kind}"
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return f"it is {encoding}"
    # UTF-16 of Latin text has a zero in every other byte, at the even or at the odd places.
    is_even, is_odd = (content[start::2].count(0) * 2 > len(content) // 2 for start in (0, 1))
    return "it looks like UTF-16 without a byte order mark" if is_even != is_odd else ""

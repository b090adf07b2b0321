"""Files as a faulty disk or a stranger leaves them.

    mutate(folder, random.Random(0))  # one file of it, in place; returns what was done
    restore(folder, original)

Knows nothing of qpa_hf: what is right or wrong is the reader's to say.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Values that have surprised readers, as JSON can hold them.
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 5, 2.5, -0.0, 1e-320, 1e308, 2**31, 2**63, 10**12, 10**400,
    "", "(", "[", "*", "nan", "inf", "5", "abc", "a\nb", "\u202e", "\x1b]0;x\x07", "{{ 7 }}", "../..", "\ud800",
    "a" * 5000, [], [0], [[]], [None], ["x", "x"], [2.5], [1, 2, 3], {}, {"a": 1}, {"": None}, {"r": {}},
)  # fmt: skip
RAW = ("1e400", "-1e400", "NaN", "Infinity", "1" * 5000, "[" * 3000, '{"a":' * 3000, "[" * 40 + "]" * 40)
CONTENTS = (
    b"",
    b"\0",
    b"\0" * 4096,
    b"5",
    b"[]",
    b"null",
    b'"text"',
    b"{}",
    b"\xff\xfe{\0}\0",
    b"\xef\xbb\xbf{}",
    b"{",
)
YAML = (
    "a: &a [1, 2]\nb: &b [*a, *a]\n",
    "a: !!python/object/apply:os.system ['true']",
    "a: !!bool maybe",
    "a: !!timestamp x",
    "a: 2020-99-99",
    "? [a]\n: 1",
    "- 5",
    "&a [*a]",
    "a: 1\na: 2",
    "\t",
    "@",
    "data: " + "[" * 500,
    "model: &m [1]\ndata: {train: *m}",
)
DTYPES = ("BOOL", "U8", "I8", "I64", "F16", "BF16", "F32", "F64", "F8_E4M3", "C64", "X9", 5)
SIZES = (-1, 0, 1, 2, 7, 16, 2.5, "4", None, 2**31, 2**62, 10**400)


def mutate(folder: Path, rng: random.Random) -> str:
    """Change one file of a folder, and return what was done."""
    path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    kinds = BY_SUFFIX.get(path.suffix, ()) or (truncated,)
    change = rng.choice((*kinds, *kinds, *ANY))  # twice: what keeps a file's form gets further into its reader
    change(path, rng)
    return f"{path.name}: {change.__name__}"


def truncated(path: Path, rng: random.Random) -> None:
    """Cut a file off."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])


def flipped(path: Path, rng: random.Random) -> None:
    """Change some bytes."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 8, 64)) if content else 0):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)


def replaced(path: Path, rng: random.Random) -> None:
    """Put something else in a file's place."""
    path.write_bytes(rng.choice(CONTENTS))


def removed(path: Path, rng: random.Random) -> None:
    """Remove a file."""
    path.unlink()


def directory(path: Path, rng: random.Random) -> None:
    """Put a directory in a file's place."""
    path.unlink()
    path.mkdir()


def pipe(path: Path, rng: random.Random) -> None:
    """Put a pipe in a file's place, from which nothing will ever come."""
    path.unlink()
    os.mkfifo(path)


def dangling(path: Path, rng: random.Random) -> None:
    """Put a link to nothing in a file's place."""
    path.unlink()
    path.symlink_to("nowhere")


def repeated(path: Path, rng: random.Random) -> None:
    """Write a file's content twice."""
    path.write_bytes(path.read_bytes() * 2)


ANY = (
    truncated,
    flipped,
    replaced,
    removed,
    directory,
    dangling,
    repeated,
    *([pipe] if hasattr(os, "mkfifo") else []),
)


def odd_field(path: Path, rng: random.Random) -> None:
    """Give one place of a JSON value another value."""
    value = json.loads(path.read_text(encoding="utf-8"))
    holder, key = _place(value, rng)
    if holder is not None:
        holder[key] = rng.choice(ODD)
    path.write_text(json.dumps(value), encoding="utf-8")


def raw_field(path: Path, rng: random.Random) -> None:
    """Give one place of a JSON value what Python's own writer would not write."""
    value = json.loads(path.read_text(encoding="utf-8"))
    holder, key = _place(value, rng)
    if holder is not None:
        holder[key] = "<here>"
    path.write_text(json.dumps(value).replace('"<here>"', rng.choice(RAW), 1), encoding="utf-8")


def lost_field(path: Path, rng: random.Random) -> None:
    """Leave out one place of a JSON value."""
    value = json.loads(path.read_text(encoding="utf-8"))
    holder, key = _place(value, rng)
    if holder is not None:
        del holder[key]
    path.write_text(json.dumps(value), encoding="utf-8")


def added_field(path: Path, rng: random.Random) -> None:
    """Add a field to a JSON object, or one that is there already a second time."""
    value = json.loads(path.read_text(encoding="utf-8"))
    name = rng.choice([*value, "extra", "runtime_config", "peft_type"]) if isinstance(value, dict) else "extra"
    text = json.dumps(value)
    path.write_text(f"{{{json.dumps(name)}: {json.dumps(rng.choice(ODD))}, {text[1:]}", encoding="utf-8")


def _place(value: Any, rng: random.Random) -> tuple[Any, Any]:
    """Return a container within a JSON value, and a key or an index of it."""
    holder: Any = None
    key: Any = None
    while isinstance(value, (dict, list)) and value and (holder is None or rng.random() < 0.7):
        holder, key = value, rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        value = holder[key]
    return holder, key


def odd_header(path: Path, rng: random.Random) -> None:
    """Let the header of a safetensors file lie of one tensor."""
    header, data = _split(path)
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    field = rng.choice(("dtype", "shape", "data_offsets", "name", "whole"))
    if field == "dtype":
        entry["dtype"] = rng.choice(DTYPES)
    elif field == "shape":
        entry["shape"] = [rng.choice(SIZES) for _ in range(rng.randrange(4))]
    elif field == "data_offsets":
        entry["data_offsets"] = [rng.choice((*SIZES, len(data))) for _ in range(2)]
    elif field == "name":
        header[rng.choice(("", "x", name + "x", "base_model.lora_qpa.angles", name.upper()))] = header.pop(name)
    else:
        header[name] = rng.choice(ODD)
    _join(path, header, data)


def other_tensor(path: Path, rng: random.Random) -> None:
    """Give a safetensors file one tensor of another kind or shape, whose header says so."""
    header, data = _split(path)
    names = [name for name in header if name != "__metadata__"]
    parts = {name: data[slice(*header[name]["data_offsets"])] for name in names}
    name = rng.choice(names)
    sizes = [rng.choice((0, 1, 2, 3, 16, 60)) for _ in range(rng.randrange(4))]
    dtype, width = rng.choice((("F32", 4), ("I64", 8), ("U8", 1), ("BOOL", 1), ("F64", 8), ("BF16", 2)))
    n_bytes = width
    for size in sizes:
        n_bytes *= size
    action = rng.choice(("change", "remove", "add"))
    if action == "remove":
        del parts[name], header[name]
    else:
        name = name if action == "change" else name + ".more"
        parts[name], header[name] = bytes(n_bytes), {"dtype": dtype, "shape": sizes}
    _lay_out(path, header, parts)


def odd_numbers(path: Path, rng: random.Random) -> None:
    """Fill one tensor of a safetensors file with bytes of one value: zero, NaN, huge or negative numbers."""
    header, data = _split(path)
    start, end = header[rng.choice([name for name in header if name != "__metadata__"])]["data_offsets"]
    byte = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"\x42"))
    _join(path, header, data[:start] + byte * (end - start) + data[end:])


def odd_length(path: Path, rng: random.Random) -> None:
    """Let a safetensors file lie of the length of its header."""
    length = rng.choice((0, 1, 2**31, 2**62, 2**64 - 1, path.stat().st_size))
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])


def _split(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8:end]), content[end:]


def _join(path: Path, header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def _lay_out(path: Path, header: dict[str, Any], parts: dict[str, bytes]) -> None:
    data = b""
    for name, part in parts.items():
        header[name]["data_offsets"] = [len(data), len(data) + len(part)]
        data += part
    _join(path, header, data)


def odd_yaml(path: Path, rng: random.Random) -> None:
    """Put YAML of another kind into a file, or beside what it holds."""
    more = rng.choice(YAML)
    path.write_text(rng.choice((more, f"{path.read_text(encoding='utf-8')}\n{more}")), encoding="utf-8")


def odd_line(path: Path, rng: random.Random) -> None:
    """Give one field of a YAML file another value, or none."""
    lines = path.read_text(encoding="utf-8").splitlines()
    index = rng.randrange(len(lines))
    name = lines[index].partition(":")[0]
    value = rng.choice((*RAW[:5], *(json.dumps(odd) for odd in ODD), ""))
    lines[index] = rng.choice((f"{name}: {value}", name, lines[index] * 2, f"  {lines[index]}", value))
    path.write_text("\n".join(lines), encoding="utf-8")


BY_SUFFIX: dict[str, tuple[Callable[[Path, random.Random], None], ...]] = {
    ".json": (odd_field, odd_field, raw_field, lost_field, added_field),
    ".safetensors": (odd_header, other_tensor, other_tensor, odd_numbers, odd_length),
    ".yaml": (odd_yaml, odd_line, odd_line),
}


def restore(folder: Path, original: Path) -> None:
    """Make a folder what it was before it was changed."""
    shutil.rmtree(folder)
    shutil.copytree(original, folder)

"""Disks that fill up and files that are cut anywhere, in each command that writes."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.faults.children import run
from benchmarks.faults.stage import WRITING, Stage

NEW_USER, NEW_MOUNTS = 0x10000000, 0x20000  # Linux, unshare(2)
N_SIZES = 6  # parts of what a scene needs
SAID = re.compile(r"^[\w.]*Error: .*disk is full")


def full_disk(stage: Stage) -> list[str]:
    """Run scenes where the disk fills up, or files may not grow beyond some size, then with enough room."""
    wrong = []
    for name in WRITING:
        sizes = stage.references[name].sizes
        for nth in range(1, N_SIZES):
            kilobytes, longest = sum(sizes) * nth // N_SIZES // 1024 + 1, max(sizes) * nth // N_SIZES
            disturbances = {"a full disk": (_fill, kilobytes), "short files": (_cut, longest)}
            for what, (act, size) in disturbances.items():
                ended = run(partial(act, stage, name, size), stage.place(f"{name} {what} {nth}"))
                wrong += [f"{name}, {what} ({nth}/{N_SIZES}): {ended.last_line}"] if ended.code else []
    return wrong


def _fill(stage: Stage, name: str, kilobytes: int, folder: Path) -> None:
    """Run a scene with so much room left, in a file system of this process's own, and exit with what is wrong."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_MOUNTS | (NEW_USER if os.getuid() else 0)):
        raise OSError(ctypes.get_errno(), "No file system can be mounted here.")
    _mount("--make-rprivate", "/")
    _mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", folder)
    stage.scenes[name].prepare(folder)
    _mount("-o", f"remount,size={shutil.disk_usage(folder).used // 1024 + kilobytes}k", folder)
    first = run(stage.scenes[name].act, folder)
    _mount("-o", "remount,size=64m", folder)
    wrong = [f"ends with {first.code}: {first.last_line}"] if first.code not in (0, 1) else []
    wrong += [f"ends with {first.last_line}"] if first.code == 1 and not SAID.search(first.last_line) else []
    _exit(wrong + stage.go_on(name, folder))


def _mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)


def _cut(stage: Stage, name: str, longest: int, folder: Path) -> None:
    """Run a scene where a file may have so many bytes, which cuts it anywhere, and exit with what is wrong."""
    stage.scenes[name].prepare(folder)

    def act(folder: Path) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (longest, longest))
        stage.scenes[name].act(folder)

    run(act, folder)
    _exit(stage.go_on(name, folder))


def _exit(wrong: list[str]) -> None:
    print("; ".join(wrong))
    sys.exit(bool(wrong))

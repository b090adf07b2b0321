"""Files and folders that are replaced in one step, folders that one process has to itself, and what a kill leaves."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

LOCK_NAME = ".qpa.lock"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
ROOM = 2**20  # bytes; with less, it is the disk that stopped torch, which does not say so
# Such as ".run.yaml.3f2a9c1e-4711-1718000000-9b3d5e7f.partial": its target, then computer, process and start of the
# one that writes it. "old" is what two renames exchange for a new folder where the system has no exchange.
UNFINISHED = re.compile(
    r"\.(?P<target>.+)\.(?P<computer>[0-9a-f]{8})-(?P<process>\d+)-(?P<start>\d+)-[0-9a-f]{8}\.(?P<kind>partial|old)",
    re.DOTALL,
)
BOOT, PROCESSES = Path("/proc/sys/kernel/random/boot_id"), "/proc/self/ns/pid"
CLOCK_CHANGE = 60  # seconds that a process's start may seem to move by, where the clock is set
ABANDONED = 86_400  # seconds until another computer's process, which cannot be asked, counts as gone
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # Linux, renameat2(2)
RENAME_SWAP = 2  # macOS, renamex_np(2)


class DiskFullError(OSError):
    """A disk has no room for what was to be written, in one sentence that names the folder."""

    errno = errno.ENOSPC


@contextmanager
def naming_full_disk(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Within this block, say in one sentence that the disk of a folder is full, whatever a library says of it.

    Raises:
        DiskFullError: naming the folder.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if not _is_of_full_disk(error, Path(folder)):
            raise
        raise DiskFullError(
            f"The disk is full: not all could be written in {folder}. Make room on it, and run the same again."
        ) from error


def _is_of_full_disk(error: BaseException | None, folder: Path) -> bool:
    """Whether an error, or one that it came from, is that of a full disk; safetensors and shutil quote the system."""
    quoted = [os.strerror(number) for number in DISK_FULL]
    while error is not None:
        said = str(error)
        if isinstance(error, OSError) and error.errno in DISK_FULL or any(words in said for words in quoted):
            return True
        if "inline_container" in said:  # torch's writer of archives
            there = next(place for place in (folder, *folder.resolve().parents) if place.exists())
            return shutil.disk_usage(there).free < ROOM
        error = error.__cause__ or error.__context__
    return False


def is_temporary(name: str) -> bool:
    """Return whether a name is that of a lock or of something unfinished, which no reader of a folder looks at."""
    return name == LOCK_NAME or UNFINISHED.fullmatch(name) is not None


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Replace a file or folder in one step: readers find the old one or the new one, never a part.

    Args:
        target: what is replaced, or not there yet.

    Yields:
        The path beside it to write the new one to. After an error it is removed, and `target` is as it was.

    Raises:
        DiskFullError: if there is no room for it.
    """
    with naming_full_disk(target.parent), unfinished(target) as partial:
        yield partial
        _take_place(partial, target)


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """Yield a path beside `target` that no other process and no reader uses, and remove what is there at the end."""
    sweep(target.parent)
    start = int(psutil.Process().create_time())
    writer = f"{_computer()}-{os.getpid()}-{start}-{secrets.token_hex(4)}"
    partial = target.with_name(f".{target.name}.{writer}.partial")
    try:
        yield partial
    finally:
        _remove(partial)


def sweep(folder: Path, is_deep: bool = False) -> None:
    """Remove what processes that are gone left unfinished, and put back what one of them was exchanging.

    Args:
        folder: where to look; it need not be there.
        is_deep: also look in its subfolders.
    """
    try:
        paths = list(folder.rglob(".*") if is_deep else folder.iterdir())
    except OSError:  # it is not there, or not to be read
        return
    for path in paths:
        found = UNFINISHED.fullmatch(path.name)
        with suppress(OSError):  # another process sweeps, too, or may write here and this one may not
            if found is None or not _is_abandoned(path, found):
                continue
            target = path.with_name(found["target"])
            if found["kind"] == "old" and not target.exists():
                path.rename(target)
            else:
                _remove(path)


def _is_abandoned(path: Path, found: re.Match[str]) -> bool:
    if found["computer"] != _computer():
        # Not the time of modification, which `shutil.copytree` takes from the folder that it copies.
        return time.time() - path.lstat().st_ctime > ABANDONED
    try:
        process = psutil.Process(int(found["process"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        return abs(process.create_time() - int(found["start"])) > CLOCK_CHANGE  # another one, with its number
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


@cache
def _computer() -> str:
    """Return what tells this computer's numbers of processes from those of others that share its files."""
    try:
        known = BOOT.read_text(encoding="ascii") + os.readlink(PROCESSES)  # containers number theirs apart
    except OSError:
        known = platform.node()
    return hashlib.sha256(known.encode()).hexdigest()[:8]


def _remove(path: Path) -> None:
    with suppress(OSError):  # most often it is not there
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        path.chmod(stat.S_IRWXU)  # a read-only folder would keep its files
        shutil.rmtree(path)


def _take_place(partial: Path, target: Path) -> None:
    """Put what was written in the place of its target; afterwards `partial` is the old one, or not there."""
    if not partial.is_dir() or not target.exists():
        partial.replace(target)
        return
    if _trade(partial, target):
        return
    old = partial.with_suffix(".old")
    try:
        target.rename(old)
        partial.rename(target)
    except BaseException:
        if not target.exists():
            old.rename(target)
        raise
    _remove(old)


def _trade(first: Path, second: Path) -> bool:
    """Let two paths trade places in one step, and return whether the system and the file system can."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
    except (TypeError, OSError):  # Windows
        return False
    paths = os.fsencode(first), os.fsencode(second)
    if hasattr(library, "renameat2"):
        return library.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0
    return hasattr(library, "renamex_np") and library.renamex_np(*paths, RENAME_SWAP) == 0


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process that asks for the same out of a folder, until the end or the death of this one.

    A folder that is not there is made, and removed at the end if it has stayed empty.

    Args:
        folder: need not be there.

    Raises:
        BlockingIOError: if another process, or another call in this one, has the folder.
        PermissionError: if nothing can be written there.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    lock = FileLock(folder / LOCK_NAME, blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise BlockingIOError(
            f"Another process is at work in {folder}. Wait until it has ended, or choose another output folder."
        ) from error
    except PermissionError as error:
        raise PermissionError(
            f"{folder} cannot be written ({error.strerror}). Choose another output folder."
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # Windows keeps the file that is open
            (folder / LOCK_NAME).unlink()  # before the release: then nobody has it yet
        lock.release()
        for place in missing:
            with suppress(OSError):
                place.rmdir()

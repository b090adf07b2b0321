"""Take from this process what only Linux has, as far as Python code can ask for it, then run commands of `qpa`.

Called as `another_system.py macos|windows COMMANDS`, the latter in JSON. The libraries beneath stay those of this
system: they are loaded before anything is taken away.
"""

import ctypes
import errno
import importlib
import json
import mmap
import os
import signal
import sys
import time
from pathlib import Path

LINUX_ALONE = {
    os: ("sched_getaffinity", "sched_setaffinity", "O_DIRECT", "memfd_create"),
    mmap: ("MADV_HUGEPAGE", "MAP_POPULATE"),
}
POSIX_ALONE = {
    os: ("fork", "forkpty", "killpg", "getpgid", "getuid", "geteuid", "mkfifo"),
    mmap: ("MAP_PRIVATE", "MAP_ANONYMOUS", "MAP_SHARED", "PROT_READ"),
    signal: ("SIGALRM", "SIGKILL", "SIGUSR1", "alarm", "setitimer", "pthread_sigmask"),
    time: ("tzset",),
}
LIBRARIES = ("datasets", "filelock", "huggingface_hub", "numba", "peft", "psutil", "torch", "transformers.trainer")
POSIX_MODULES = ("fcntl", "resource", "pwd", "grp", "termios")
FORBIDDEN = set('<>:"|?*')  # in the name of a file on Windows


def take(missing):
    for module, names in missing.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)


def be_windows():
    take(POSIX_ALONE)
    sys.modules |= dict.fromkeys(POSIX_MODULES)
    rename, make, library = os.rename, os.mkdir, ctypes.CDLL

    def renamed(source, target, **kwargs):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", target)
        check_name(target)
        rename(source, target, **kwargs)

    def made(path, *args, **kwargs):
        check_name(path)
        make(path, *args, **kwargs)

    def loaded(name, *args, **kwargs):
        if name is None:
            raise TypeError("argument of type 'NoneType' is not iterable")
        return library(name, *args, **kwargs)

    def linked(*args, **kwargs):
        raise OSError("[WinError 1314] A required privilege is not held by the client")

    os.rename, os.mkdir, os.symlink, os.link = renamed, made, linked, linked
    ctypes.CDLL = loaded


def check_name(path):
    if FORBIDDEN & set(Path(os.fspath(path)).name):
        raise OSError(errno.EINVAL, "The filename, directory name, or volume label syntax is incorrect", path)


def be_mac():
    library = ctypes.CDLL

    def loaded(name, *args, **kwargs):
        return object() if name is None else library(name, *args, **kwargs)

    ctypes.CDLL = loaded


def main(system, commands):
    for name in LIBRARIES:  # whose code is this system's
        importlib.import_module(name)
    take(LINUX_ALONE)
    {"macos": be_mac, "windows": be_windows}[system]()
    from qpa_hf import files
    from qpa_hf.hub import parcel
    from qpa_hf_cli import main as qpa

    nowhere = Path("/nowhere")
    files.BOOT, files.PROCESSES, parcel.DESCRIPTORS = nowhere, str(nowhere), nowhere
    for command in json.loads(commands):
        sys.argv = ["qpa", *command]
        try:
            qpa()
        except SystemExit as end:
            if end.code:
                raise


if __name__ == "__main__":
    main(*sys.argv[1:])

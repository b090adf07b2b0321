"""Hostile conditions: each check runs the real thing under one of them and says what was wrong."""

from __future__ import annotations

import json
import os
import resource
import select
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.faults import hub as hubs
from benchmarks.faults.children import Act, Child, Ended, run
from benchmarks.faults.crowds import other_settings, three_at_once
from benchmarks.faults.disk import full_disk
from benchmarks.faults.scenes import BASE, book, find_bases, options, qpa
from benchmarks.faults.stage import Stage
from qpa_hf.hub import download, push

GROWTH = 8.0  # megabytes between the middle and the end of a long run
LINES = ("import sys", "from qpa_hf_cli import main", "main()")
READ_ONLY = 'for d in $FOLDERS; do mount --bind "$d" "$d" && mount -o remount,bind,ro "$d" || exit 9; done; exec "$@"'
REDIRECTED = {  # what a push or a download asks the Hub
    "push": ("POST /api/repos/create", "GET /api/models/.*tree", "POST .*preupload", "POST .*commit", "POST .*tag"),
    "download": ("HEAD .*config.json", "GET .*config.json", "HEAD .*safetensors"),
}


def few_descriptors(stage: Stage) -> list[str]:
    """Run every scene with 64 file descriptors."""
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (64, 64))
    return [wrong for name in stage.scenes for wrong in stage.run(name, "64 descriptors", limit)]


def no_terminal(stage: Stage) -> list[str]:
    """Train without a standard input and without a kind of terminal."""

    def before() -> None:
        os.environ.pop("TERM", None)
        os.close(0)

    return stage.run("qpa train", "no terminal", before)


def narrow(stage: Stage) -> list[str]:
    """Print tables and JSON on 20 columns."""
    wrong = []
    for words in (["inspect", stage.adapter()], ["plan", BASE, "--target", "c_attn"], ["train", "--help"]):
        ended = run(partial(_qpa, words), stage.place("narrow"), COLUMNS="20")
        wrong += _failed(f"qpa {words[0]}", ended)
        if words[0] != "train":
            ended = run(partial(_qpa, [*words, "--json"]), stage.place("narrow"), COLUMNS="20")
            wrong += _failed(f"qpa {words[0]} --json", ended) or _not_json(ended.text)
    return wrong


def _failed(what: str, ended: Ended) -> list[str]:
    return [f"{what} ends with {ended.code}: {ended.last_line}"] if ended.code else []


def _not_json(text: str) -> list[str]:
    try:
        return [] if json.loads(text) else ["empty JSON"]
    except ValueError as error:
        return [f"no JSON: {error}"]


def _fresh(*words: object, shell: str = 'exec "$@"', close: bool = False, **environment: str) -> Ended:
    """Run the command line in a new Python."""
    command = ["sh", "-c", shell, "sh", sys.executable, "-c", "\n".join(LINES), *map(str, words)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL, env=os.environ | environment
    )
    if close and process.stdout:
        process.stdout.close()
        process.stdout = None
    out, err = process.communicate(timeout=300)
    return Ended(process.returncode, 0.0, ((out or b"") + err).decode(errors="replace"))


def _has_traceback(what: str, ended: Ended) -> list[str]:
    is_bad = "Traceback" in ended.text or "Exception ignored" in ended.text or ended.code not in (0, 1, 141)
    return [f"{what} ends with {ended.code}: {ended.text[-300:]!r}"] if is_bad else []


def ascii_output(stage: Stage) -> list[str]:
    """Print what is not ASCII where only ASCII can be printed."""
    ascii = {"PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C"}
    folder = stage.place("é ascii")
    words = ["train", "--output", folder / "ü", *options(book(folder))]
    return _failed("qpa inspect", _fresh("inspect", stage.adapter(), **ascii)) + _failed(
        "qpa train", _fresh(*words, **ascii)
    )


def closed_output(stage: Stage) -> list[str]:
    """Print to a closed standard output, and into a pipe that nobody reads."""
    closed = _fresh("inspect", stage.adapter(), shell='exec "$@" >&-')
    unread = _fresh("inspect", stage.adapter(), close=True)
    return _has_traceback("qpa inspect >&-", closed) + _has_traceback("qpa inspect | head -0", unread)


def unwritable(stage: Stage) -> list[str]:
    """Train where the home, site-packages, the package and with it Numba's cache cannot be written."""
    import qpa_hf

    folder, home = stage.place("unwritable"), stage.root / "home.file"
    home.touch()
    packages = Path(sys.prefix) / "lib"
    known = {
        "FOLDERS": f"{packages} {Path(qpa_hf.__file__).parent}",  # not its parent, in which the study works
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
    }
    words = ["train", "--output", folder / "run", *options(book(folder))]
    ended = _fresh(*words, shell=f"unshare -rm sh -c '{READ_ONLY}' sh \"$@\"", NUMBA_CACHE_DIR="", **known)
    return stage.differences("qpa train", folder, ended)


def _qpa(words: list[object], _: Path) -> None:
    qpa(*words)


def long_run(stage: Stage, n_steps: int = 2000) -> list[str]:
    """Train for 2,000 steps and look at the memory from the middle to the end."""
    folder = stage.place("long run")
    often = [f"training.{name}_steps={n_steps // 20}" for name in ("save", "eval", "logging")]
    words = ["train", "--output", folder / "run", *options(book(folder), f"training.max_steps={n_steps}", *often)]
    child, sizes = Child(partial(_qpa, words), folder), list[int]()
    while not select.select([child.handle], [], [], 0.25)[0]:
        sizes.append(int(Path(f"/proc/{child.pid}/statm").read_text(encoding="utf-8").split()[1]))
    ended, n = child.wait(), len(sizes)
    middle, end = (
        statistics.median(part) for part in (sizes[2 * n // 5 : 3 * n // 5] or [0], sizes[-n // 5 :] or [0])
    )
    grown = (end - middle) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return _failed("qpa train", ended) + ([f"memory grows by {grown:.1f} MB"] if grown > GROWTH else [])


def loader_workers(stage: Stage) -> list[str]:
    """Load data in forked and in spawned workers."""
    name, wrong = "initialize_basis(cache=...)", []
    for method in ("fork", "spawn"):
        folder = stage.place(f"{method} workers")
        ended = run(partial(find_bases, num_workers=2, multiprocessing_context=method), folder)
        wrong += [f"{method}: {what}" for what in stage.differences(name, folder, ended)]
    return wrong


def redirects(stage: Stage) -> list[str]:
    """Redirect each kind of request to another origin, which must not see the token."""
    wrong, hub = [], stage.hub
    for call, requests in REDIRECTED.items():
        for number, request in enumerate(requests):
            folder = stage.place(f"{call} redirect {number}", "push")
            act: Act = partial(_push_or_download, hub, call, request)
            hub.clear()
            ended = run(act, folder)
            wrong += [f"{call}, {request}: the token goes to {line}" for line in hubs.leaks(hub)]
            wrong += [f"{call}, {request}: no such request"] if hub.unused else []
            if ended.code and not any(word in ended.last_line for word in ("qpa_hf.hub", "Error:")):
                wrong.append(f"{call}, {request}: {ended.last_line}")
    hub.clear()
    return wrong


def _push_or_download(hub: Any, call: str, request: str, folder: Path) -> None:
    with hubs.reached(hub) as policy:
        given: dict[str, Any] = {"token": hubs.TOKEN, "policy": policy}
        if call == "push":
            hubs.redirect(hub, request)
            push(folder / "adapter", hubs.repository(folder), tag="v1", **given)
        else:
            push(folder / "adapter", hubs.repository(folder), private=True, **given)
            hubs.redirect(hub, request)
            download(hubs.repository(folder), cache_dir=folder / "cache", **given)


CHECKS: dict[str, Callable[[Stage], list[str]]] = {
    "64 file descriptors": few_descriptors,
    "no terminal": no_terminal,
    "20 columns": narrow,
    "ASCII output": ascii_output,
    "standard output closed": closed_output,
    "home, site-packages, Numba's cache unwritable": unwritable,
    "full disk": full_disk,
    "three processes at once": three_at_once,
    "other settings in a folder in use": other_settings,
    "2,000 steps, memory": long_run,
    "fork and spawn": loader_workers,
    "redirects with a token": redirects,
}

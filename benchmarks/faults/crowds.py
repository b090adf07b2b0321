"""Several processes in one folder."""

from __future__ import annotations

import os
import re
import select
import signal

from benchmarks.faults.children import Child, Interruption, run
from benchmarks.faults.scenes import book, options, qpa
from benchmarks.faults.stage import WRITING, Stage

N_MOMENTS = 8  # in which a run is stopped
REFUSAL = re.compile("^(Error|ValueError|RuntimeError|FileExistsError): .*process")


def three_at_once(stage: Stage) -> list[str]:
    """Run each scene in three processes on one folder, at once and one after another has begun."""
    return [wrong for name in WRITING for share in (0.0, 0.4) for wrong in _three(stage, name, share)]


def _three(stage: Stage, name: str, share: float) -> list[str]:
    folder, children = stage.place("three", name), list[Child]()
    for _ in range(3):
        children.append(Child(stage.scenes[name].act, folder))
        select.select([children[0].handle], [], [], share * stage.references[name].seconds)
    ended = [child.wait() for child in children]
    wrong = [] if any(one.code == 0 for one in ended) else ["none of three succeeds"]
    bad = [one for one in ended if one.code and not REFUSAL.search(one.last_line)]
    wrong += [f"one of three ends with {one.code}: {one.last_line}" for one in bad[:1]]
    wrong += stage.go_on(name, folder)
    return [f"{name}, {'at once' if not share else 'in turn'}: {one}" for one in wrong]


def other_settings(stage: Stage) -> list[str]:
    """Refuse other settings in the folder of a run that is stopped in several moments and must not notice."""
    name, wrong = "qpa train --fresh", []
    n_changes = stage.references[name].n_changes
    for change in range(0, n_changes, n_changes // N_MOMENTS):
        folder = stage.place(f"other settings {change}", name)
        first = Child(stage.scenes[name].act, folder, Interruption(signal.SIGSTOP, change=change))
        os.waitid(os.P_PID, first.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        words = ["train", "--output", folder / "run", *options(book(folder), "training.seed=9")]
        ended = run(lambda _, words=words: qpa(*words), folder)
        found = [] if ended.code == 2 or change == 0 else [f"the other one ends with {ended.code}: {ended.last_line}"]
        os.kill(first.pid, signal.SIGCONT)
        found += stage.differences(name, folder, first.wait())
        wrong += [f"stopped at change {change}: {one}" for one in found]
    return wrong

"""What is disturbed: commands with their undisturbed runs, each disturbance in a folder of its own."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.faults.children import Ended, Interruption, count_changes, run
from benchmarks.faults.scenes import Scene

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
WRITING = "qpa train;qpa train --fresh;qpa compare;initialize_basis(cache=...);materialize;device ledger".split(";")


@dataclass(frozen=True)
class Reference:
    """A scene's undisturbed run.

    Args:
        outcome: what it left, see `Scene.outcome`.
        seconds: how long it took.
        n_changes: how many changes of files it made.
        sizes: of all files that it left, in bytes.
    """

    outcome: dict[str, Any]
    seconds: float
    n_changes: int
    sizes: list[int]


class Stage:
    """What checks run in.

    Args:
        root: folder for everything.
        hub: the Hub on this machine.
        scenes: by name.
        is_compared: whether outcomes are compared with those of undisturbed runs, which are made now.
    """

    def __init__(self, root: Path, hub: Any, scenes: dict[str, Scene], is_compared: bool = True) -> None:
        self.root, self.hub, self.scenes = root, hub, scenes
        self.references = {name: self._undisturbed(name) for name in scenes if is_compared}

    def adapter(self) -> Path:
        """Return the folder of a native adapter."""
        return self.root / "templates" / "native"

    def place(self, what: str, name: str | None = None) -> Path:
        """Return a new folder, alone in one of its own, with what there is before a scene if that is named."""
        top = self.root / "".join(c if c.isalnum() else "-" for c in f"{name or ''} {what}".strip())
        shutil.rmtree(top, ignore_errors=True)
        (top / "place").mkdir(parents=True)
        if name is not None:
            self.scenes[name].prepare(top / "place")
        return top / "place"

    def run(self, name: str, what: str, before: Callable[[], Any] = lambda: None) -> list[str]:
        """Run a scene in a child that does something before, and return what is wrong with its end."""
        folder = self.place(what, name)

        def act(folder: Path) -> None:
            before()
            self.scenes[name].act(folder)

        return [f"{name}: {wrong}" for wrong in self.differences(name, folder, run(act, folder))]

    def go_on(self, name: str, folder: Path) -> list[str]:
        """Run a scene again after a disturbance, and return what was lost meanwhile or is wrong in the end."""
        lost = [] if self.scenes[name].is_kept(folder) else ["what was there before is lost"]
        return lost + self.differences(name, folder, run(self.scenes[name].act, folder))

    def differences(self, name: str, folder: Path, ended: Ended) -> list[str]:
        """Return how a run that should have ended well differs from the undisturbed one."""
        wrong = ["the same command hangs"] if ended.is_hung else []
        if ended.code:
            return [*wrong, f"the same command ends with {ended.code}: {ended.last_line}"]
        outcome, expected = self.scenes[name].outcome(folder), self.references[name].outcome
        files, digests = (set(outcome["files"]), set(expected["files"])), expected["digests"]
        for what, names in (("left behind", files[0] - files[1]), ("missing", files[1] - files[0])):
            wrong += [f"{what}: {', '.join(sorted(names))}"] if names else []
        shared = sorted(outcome["digests"].keys() & digests.keys())
        wrong += [f"{name} differs" for name in shared if outcome["digests"][name] != digests[name]]
        if outcome["count"] != expected["count"]:
            wrong.append(f"done {outcome['count']} instead of {expected['count']}")
        return wrong

    def interrupt(self, name: str, seed: int, number: int) -> dict[str, Any]:
        """Interrupt a scene, run it again, and return what was wrong in which moment.

        Half of the interruptions come after a random time, half right before a random change of a file: the short
        moments in which something is half-written.
        """
        rng, reference = random.Random(f"{seed}/{name}/{number}"), self.references[name]
        sent = SIGNALS[number % len(SIGNALS)]
        if number // len(SIGNALS) % 2 and reference.n_changes:
            moment = Interruption(sent, change=rng.randrange(reference.n_changes))
        else:
            moment = Interruption(sent, seconds=rng.random() * reference.seconds)
        folder = self.place(str(number), name)
        first = run(self.scenes[name].act, folder, moment)
        wrong = self.go_on(name, folder)
        if "Traceback" in first.text and name.startswith("qpa"):
            wrong.append(f"the interruption prints a traceback that ends in {first.last_line!r}")
        if not wrong:
            shutil.rmtree(folder.parent)
        at = f"{moment.seconds:.2f} s" if moment.seconds is not None else f"change {moment.change}"
        return {"scene": name, "number": number, "signal": sent.name, "at": at, "first": first.code, "wrong": wrong}

    def _undisturbed(self, name: str) -> Reference:
        """Run a scene twice without any interruption, first to fill caches.

        Raises:
            RuntimeError: if it fails, or ends in two ways.
        """
        found = []
        for _ in range(2):
            folder = self.place("undisturbed", name)
            ended, n_changes = count_changes(self.scenes[name].act, folder)
            if ended.code:
                raise RuntimeError(f"{name} fails undisturbed: {ended.text[-3000:]}")
            sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
            found.append(Reference(self.scenes[name].outcome(folder), ended.seconds, n_changes, sizes))
        if found[0].outcome != found[1].outcome:
            raise RuntimeError(f"{name} ends in two ways undisturbed.")
        return found[1]

"""One thing that goes wrong during a call, and what has to come of it."""

from dataclasses import dataclass, field

from scene import SMALL

QUICK = {"silence_seconds": 0.2, "attempt_seconds": 1.0}
BUSY = [{"what": "status", "status": status, "headers": {"Retry-After": "0"}} for status in (503, 500, 429)]
FOREVER = 99  # times


@dataclass(frozen=True)
class Case:
    """One fault.

    Args:
        fault: what goes wrong, in words.
        step: where, in words.
        request: expression for the step's request, by path if they differ; a path left out has no such step.
        faults: faults at that step, as `LoopHub.fault` takes them; one with "request" happens elsewhere, and "at" may
            differ by path.
        error: the error's name, by path if they differ, None if the call has to succeed in spite of the fault.
        size: bytes of weights.
        policy: what differs from the tests' policy.
        n_commits: commits of ours after a push and the same push again.
    """

    fault: str
    step: str
    request: str | dict
    faults: list
    error: str | dict | None = None
    size: int = SMALL
    policy: dict = field(default_factory=dict)
    n_commits: int = 1

    def error_on(self, path):
        """Return the error's name on a path."""
        return self.error.get(path) if isinstance(self.error, dict) else self.error

    def request_on(self, path):
        """Return the expression for the step's request on a path, None if the path has no such step."""
        return self.request.get(path) if isinstance(self.request, dict) else self.request

    def inject(self, hub, path):
        """Let the faults happen."""
        hub.clear()
        for fault in self.faults:
            at = {"at": fault["at"][path]} if isinstance(fault.get("at"), dict) else {}
            hub.fault(**{"request": self.request_on(path)} | fault | at)


def on_paths(cases):
    """Return (path, case) for every path that has the case's step, and readable names for them."""
    found = [(path, case) for path in ("lfs", "xet") for case in cases if case.request_on(path)]
    return {"argvalues": found, "ids": [f"{path}-{case.step}-{case.fault}" for path, case in found]}

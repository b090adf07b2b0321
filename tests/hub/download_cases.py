"""What goes wrong while an adapter is downloaded: at which step, how, and what has to come of it."""

from case import BUSY, FOREVER, QUICK, Case
from scene import LARGE, SMALL

STEPS = {
    "resolve the revision": "GET /api/models/[^/]+/[^/]+$",
    "list the files": "GET /api/models/.*/tree/",
    "ask for the configuration": "HEAD .*/resolve/.*/adapter_config.json",
    "fetch the configuration": "GET .*/resolve/.*/adapter_config.json",
    "ask for the weights": "HEAD .*/resolve/.*/adapter_model.safetensors",
    "ask where the weights are": {"xet": "GET .*/xet-read-token/"},
    "ask for the chunks": {"xet": "GET /_cas/v1/reconstructions/"},
    "fetch the weights": {"lfs": "GET /_storage/", "xet": "GET /_cas/xorb/"},
}
FETCHES = ("fetch the configuration", "fetch the weights")
IN_THE_END = {"lfs": 10_500_000, "xet": 9_000_000}  # hf_xet asks for a part of 9.8 MB
MOVE = {"what": "other_commit", "files": {"adapter_config.json": '{"peft_type": "LORA", "r": 16}'}}


def _at(step, fault, faults, error=None, **about):
    return Case(fault, step, STEPS[step], faults, error, **about)


def _at_each_step():
    for step in STEPS:
        yield _at(step, "503, 500, 429, then well", BUSY)
        yield _at(step, "cut (reset), then well", [{"what": "drop"}])
        forever = [{"what": "status", "times": FOREVER}]
        yield _at(step, "503 for ever", forever, "HubUnavailable", policy={"attempts": 2})
    for step in ("resolve the revision", "ask for the weights", "ask for the chunks", "fetch the weights"):
        yield _at(step, "silent, then well", [{"what": "hang"}], policy=QUICK)


def _asked_to_wait():
    # For longer than is left, so that no second request, which would go well, may follow.
    for status, headers in ((503, {"Retry-After": "60"}), (429, {"RateLimit": '"api";r=0;t=60'})):
        faults = [{"what": "status", "status": status, "headers": headers}]
        words = f"{status}, asks to wait for too long"
        yield _at("resolve the revision", words, faults, "HubUnavailable", policy={"total_seconds": 30.0})


def _contents():
    for step in FETCHES:
        again = {"policy": {"attempts": 2}}
        yield _at(step, "one byte flipped, then well", [{"what": "flip", "at": 30}])
        # hf_xet sees by itself that a chunk is damaged, and does not say so by a type of its own.
        error = {"lfs": "DamagedFile", "xet": "HubUnavailable" if step == "fetch the weights" else "DamagedFile"}
        yield _at(step, "one byte flipped for ever", [{"what": "flip", "at": 30, "times": FOREVER}], error, **again)
        yield _at(step, "short body, then well", [{"what": "short", "at": 20}])
        short = [{"what": "short", "at": 20, "times": FOREVER}]
        yield _at(step, "short body for ever", short, "HubUnavailable", **again)
        yield _at(step, "HTML page in place of the file (200)", [{"what": "html", "status": 200}])
        yield _at(step, "silent after 20 bytes", [{"what": "stall", "at": 20}], policy=QUICK)


def _cuts():
    for side, size, at in (("below", SMALL, 1_000), ("above", LARGE, IN_THE_END)):
        for how, clean in (("reset", False), ("in order", True)):
            words = f"cut ({how}) inside a file {side} 10 MB"
            yield _at("fetch the weights", words, [{"what": "cut", "at": at, "clean": clean}], size=size)
    cut = {"what": "cut", "at": IN_THE_END, "clean": True}
    trickle = [{"what": "trickle", "times": FOREVER}]
    yield _at("fetch the weights", "one byte at a time", trickle, "HubUnavailable", policy={"total_seconds": 1.0})
    yield _at("fetch the weights", "cut, then the asked range ignored", [cut, {"what": "no_range"}], size=LARGE)


def _moves():
    yield _at("ask for the weights", "branch moved between configuration and weights", [MOVE])


CASES = [*_at_each_step(), *_asked_to_wait(), *_contents(), *_cuts(), *_moves()]

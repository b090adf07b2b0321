"""What goes wrong while an adapter is pushed: at which step, how, and what has to come of it."""

from case import BUSY, FOREVER, QUICK, Case
from scene import LARGE, SMALL

STEPS = {
    "create": "POST /api/repos/create",
    "look at the tags": "GET /api/models/.*/refs",
    "look at the tip": "GET /api/models/.*/revision/main",
    "list the files": "GET /api/models/.*/tree/",
    "ask how to upload": "POST /api/models/.*/preupload/",
    "ask where to upload": {"lfs": "POST .*/objects/batch", "xet": "GET .*/xet-write-token/"},
    "upload": {"lfs": "PUT /_lfs/", "xet": "POST /_cas/v1/xorbs/"},
    "finish the upload": {"lfs": "POST /_lfs/.*/verify", "xet": "POST /_cas/v1/shards"},
    "check the card": "POST /api/validate-yaml",
    "commit": "POST /api/models/.*/commit/main",
    "tag": "POST /api/models/.*/tag/",
}
AFTER_COMMIT = {"tag"}  # what fails here finds the commit done
NEW_FILE = {"what": "other_commit", "files": {"notes.txt": "theirs"}}
SAME_FILE = {"what": "other_commit", "files": {"adapter_config.json": '{"peft_type": "LORA", "r": 8}'}}


def _at(step, fault, faults, error=None, **about):
    return Case(fault, step, STEPS[step], faults, error, **about)


def _at_each_step():
    for step in STEPS:
        # What was uploaded is found at the next attempt, so the LFS path asks for the finish but once.
        is_once = step == "finish the upload"
        if is_once:
            yield from (_at(step, f"{fault['status']}, then well", [fault]) for fault in BUSY)
        else:
            yield _at(step, "503, 500, 429, then well", BUSY)
        yield _at(step, "cut (reset), then well", [{"what": "drop"}])
        error = {"xet": "HubUnavailable"} if is_once else "HubUnavailable"
        yield _at(step, "503 for ever", [{"what": "status", "times": FOREVER}], error, policy={"attempts": 2})
    for step in ("create", "look at the tip", "upload", "finish the upload", "commit", "tag"):
        yield _at(step, "silent, then well", [{"what": "hang"}], policy=QUICK)


def _uploads():
    for side, size, at in (("below", SMALL, 1_000), ("above", LARGE, 1_000_000)):
        for how, clean in (("reset", False), ("in order", True)):
            words = f"cut ({how}) inside a file {side} 10 MB"
            yield _at("upload", words, [{"what": "cut_upload", "at": at, "clean": clean}], size=size)


def _answers():
    for step in ("create", "upload", "finish the upload", "commit", "tag"):
        yield _at(step, "answer lost", [{"what": "lost"}])
    for step in ("create", "ask how to upload", "commit", "tag"):
        yield _at(step, "HTML error page (502)", [{"what": "html", "status": 502}])
        yield _at(step, "HTML page in place of an answer (200)", [{"what": "html", "status": 200}])
    yield _at("list the files", "answer cut to 20 bytes", [{"what": "short", "at": 20}])
    yield _at("list the files", "one byte of the answer flipped", [{"what": "flip", "at": 30}])
    refused = [{"what": "status", "status": 403, "times": FOREVER}]
    yield _at("upload", "content store refuses (403)", refused, "AccessDenied")
    silent = [{"what": "hang", "times": FOREVER}]
    yield _at("commit", "silent for ever", silent, "HubUnavailable", policy=QUICK | {"total_seconds": 1.0})


def _other_people():
    look = {"request": STEPS["look at the tip"], "skip": 1}
    lost = {"what": "lost"}
    yield _at("commit", "another file committed first (stale parent)", [NEW_FILE])
    yield _at("commit", "the same file committed first (stale parent)", [SAME_FILE])
    yield _at("commit", "answer lost, then another file committed", [lost, NEW_FILE | look])
    yield _at("commit", "answer lost, then the same file committed", [lost, SAME_FILE | look], n_commits=2)


CASES = [*_at_each_step(), *_uploads(), *_answers(), *_other_people()]

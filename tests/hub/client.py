"""The genuine client in a process of its own, which forks one child for each call: imports are paid once per path.

Run as a script it reads calls from standard input, one JSON line each. Each child answers through a pipe with a name:
its number first, what came of the call in the end, nothing more if it was killed.
"""

import ctypes
import gc
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import traceback
from io import StringIO
from pathlib import Path

import certifi

TESTS = Path(__file__).parents[1]
PATHS = {"lfs": {"HF_HUB_DISABLE_XET": "1"}, "xet": {"HF_HUB_DISABLE_XET": "0"}}
# hf_xet retries by itself, by settings of its own: once, without waiting.
XET = {
    "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1",
    "HF_XET_CLIENT_RETRY_BASE_DELAY": "1ms",
    "HF_XET_CLIENT_READ_TIMEOUT": "700ms",
}
POLICY = {
    "attempts": 6,
    "total_seconds": 60.0,
    "attempt_seconds": 30.0,
    "silence_seconds": 20.0,
    "first_wait": 0.001,
    "longest_wait": 0.002,
}
END = "-----END CERTIFICATE-----\n"
NEW_USER, NEW_MOUNTS = 0x10000000, 0x20000  # Linux, unshare(2)
LOGGERS = ("huggingface_hub", "qpa_hf", "httpx2", "httpx", "urllib3")


class Call:
    """One call, running in a forked child."""

    def __init__(self, pipe):
        self.pipe = pipe.open()
        self.pid = json.loads(self.pipe.readline())["pid"]

    def result(self):
        """Wait for the end and return what came of it: "value", or "error" and "message"; and the "log"."""
        with self.pipe:
            return json.loads(self.pipe.read() or "{}")

    def kill(self):
        """End the child at once."""
        os.kill(self.pid, signal.SIGKILL)
        return self.result()


class Client:
    """A process with huggingface_hub and qpa_hf.hub imported, for one Hub and one path.

    Args:
        path: "lfs" or "xet".
        url: the Hub's address.
        home: directory for the client's own files.
    """

    def __init__(self, path, url, home):
        home.mkdir()
        env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "SSL_"))}
        # Nothing here speaks TLS, and reading all certificates takes a third of a call; hf_xet wants at least one.
        env["SSL_CERT_FILE"] = str(home / "certificate.pem")
        first = Path(certifi.where()).read_text().partition(END)
        (home / "certificate.pem").write_text(first[0] + END)
        env |= {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
        env["PYTHONPATH"] = str(TESTS)
        command = [sys.executable, str(Path(__file__))]
        pipe, env = subprocess.PIPE, env | PATHS[path] | XET
        self.process = subprocess.Popen(command, cwd=TESTS, env=env, stdin=pipe, text=True)
        self.home, self.numbers = home, itertools.count()

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait()

    def start(self, function, *args, policy=None, offline=False, **kwargs):
        """Start a call of `qpa_hf.hub`'s function of this name and return it while it runs."""
        pipe = self.home / f"call{next(self.numbers)}"
        os.mkfifo(pipe)
        call = {"function": function, "args": args, "kwargs": kwargs, "policy": POLICY | (policy or {})}
        self.process.stdin.write(json.dumps(call | {"pipe": str(pipe), "offline": offline}) + "\n")
        self.process.stdin.flush()
        return Call(pipe)

    def call(self, function, *args, **kwargs):
        """Call `qpa_hf.hub`'s function of this name and return what came of it."""
        return self.start(function, *args, **kwargs).result()


def make_room(folder, size):
    """Give this process a file system of its own in a folder, with so much room; return whether that is possible.

    Args:
        folder: the place, which is made.
        size: bytes.
    """
    unshare = getattr(ctypes.CDLL(None), "unshare", None)
    if unshare is None or unshare(NEW_MOUNTS | (NEW_USER if os.getuid() else 0)):
        return False
    Path(folder).mkdir()
    commands = (["--make-rprivate", "/"], ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder])
    return all(subprocess.run(["mount", *words], check=False).returncode == 0 for words in commands)


def run(call):
    """Make a call and return what came of it."""
    from helpers import logits
    from models import build

    import qpa_hf.hub

    text = StringIO()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers, logger.level = [logging.StreamHandler(text)], logging.DEBUG
    result = {}
    if (room := call["kwargs"].pop("room", None)) and not make_room(call["kwargs"]["cache_dir"], room):
        return {"error": "no file system"}
    try:
        policy = qpa_hf.hub.RetryPolicy(**call["policy"])
        if "base" in call["kwargs"]:
            call["kwargs"]["base"] = build(call["kwargs"]["base"])
        value = getattr(qpa_hf.hub, call["function"])(*call["args"], policy=policy, **call["kwargs"])
        result["value"] = getattr(value, "oid", str(value))
        result["pull_request"] = getattr(value, "pr_url", None)
        if call["function"] == "load":
            result["value"] = logits(value, "llama").tolist()
    except Exception as error:
        result |= {"error": type(error).__name__, "message": str(error)}
        text.write(traceback.format_exc())
    return result | {"log": text.getvalue()}


def answer(call):
    """Make a call in this child, and answer through its pipe."""
    from huggingface_hub import constants

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    constants.HF_HUB_OFFLINE = call["offline"]  # read once from the environment, which all children share
    with open(call["pipe"], "w") as pipe:
        print(json.dumps({"pid": os.getpid()}), file=pipe, flush=True)
        print(json.dumps(run(call)), file=pipe, flush=True)


def serve():
    """Fork a child for each line of standard input."""
    import helpers  # noqa: F401
    import hf_xet  # noqa: F401

    import qpa_hf.hub  # noqa: F401

    gc.freeze()  # else each child copies what it collects
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    for line in sys.stdin:
        if os.fork() == 0:
            answer(json.loads(line))
            os._exit(0)
    os._exit(0)


if __name__ == "__main__":
    serve()

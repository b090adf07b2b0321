"""The genuine client in a process of its own, which forks one child for each call: imports are paid once per path.

Run as a script it reads calls from standard input, one JSON line each, and answers each with the child's number, the
child's result (unless it was killed) and an end mark.
"""

import json
import logging
import os
import subprocess
import sys
import traceback
from io import StringIO
from pathlib import Path

TESTS = Path(__file__).parents[1]
PATHS = {"lfs": {"HF_HUB_DISABLE_XET": "1"}, "xet": {"HF_HUB_DISABLE_XET": "0"}}
# hf_xet retries in Rust, by settings of its own: the same number of attempts as everywhere, without waiting.
XET = {
    "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1",
    "HF_XET_CLIENT_RETRY_BASE_DELAY": "1ms",
    "HF_XET_CLIENT_READ_TIMEOUT": "700ms",
}
POLICY = {
    "attempts": 5,
    "total_seconds": 60.0,
    "attempt_seconds": 30.0,
    "silence_seconds": 20.0,
    "first_wait": 0.001,
    "longest_wait": 0.002,
}


class Call:
    """One call in a forked child.

    Args:
        client: who makes it.
    """

    def __init__(self, client, call):
        self.client = client
        client.process.stdin.write(json.dumps(call) + "\n")
        client.process.stdin.flush()
        self.pid = self._line()["pid"]

    def _line(self):
        return json.loads(self.client.process.stdout.readline())

    def result(self):
        """Wait for the child and return what came of it: "value" or "error" and "message", and its "log"."""
        result = {}
        while "end" not in (line := self._line()):
            result |= line
        return result

    def kill(self):
        """End the child at once."""
        os.kill(self.pid, 9)
        return self.result()


class Client:
    """A process with huggingface_hub and qpa_hf.hub imported, for one Hub and one path.

    Args:
        path: "lfs" or "xet".
        url: the Hub's address.
        home: directory for the client's own files.
        env: further environment variables.
    """

    def __init__(self, path, url, home, **env):
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        clean |= {
            "HF_ENDPOINT": url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(Path(__file__))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.path = path
        self.process = subprocess.Popen(command, cwd=TESTS, env=clean | PATHS[path] | XET | env, **pipes)

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def start(self, function, *args, policy=None, **kwargs):
        """Start a call of `qpa_hf.hub`'s function of this name and return it while it runs."""
        return Call(self, {"function": function, "args": args, "kwargs": kwargs, "policy": POLICY | (policy or {})})

    def call(self, function, *args, **kwargs):
        """Call `qpa_hf.hub`'s function of this name and return what came of it."""
        return self.start(function, *args, **kwargs).result()


def run(call):
    """Make a call and return what came of it."""
    import qpa_hf.hub

    text = StringIO()
    handler = logging.StreamHandler(text)
    for name in ("huggingface_hub", "qpa_hf", "httpx2", "httpcore2"):
        logger = logging.getLogger(name)
        logger.handlers, logger.level = [handler], logging.DEBUG
    result = {}
    try:
        policy = qpa_hf.hub.RetryPolicy(**call["policy"])
        value = getattr(qpa_hf.hub, call["function"])(*call["args"], policy=policy, **call["kwargs"])
        result["value"] = getattr(value, "oid", str(value))
        result["pull_request"] = getattr(value, "pr_url", None)
    except Exception as error:
        result |= {"error": type(error).__name__, "message": str(error)}
        text.write(traceback.format_exc())
    return result | {"log": text.getvalue()}


def serve():
    """Fork a child for each line of standard input."""
    import qpa_hf.hub  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.close(0)
            print(json.dumps({"pid": os.getpid()}), flush=True)
            print(json.dumps(run(json.loads(line))), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(json.dumps({"end": True}), flush=True)


if __name__ == "__main__":
    serve()

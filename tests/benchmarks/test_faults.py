"""The study of faults in miniature, and its judge: whatever ends badly is noticed."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

pytest.importorskip("qiskit_ibm_runtime", reason="qiskit-ibm-runtime is not installed: pip install 'qpa-hf[noise]'")

from benchmarks.faults.children import Interruption, count_changes, run
from benchmarks.faults.verdict import judging
from qpa_hf.messages import whole_number

ROOT = Path(__file__).parents[2]


def raise_(error):
    raise error


def exits(code, printed=""):
    print(printed, file=sys.stderr)
    sys.exit(code)


BAD_ENDS = {
    "another exception": (lambda folder: raise_(KeyError("a")), "is no documented exception: KeyError"),
    "an accident": (lambda folder: len(5), "is an accident: TypeError"),
    "two lines": (lambda folder: raise_(ValueError("a\nb")), "is more than one line"),
    "nothing said": (lambda folder: raise_(ValueError("")), "is no sentence"),
    "memory": (lambda folder: bytearray(300 * 2**20), "uses "),
    "a file of the caller's": (lambda folder: (folder / "given").write_text("x"), "writes given"),
    "a file elsewhere": (lambda folder: (folder.parent / "elsewhere").write_text("x"), "touches open"),
    "a network": (lambda folder: __import__("socket").getaddrinfo("localhost", 1), "touches socket.getaddrinfo"),
    "an escape": (lambda folder: print("\x1b]0;x"), "prints control characters"),
    "an exit code": (lambda folder: exits(3), "exit code 3 without an error"),
}


def verdict(act, tmp_path):
    """Judge one case in a child, whose limits and hooks stay there."""

    def child(folder):
        with judging(()) as judge:
            print(json.dumps(judge(lambda place: ("", lambda: act(place)), folder / "case")))

    ended = run(child, tmp_path / "judge")
    assert ended.code == 0, ended.text
    return json.loads(ended.text)


@pytest.mark.parametrize("name", BAD_ENDS)
def test_a_bad_end_is_noticed(name, tmp_path):
    act, said = BAD_ENDS[name]
    assert said in verdict(act, tmp_path)


@pytest.mark.parametrize(
    "act", [lambda folder: whole_number("n", "x"), lambda folder: (folder / "out" / "a").write_text("x"), id]
)
def test_a_good_end_is_not_blamed(act, tmp_path):
    assert verdict(act, tmp_path) is None


def write_three(folder):
    for name in "abc":
        (folder / name).write_text(name)


@pytest.mark.parametrize(("sent", "code"), [("SIGKILL", -9), ("SIGTERM", -15), ("SIGINT", 130)])
@pytest.mark.parametrize("change", [0, 1, 2])
def test_a_child_is_interrupted_right_before_a_change(sent, code, change, tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    ended = run(write_three, folder, Interruption(signal.Signals[sent], change=change))
    assert (ended.code, sorted(os.listdir(folder))) == (code, list("abc"[:change]))


def test_changes_are_counted(tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    ended, n_changes = count_changes(write_three, folder)
    assert (ended.code, n_changes) == (0, 3)


def compute_in_threads(folder):
    """Compute in eight threads at once, as transformers does where it loads weights."""
    barrier = threading.Barrier(8)

    def total(number):
        barrier.wait()
        return (torch.ones(200_000) + number).sum().item()

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(total, range(8)))) == 8


def test_the_threads_of_a_child_may_all_compute_first(tmp_path):
    torch.set_num_threads(torch.get_num_threads())  # so that there is a pool to lose
    assert [ended for _ in range(10) if (ended := run(compute_in_threads, tmp_path)).code] == []


def test_rehearsal(tmp_path):
    """What is interrupted in the rehearsal ends well the second time, and its conditions break nothing."""
    output = tmp_path / "faults.json"
    command = [sys.executable, "-m", "benchmarks.faults", "--rehearse", "--build", tmp_path, "--output", output]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert output.is_file(), ended.stderr
    found = json.loads(output.read_text(encoding="utf-8"))
    assert {"config", "seed", "machine", "versions", "commit", "timestamp", "targets"} <= found.keys()
    assert [row for row in (*found["interruptions"], *found["conditions"]) if row["wrong"]] == []
    assert sum(row["count"] for row in found["inputs"]) == found["config"]["n_inputs"]
    assert str(ROOT) not in output.with_suffix(".md").read_text(encoding="utf-8")

"""Thousands of damaged and forged files: every reader refuses each in one sentence, at once, and writes nothing."""

import copy
import random
import shutil
from collections import Counter

import pytest
from bounds import listing, outcome, small_memory
from models import build
from peft import PeftModel
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME

from benchmarks.mutations import mutate, restore
from qpa_hf import QPAConfig, load_generated, materialize
from qpa_hf.comparison.runs import _recorded
from qpa_hf.heads import QuantumHead
from qpa_hf.hub import load, loading, push, upload
from qpa_hf.inspection import inspect
from qpa_hf.model_cards import RunRecord, add_record
from qpa_hf.schema import read_object
from qpa_hf.training import TASKS, read_settings
from qpa_hf.training.run import last_checkpoint
from qpa_hf_cli.main import app

N_CASES = 360  # of each form


class Reached(ConnectionError):
    """A push has checked its folder, and goes to the Hub."""


class NoHub:
    """Stands for a repository that nothing may be sent to."""

    token = None

    def __init__(self, *_):
        pass

    def create(self, private):
        raise Reached("The checkpoint is taken, and this is far enough.")


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch):
    monkeypatch.setattr(upload, "Repository", NoHub)
    monkeypatch.setattr(loading, "download", lambda folder, **_: folder)


@pytest.fixture(scope="module")
def base():
    return build("llama")


def command(*arguments):
    return app([*map(str, arguments)], standalone_mode=False)


def from_pretrained(base, folder):
    """Load through PEFT, which reads the configuration by itself before it calls us."""
    if all((folder / name).is_file() for name in (CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME)):
        PeftModel.from_pretrained(copy.deepcopy(base), folder)  # else it would wait for a pipe, or ask the Hub


OF_ADAPTERS = {
    "inspect": lambda base, folder, _: inspect(folder),
    "qpa inspect": lambda base, folder, _: command("inspect", folder, "--json"),
    "push": lambda base, folder, _: push(folder, "me/it"),
    "load": lambda base, folder, _: load(folder, copy.deepcopy(base)),
    "qpa materialize": lambda base, folder, target: command("materialize", folder, target),
    "record": lambda base, folder, _: RunRecord.load(folder),
}
OF_NATIVE = OF_ADAPTERS | {
    "configuration": lambda base, folder, _: QPAConfig.from_pretrained(folder),
    "from_pretrained": lambda base, folder, _: from_pretrained(base, folder),
    "materialize": lambda base, folder, target: materialize(folder, target),
    "card": lambda base, folder, _: add_record(folder, RunRecord()),
}
# What a refusal names, where not the file: a tensor, what is loaded into a model, a setting of two possible origins.
NAMED = (
    "base_model.model.",
    "The checkpoint ",
    "The tensors of this ",
    "`model`",
    "`data",
    "`training",
    "`adapter",
    "`record",
)
WRITERS = ("materialize", "qpa materialize", "card")  # of what is whole
READERS = {
    "native": OF_NATIVE,
    "gradient": OF_NATIVE,
    "materialized": OF_ADAPTERS,
    "generated": {
        "load_generated": lambda base, folder, _: load_generated(copy.deepcopy(base), folder),
        "from_pretrained": lambda base, folder, _: from_pretrained(base, folder),
        "qpa inspect": OF_ADAPTERS["qpa inspect"],
        "qpa materialize": OF_ADAPTERS["qpa materialize"],
    },
    "head": {"from_pretrained": lambda base, folder, _: QuantumHead.from_pretrained(folder)},
    "run": {
        "settings": lambda base, folder, _: read_settings(folder / "run.yaml"),
        "record": lambda base, folder, _: _recorded(folder / "runs" / "one.json", TASKS["text"]),
        "checkpoint": lambda base, folder, _: last_checkpoint(folder),
        "object": lambda base, folder, _: read_object(folder / "runs" / "one.json"),
    },
}


@pytest.mark.parametrize("form", READERS)
def test_damaged_files_are_refused_in_one_sentence(form, forms, base, tmp_path, capsys):
    rng, found = random.Random(form), Counter()
    folder, target = tmp_path / "it", tmp_path / "plain"
    folder.mkdir()
    with small_memory():
        for _ in range(N_CASES):
            restore(folder, forms / form)
            change = mutate(folder, rng)
            name = rng.choice(sorted(READERS[form]))
            before = listing(folder)
            is_taken, wrong = outcome(
                lambda name=name: READERS[form][name](base, folder, target), (str(tmp_path), *NAMED)
            )
            if wrong:
                found[f"{name}, {change}: {wrong}"] += 1
            if (target.exists() or listing(folder) != before) and not (is_taken and name in WRITERS):
                found[f"{name}, {change}: wrote something"] += 1
            shutil.rmtree(target, ignore_errors=True)
    assert not found, "\n".join(map(str, found.most_common()))

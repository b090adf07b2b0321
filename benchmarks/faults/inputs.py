"""Bad inputs: changed files under every reader, and bad arguments of every function and command."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM

from benchmarks.faults.children import run
from benchmarks.faults.scenes import BASE, GRADIENT, LORA, adapted, batches, book, options, qpa
from benchmarks.faults.verdict import OUT
from benchmarks.mutations import ODD, mutate
from qpa_hf import QPAConfig, generate, hub, initialize_basis, load_generated, materialize, plan
from qpa_hf.inspection import inspect
from qpa_hf.training import RECIPES, read_settings

Action = Callable[[], Any]
Make = Callable[[Path], tuple[str, Action]]
VALUES = (
    *ODD,
    float("nan"),
    float("inf"),
    "20x",
    "gradient",
    "ibm_brisbane",
    "fake_torino",
    b"\xff",
    Path("/dev/null"),
)
PAYING = {"backend": "ibm", "device": "ibm_brisbane", "shots": 10**8, "max_jobs": None}  # of a stranger's file
TEXTS = {  # by what was done to it
    "NULs": lambda text: b"\0" * len(text),
    "UTF-16": lambda text: text.decode().encode("utf-16-le"),
    "compressed": lambda text: b"\x1f\x8b\x08" + text[:99],
    "one endless line": lambda text: b"x" * 30_000,
    "blank": lambda text: b" \n" * 300,
    "controls": lambda text: b"\x1b]0;x\x07" * 300,
    "another column": lambda text: text.replace(b"text", b"body"),
    "numbers": lambda text: b'{"text": 5}\n' * 300,
}


def write_templates(root: Path) -> None:
    """Write the good files that are changed for the worse, into `root/templates`."""
    folder = root / "templates"
    native = folder / "native"
    adapted().save_pretrained(str(native))
    (native / "qpa_run.json").write_text(
        json.dumps({"steps": 4, "hyperparameters": {"seed": 0}, "results": []}), encoding="utf-8"
    )
    adapted(**GRADIENT).save_pretrained(str(folder / "gradient"))
    materialize(native, folder / "plain")
    generate(get_peft_model(_base(), LoraConfig(**LORA)), chunk_size=8).save_pretrained(str(folder / "generated"))
    for name in ("run", "recipe", "text", "table"):
        (folder / name).mkdir()
    run(lambda place: qpa("train", "--output", place / "run", *options(book(place))), folder / "run")
    shutil.copy(next(iter(RECIPES.values())), folder / "recipe" / "run.yaml")
    shutil.copy(folder / "book3.txt", folder / "text")
    rows = (json.dumps({"text": line}) for line in (folder / "book3.txt").read_text(encoding="utf-8").splitlines())
    (folder / "table" / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")


def _base() -> Any:
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)


def _book(out: Path) -> Path:
    """Return the text that the good run was made of."""
    return out.parents[2] / "templates" / "book3.txt"


def _use(folder: Path, out: Path) -> None:
    model = PeftModel.from_pretrained(_base(), str(folder)).eval()
    with torch.no_grad():
        model(input_ids=batches(1)[0]["input_ids"][None])


def _go_on(folder: Path, out: Path) -> None:
    qpa("train", "--output", folder / "run", *options(_book(out)))


def _train(name: str, folder: Path, out: Path) -> None:
    qpa("train", "--output", out / "run", *options(folder / name, "training.max_steps=1"))


def _evaluate(folder: Path, out: Path) -> None:
    qpa("evaluate", BASE, "--text", _book(out), "--adapter", folder)


# Of what, by whom it is read; a template's name, or several.
READERS: dict[str, tuple[str, Callable[[Path, Path], Any]]] = {
    "materialize": ("native gradient", lambda folder, out: materialize(folder, out / "plain")),
    "inspect": ("native gradient plain generated", lambda folder, out: inspect(folder)),
    "from_pretrained": ("native gradient", _use),
    "load_generated": ("generated", lambda folder, out: load_generated(_base(), str(folder))),
    "hub.push": ("native plain", lambda folder, out: hub.push(folder, "alice/a", policy=hub.RetryPolicy(1))),
    "QPAConfig.from_pretrained": ("native", lambda folder, out: QPAConfig.from_pretrained(str(folder))),
    "read_settings": ("recipe", lambda folder, out: read_settings(folder / "run.yaml", model="a")),
    "qpa materialize": ("native gradient plain", lambda folder, out: qpa("materialize", folder, out / "plain")),
    "qpa inspect": ("native plain generated", lambda folder, out: qpa("inspect", folder)),
    "qpa push": ("native plain", lambda folder, out: qpa("push", folder, "alice/a")),
    "qpa evaluate --adapter": ("native plain", _evaluate),
    "qpa evaluate --text": ("text", lambda folder, out: qpa("evaluate", BASE, "--text", folder / "book3.txt")),
    "qpa train --train": ("text", partial(_train, "book3.txt")),
    "qpa train --train, table": ("table", partial(_train, "rows.jsonl")),
    "qpa train in a run": ("run", _go_on),
}


def _file_case(rng: random.Random, templates: Path) -> tuple[str, Make]:
    reader = rng.choice(list(READERS))
    kinds, act = READERS[reader]
    kind, seed = rng.choice(kinds.split()), rng.random()

    def make(folder: Path) -> tuple[str, Action]:
        here = folder / (f"{OUT}/run" if kind == "run" else kind)  # a run is read and written
        shutil.copytree(templates / kind, here)
        return _changed(here, random.Random(seed)), partial(act, here, folder / OUT)

    return f"{reader}: {kind}", make


def _changed(folder: Path, rng: random.Random) -> str:
    """Change a folder for the worse, and return how."""
    config = folder / "adapter_config.json"
    if config.is_file() and rng.random() < 0.1:
        paying = PAYING | {"device_folder": str(folder / "jobs")}
        settings = json.loads(config.read_text(encoding="utf-8")) | paying
        config.write_text(json.dumps(settings), encoding="utf-8")
        return "asks a device for paid jobs"
    if folder.name in ("text", "table") and rng.random() < 0.6:
        what, (path,) = rng.choice(list(TEXTS)), folder.iterdir()
        path.write_bytes(TEXTS[what](path.read_bytes()))
        return what
    return mutate(folder, rng)


@cache
def _model() -> PeftModel:
    return adapted()


def _forward(out: Path, **settings: Any) -> None:
    model = nn.Sequential(nn.Linear(12, 8), nn.Linear(8, 4))
    config = QPAConfig(**{"r": 2, "target_modules": ["0", "1"]} | settings)
    get_peft_model(model, config)(torch.zeros(1, 12))  # type: ignore[arg-type]


def _push(out: Path, **given: Any) -> None:
    hub.push(**{"model_or_path": _model(), "repo_id": "alice/a"} | given)


def _plan(out: Path, **given: Any) -> None:
    plan(**{"config": QPAConfig(**LORA), "model": str(BASE)} | given)


def _find(out: Path, **given: Any) -> None:
    initialize_basis(**{"model": _model(), "dataloader": batches(2)} | given)


FIELDS = " ".join(sorted(QPAConfig.__dataclass_fields__.keys() - {"peft_type", "auto_mapping", "peft_version"}))
FUNCTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "QPAConfig": (FIELDS, lambda out, **given: QPAConfig(**{"r": 2, "target_modules": ["a"]} | given)),
    "QPAConfig.paper": (FIELDS, lambda out, **given: QPAConfig.paper(**given)),
    "get_peft_model": (FIELDS, _forward),
    "generate": (
        "names chunk_size n_circuits circuit_depth ansatz features mapping_widths shots noise start gradient source",
        lambda out, **given: generate(nn.Linear(8, 4), **given),
    ),
    "plan": ("config model chunk_sizes n_steps", _plan),
    "materialize": (
        "model_or_path path adapter_name record",
        lambda out, **given: materialize(**{"model_or_path": _model(), "path": out / "plain"} | given),
    ),
    "hub.push": ("model_or_path repo_id form revision tag private token policy commit_message", _push),
    "initialize_basis": ("model dataloader n_examples adapter_name cache loss", _find),
}
COMMANDS = {  # "-" is an argument without a name
    "plan": "- --target --r --chunk-size --task-type --shots --device --steps --paper",
    "train": "--output --config --recipe --model --train --validation --dataset --set --fresh",
    "compare": "--output --config --recipe --model --train --set --arm --rate --seeds",
    "evaluate": "- --text --adapter --block-length --padded",
    "materialize": "- - --json",
    "inspect": "- --revision --json",
    "push": "- - --private --tag --message --create-pr",
}
FLAGS = {"--fresh", "--json", "--paper", "--padded", "--private", "--create-pr"}
SETTINGS = "adapter.r=0 adapter.layout=5 adapter.shots=1e9 adapter.target_modules=( training.save_steps=1e400 "
SETTINGS += "training.max_steps=x data.block_length=[] data= model.a=b = --"
WORDS = (
    *(odd for odd in ODD if isinstance(odd, str) and odd.isprintable()),
    *SETTINGS.split(),
    "-1",
    "0",
    "é",
    "\x1b[31m",
)
PLACES = ("/dev/null", "/dev/zero", "..", "a/b/c", "x" * 300, "all-linear", "ibm_brisbane", "20x", str(BASE))


def _function_case(rng: random.Random) -> tuple[str, Make]:
    name = rng.choice(list(FUNCTIONS))
    fields, act = FUNCTIONS[name]
    chosen = rng.sample(fields.split(), rng.randint(1, 3))
    given = {field: copy.deepcopy(rng.choice(VALUES)) for field in chosen}
    shown = ", ".join(f"{key}={value!r:.40}" for key, value in given.items())
    return f"{name}({shown})", lambda folder: ("", partial(act, folder / OUT, **given))


def _command_case(rng: random.Random) -> tuple[str, Make]:
    name = rng.choice(list(COMMANDS))
    known = COMMANDS[name].split()
    words: list[str] = []
    for option in rng.sample(known, rng.randint(1, min(5, len(known)))):
        words += [option] if option != "-" else []
        words += [rng.choice((*WORDS, *PLACES))] if option not in FLAGS else []
    shown = " ".join(word.replace(str(BASE), "BASE")[:40] for word in words)
    return f"qpa {name} {shown}", lambda folder: ("", partial(qpa, name, *words))


def cases(seed: int, count: int, templates: Path) -> Iterator[tuple[str, Make]]:
    """Yield bad inputs: what it is, and a function that lays it out in a folder and returns how and what to call.

    Args:
        seed: the same seed gives the same cases.
        count: how many.
        templates: folder of the good files.
    """
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        kind = rng.choices(("file", "function", "command"), (5, 3, 2))[0]
        if kind == "file":
            yield _file_case(rng, templates)
        else:
            yield _function_case(rng) if kind == "function" else _command_case(rng)

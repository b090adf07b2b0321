"""Started by torchrun in each process: run every case, compare it with one process, write `rank-N.json`."""

import json
import os
import sys
import traceback
from functools import partial
from pathlib import Path


def attempt(run):
    """Return what a case gives, or, so that the others still run, how it failed."""
    try:
        return run()
    except Exception:
        return {"error": traceback.format_exc()}


def figures(folder):
    """Return the distances of every case from one process, and the checks of sharded models, by name."""
    import sharded
    from trajectory import ADAPTERS, alone, distance
    from wrapped import CASES, TRAINER_CASES, apart, trainer

    expected = {adapter: alone(adapter) for adapter in ADAPTERS}

    def compared(name, run):
        adapter = "dora" if "DoRA" in name else "gradient" if "gradient" in name else "lora"
        return distance(run(), expected[adapter])

    equality = {name: attempt(partial(compared, name, run)) for name, run in CASES.items()}
    for name, settings in TRAINER_CASES.items():
        equality[name] = attempt(partial(compared, name, partial(trainer, folder / "trainer", **settings)))
    checks = {name: attempt(run) for name, run in sharded.figures(folder, expected).items()}
    return {"equality": equality, "sharded": checks, "apart": distance(apart(), expected["lora"])}


def main(folder):
    """Do one process's part."""
    import torch
    import torch.distributed as dist

    folder = Path(folder)
    dist.init_process_group("gloo")
    torch.manual_seed(1000 + dist.get_rank())  # nothing may depend on the processes having the same
    found = {"world_size": dist.get_world_size()} | figures(folder)
    (folder / f"rank-{dist.get_rank()}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
    os._exit(0)  # torch 2.13 sometimes aborts at the interpreter's end, when a thread of gloo is still there


if __name__ == "__main__":
    main(*sys.argv[1:])

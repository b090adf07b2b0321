"""The callbacks on two processes log and write what they do in one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from callbacks_ranks import by_hand, with_trainer
from safetensors.torch import load_file

from qpa_hf.model_cards import RunRecord

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")
WRAPPERS = {"ddp": "DistributedDataParallel", "fsdp": "FSDPPeftModelForCausalLM"}
CHECKPOINTS = {"ddp": "checkpoint-2", "fsdp": "checkpoint-1"}
BATCHES = {"ddp": 4, "fsdp": 8}  # of both processes together


@pytest.fixture(scope="module", params=list(WRAPPERS))
def runs(request, tmp_path_factory):
    """Name, folder and rows of a run on two processes, and folder and rows of the same run in this process."""
    name, two, one = request.param, tmp_path_factory.mktemp("two"), tmp_path_factory.mktemp("one")
    folder = Path(__file__).parent
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(folder / "callbacks_ranks.py"), name, str(two)]
    subprocess.run(command, check=True, timeout=300, env=os.environ | {"PYTHONPATH": str(folder.parent)})
    ranks = [json.loads((two / f"rank-{i}.json").read_text()) for i in range(2)]
    assert [rank["world_size"] for rank in ranks] == [2, 2]
    assert [rank["wrapper"] for rank in ranks] == [WRAPPERS[name]] * 2
    alone = with_trainer(one, batch_size=4) if name == "ddp" else by_hand(one, lambda model: model)
    return name, two, [rank["rows"] for rank in ranks], one, alone["rows"]


def metrics(rows):
    return [{k: v for k, v in r.items() if k.startswith("qpa/") and k != "qpa/generation_share"} for r in rows]


def test_main_process_logs_what_one_process_would(runs):
    _, _, (main, _), _, alone = runs
    assert any(metrics(alone))
    for found, expected in zip(metrics(main), metrics(alone), strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_other_process_logs_nothing_of_it(runs):
    _, _, (_, other), _, _ = runs
    assert not any(metrics(other))


def test_adapter_is_written_once_and_equals_that_of_one_process(runs):
    name, two, _, one, _ = runs
    assert [path.parents[1].name for path in two.glob("checkpoint-*/plain/adapter")] == [CHECKPOINTS[name]]
    found, expected = (
        load_file(f / CHECKPOINTS[name] / "plain" / "adapter" / "adapter_model.safetensors") for f in (two, one)
    )
    assert found.keys() == expected.keys()
    assert all(found[key].allclose(expected[key], rtol=1e-4, atol=1e-6) for key in expected)


def test_record_counts_the_batches_of_all_processes(runs):
    name, two, *_ = runs
    record = RunRecord.load(two / CHECKPOINTS[name] / "plain" / "adapter")
    assert record.hyperparameters["total_batch_size"] == BATCHES[name]

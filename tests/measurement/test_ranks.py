"""Two processes measure the same shots as one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from measured_ranks import generator_after_training

TESTS = Path(__file__).parents[1]


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
def test_two_processes_train_the_generator_of_one(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(TESTS / "measurement" / "measured_ranks.py"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, env=os.environ | {"PYTHONPATH": str(TESTS)})
    first, second = (torch.load(tmp_path / f"rank-{i}.pt") for i in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = generator_after_training(tmp_path, batch_size=4)
    assert alone["draw"] == 3
    for name in alone:
        torch.testing.assert_close(first[name], alone[name], rtol=1e-3, atol=1e-5)

"""Two processes train a generated network as one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from generated_ranks import network, train


@pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
def test_two_processes_train_the_network_of_one(tmp_path):
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = Path(__file__).with_name("generated_ranks.py")
    subprocess.run([*start, str(script), str(tmp_path)], check=True, timeout=300, env=os.environ)
    first, second = (torch.load(tmp_path / f"rank-{i}.pt") for i in range(2))
    alone = network()
    train(alone, 0, 1)
    for name, expected in alone.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], expected, rtol=1e-3, atol=1e-5)

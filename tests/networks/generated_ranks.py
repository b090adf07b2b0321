"""Started by torchrun: train a generated network on two processes, and save each one's generator."""

import sys
from pathlib import Path

SETTINGS = {"chunk_size": 8, "n_circuits": 2, "circuit_depth": 2}


def network():
    """Return a network whose parameters are generated, the same in every process."""
    import torch
    from torch import nn

    from qpa_hf import generate

    with torch.random.fork_rng():
        torch.manual_seed(5)
        return generate(nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)), **SETTINGS)


def train(module, rank, n_ranks):
    """Train on this process's rows of each step."""
    import torch

    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    rng = torch.Generator().manual_seed(2)
    for _ in range(5):
        rows, targets = torch.randn(8, 8, generator=rng), torch.randn(8, 4, generator=rng)
        loss = (module(rows.chunk(n_ranks)[rank]) - targets.chunk(n_ranks)[rank]).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def main(folder):
    """Write `rank-N.pt`."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo")
    assert dist.get_world_size() == 2
    module = network()
    train(DistributedDataParallel(module), dist.get_rank(), 2)
    torch.save(module.state_dict(), folder / f"rank-{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Started by torchrun: train with shots on two processes, and save each one's generator."""

import sys
from pathlib import Path

ADAPTER = {"shots": "2x", "gradient": "parameter_shift", "interpolation": "blend"}


def generator_after_training(folder, batch_size):
    """Train three steps with Trainer and return the generator's state."""
    from test_trainer import trainer

    settings = {"max_steps": 3, "per_device_train_batch_size": batch_size}
    settings |= {"optim": "sgd"}  # AdamW would blow up the rounding of gradients near zero
    run = trainer(folder, dropout=0.0, adapter=ADAPTER, **settings)
    run.train()
    return run.model.base_model.lora_qpa["default"].state_dict()


def main(folder):
    """Write `rank-N.pt`."""
    import torch
    import torch.distributed as dist

    state = generator_after_training(folder, batch_size=2)
    assert dist.get_world_size() == 2
    torch.save(state, folder / f"rank-{dist.get_rank()}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

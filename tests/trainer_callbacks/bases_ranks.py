"""Started by torchrun: two processes find bases and train a stage; each writes what it has to `rank-N.pt`."""

import os
import sys
from pathlib import Path

import torch
from test_basis_callback import run


def main(folder):
    """Do one process's part."""
    made = run(folder, n_stages=2, max_steps=2, save_strategy="no", per_device_train_batch_size=2)
    made.train()
    torch.save(made.model.base_model.lora_qpa.state_dict(), Path(folder) / f"rank-{made.args.process_index}.pt")
    torch.distributed.destroy_process_group()
    os._exit(0)  # torch 2.13 sometimes aborts at the interpreter's end, when a thread of gloo is still there


if __name__ == "__main__":
    main(sys.argv[1])

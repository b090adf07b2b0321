"""Started by torchrun: every callback at work on two processes; each writes what it saw to `rank-N.json`."""

import json
import os
import sys
from pathlib import Path


def with_trainer(folder, batch_size=2):
    """Train two steps with Trainer."""
    from test_trainer import trainer

    from qpa_hf.trainer_callbacks import CircuitMetricsCallback, MaterializeCallback

    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    settings |= {"dropout": 0.0, "per_device_train_batch_size": batch_size}
    run = trainer(folder, callbacks=[CircuitMetricsCallback(), MaterializeCallback()], **settings)
    run.train()
    return {"wrapper": type(run.model_wrapped).__name__, "rows": run.state.log_history}


def by_hand(folder, wrap):
    """Take one step of a wrapped model through Trainer's own callback handler: Trainer has no FSDP on a CPU."""
    import torch
    from test_trainer import loss_of, trainer
    from transformers.trainer_callback import CallbackHandler

    from qpa_hf.trainer_callbacks import CircuitMetricsCallback, MaterializeCallback

    run = trainer(folder, dropout=0.0, adapter={"start": "authors"})
    model, args, state, control, logs = wrap(run.model), run.args, run.state, run.control, {"step": 1}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    handler = CallbackHandler([CircuitMetricsCallback(), MaterializeCallback()], model, None, optimizer, None)
    state.compute_steps(args, 1)
    handler.on_train_begin(args, state, control)
    handler.on_step_begin(args, state, control)
    loss_of(model).backward()
    handler.on_pre_optimizer_step(args, state, control)
    optimizer.step()
    handler.on_optimizer_step(args, state, control)
    state.global_step = 1
    state.log_history.append(dict(logs))
    handler.on_log(args, state, control, logs)
    tensors = {name: t.full_tensor() if hasattr(t, "full_tensor") else t for name, t in model.state_dict().items()}
    if state.is_world_process_zero:
        model.save_pretrained(folder / "checkpoint-1", state_dict=tensors)
    handler.on_save(args, state, control)
    return {"wrapper": type(model).__name__, "rows": state.log_history}


def main(case, folder):
    """Do one process's part."""
    import torch
    from torch.distributed.fsdp import fully_shard

    folder = Path(folder)
    seen = with_trainer(folder) if case == "ddp" else by_hand(folder, fully_shard)
    seen["world_size"] = torch.distributed.get_world_size()
    (folder / f"rank-{torch.distributed.get_rank()}.json").write_text(json.dumps(seen))
    torch.distributed.destroy_process_group()
    os._exit(0)  # torch 2.13 sometimes aborts at the interpreter's end, when a thread of gloo is still there


if __name__ == "__main__":
    main(*sys.argv[1:])

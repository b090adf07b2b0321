"""Training runs of which each process does its part: plain DDP, FSDP2, Accelerate, Trainer."""

import contextlib

import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from trajectory import N_STEPS, RATE, ROWS, loss_of, model_of, optimizer_of, rows, seen


def share(ids, n_parts=1):
    """Return this process's rows of a step, in `n_parts` micro-batches."""
    return ids.chunk(dist.get_world_size())[dist.get_rank()].chunk(n_parts)


def shard(model):
    """Shard each block and the rest, as Accelerate does."""
    for block in model.get_base_model().model.layers:
        fully_shard(block)
    return fully_shard(model)


def train(model, optimizer, steps=range(N_STEPS), n_parts=1):
    """Return what is seen after each step; gradients cross processes with the last micro-batch only."""
    found = []
    for step in steps:
        for i, ids in enumerate(share(rows(step), n_parts)):
            with _synchronized(model, is_last=i == n_parts - 1):
                (loss_of(model, ids) / n_parts).backward()
        optimizer.step()
        found.append(seen(model))
        optimizer.zero_grad()
    return found


def _synchronized(model, is_last):
    if isinstance(model, DistributedDataParallel):
        return contextlib.nullcontext() if is_last else model.no_sync()
    model.set_requires_gradient_sync(is_last)
    return contextlib.nullcontext()


def _checkpointing(model, use_reentrant):
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": use_reentrant})


def ddp(adapter="lora", n_parts=1, use_reentrant=None, **settings):
    """Train under DistributedDataParallel."""
    model = model_of(adapter)
    if use_reentrant is not None:
        _checkpointing(model, use_reentrant)
    wrapped = DistributedDataParallel(model, **settings)
    return train(wrapped, optimizer_of(wrapped), n_parts=n_parts)


def fsdp(adapter="lora", n_parts=1, is_checkpointed=False):
    """Train under FSDP2."""
    model = model_of(adapter)
    if is_checkpointed:
        _checkpointing(model, use_reentrant=False)
    model = shard(model)
    return train(model, optimizer_of(model), n_parts=n_parts)


def apart():
    """Train on this process's rows only: how far away that leads, against which the other distances are small."""
    model = model_of("lora")
    optimizer = optimizer_of(model)
    found = []
    for step in range(N_STEPS):
        loss_of(model, share(rows(step))[0]).backward()
        optimizer.step()
        found.append(seen(model))
        optimizer.zero_grad()
    return found


def accelerator(n_parts=1, **settings):
    """Return a fresh Accelerator on the CPU, whatever an earlier one has set."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=True, gradient_accumulation_steps=n_parts, **settings)


def fsdp_plugin():
    """Return Accelerate's settings for FSDP2 with sharded checkpoints."""
    from accelerate import FullyShardedDataParallelPlugin

    return FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
        state_dict_type="SHARDED_STATE_DICT",
        cpu_ram_efficient_loading=False,
    )


def accelerated(adapter="lora", n_parts=2, **settings):
    """Train in a bare Accelerate loop."""
    runner = accelerator(n_parts, **settings)
    model = model_of(adapter)
    model, optimizer = runner.prepare(model, optimizer_of(model))
    return loop(runner, model, optimizer, range(N_STEPS), n_parts)


def loop(runner, model, optimizer, steps, n_parts=1):
    """Train as Accelerate's guide says."""
    found = []
    for step in steps:
        for ids in share(rows(step), n_parts):
            with runner.accumulate(model):
                runner.backward(loss_of(model, ids))
                optimizer.step()
                if runner.sync_gradients:
                    found.append(seen(model))
                optimizer.zero_grad()
    return found


def trainer(folder, adapter="lora", **settings):
    """Train with Trainer, which wraps the model itself."""
    from transformers import Trainer, TrainerCallback, TrainingArguments, default_data_collator

    class Watch(TrainerCallback):
        found: list = []

        def on_optimizer_step(self, args, state, control, model=None, **kwargs):
            self.found.append(seen(model))

    data = [{"input_ids": ids, "labels": ids} for step in range(N_STEPS) for ids in rows(step)]
    per_process = ROWS // dist.get_world_size() // settings.get("gradient_accumulation_steps", 1)
    arguments = TrainingArguments(
        output_dir=folder, use_cpu=True, report_to="none", save_strategy="no", max_steps=N_STEPS, max_grad_norm=0.0,
        per_device_train_batch_size=per_process, learning_rate=RATE, lr_scheduler_type="constant",
        train_sampling_strategy="sequential", dataloader_pin_memory=False, disable_tqdm=True, **settings,
    )  # fmt: skip
    watch = Watch()
    Watch.found = []
    model = model_of(adapter)
    run = Trainer(
        model=model, args=arguments, train_dataset=data, data_collator=default_data_collator, callbacks=[watch]
    )
    run.train()
    assert type(run.model_wrapped) is DistributedDataParallel
    return watch.found


CASES = {
    "DDP": ddp,
    "DDP, DoRA": lambda: ddp("dora"),
    "DDP, accumulation with no_sync": lambda: ddp(n_parts=2),
    "DDP, checkpointing": lambda: ddp(use_reentrant=False),
    "DDP, reentrant checkpointing": lambda: ddp(use_reentrant=True),
    "DDP, DoRA, reentrant checkpointing": lambda: ddp("dora", use_reentrant=True),
    "DDP, unused parameters looked for": lambda: ddp(find_unused_parameters=True),
    "DDP, static graph": lambda: ddp(static_graph=True),
    "DDP, Accelerate, accumulation": accelerated,
    "FSDP2": fsdp,
    "FSDP2, DoRA": lambda: fsdp("dora"),
    "DDP, gradient bases": lambda: ddp("gradient"),
    "FSDP2, gradient bases": lambda: fsdp("gradient"),
    "FSDP2, accumulation": lambda: fsdp(n_parts=2),
    "FSDP2, checkpointing": lambda: fsdp(is_checkpointed=True),
    "FSDP2, Accelerate": lambda: accelerated(n_parts=1, fsdp_plugin=fsdp_plugin()),
    "FSDP2, Accelerate, DoRA": lambda: accelerated("dora", n_parts=1, fsdp_plugin=fsdp_plugin()),
}
TRAINER_CASES = {
    "DDP, Trainer": {},
    "DDP, Trainer, accumulation": {"gradient_accumulation_steps": 2},
    "DDP, Trainer, checkpointing": {"activation_checkpointing": True},
    "DDP, Trainer, reentrant checkpointing": {
        "activation_checkpointing": True,
        "activation_checkpointing_kwargs": {"use_reentrant": True},
        "ddp_find_unused_parameters": False,
    },
}

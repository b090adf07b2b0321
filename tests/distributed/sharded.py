"""What else is done with a model that FSDP2 has sharded: saving, resuming, evaluating, materializing."""

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from helpers import disturb
from models import VOCABULARY, build
from safetensors.torch import load_file
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from trajectory import N_STEPS, TARGETS, distance, loss_of, model_of, optimizer_of, rows
from transformers import LlamaConfig, LlamaForCausalLM
from wrapped import accelerator, fsdp_plugin, loop, shard, share, train

from qpa_hf import QPAConfig, initialize_basis, materialize, optimize_angles, refresh_basis
from qpa_hf.models import bank_of
from qpa_hf.sharding import gathered

HALF = N_STEPS // 2


def begun(adapter="lora"):
    """Return a sharded model and its optimizer after the first half of the steps."""
    model = shard(model_of(adapter))
    optimizer = optimizer_of(model)
    train(model, optimizer, range(HALF))
    return model, optimizer


def elsewhere():
    """Return a model whose numbers differ from those of any other, and which is not wrapped yet."""
    model = model_of("lora")
    disturb(model, seed=2 + dist.get_rank())
    return model


def resumed(folder, expected):
    """Save to a sharded checkpoint half-way, load it into another model, and train on."""
    model, optimizer = begun()
    numbers, moments = get_state_dict(model, optimizer)
    dcp.save({"model": numbers, "optimizer": moments}, checkpoint_id=folder / "dcp")
    other = shard(elsewhere())
    optimizer = optimizer_of(other)
    numbers, moments = get_state_dict(other, optimizer)
    dcp.load({"model": numbers, "optimizer": moments}, checkpoint_id=folder / "dcp")
    set_state_dict(other, optimizer, model_state_dict=numbers, optim_state_dict=moments)
    return distance(train(other, optimizer, range(HALF, N_STEPS)), expected["lora"][HALF:])


def resumed_with_accelerate(folder, expected):
    """Do the same with Accelerate's `save_state` and `load_state`."""
    first = accelerator(fsdp_plugin=fsdp_plugin())
    model = model_of("lora")
    model, optimizer = first.prepare(model, optimizer_of(model))
    loop(first, model, optimizer, range(HALF))
    first.save_state(str(folder / "accelerate"))
    second = accelerator(fsdp_plugin=fsdp_plugin())
    other = elsewhere()
    other, optimizer = second.prepare(other, optimizer_of(other))
    second.load_state(str(folder / "accelerate"))
    return distance(loop(second, other, optimizer, range(HALF, N_STEPS)), expected["lora"][HALF:])


def materialized(folder, adapter):
    """Materialize on every process together, and compare with the sharded parameters' own product."""
    model, _ = begun(adapter)
    is_sharded = any(isinstance(p, DTensor) for p in model.parameters())
    path = materialize(model, folder / f"sharded {adapter}")
    alone = model_of(adapter)
    optimizer = optimizer_of(alone)
    for step in range(HALF):
        loss_of(alone, rows(step)).backward()
        optimizer.step()
        optimizer.zero_grad()
    expected = alone.base_model.generated_tensors()
    found = load_file(path / "adapter_model.safetensors")
    assert is_sharded
    assert found.keys() == expected.keys()
    return {"tensors": max(((found[k] - expected[k]).norm() / (expected[k].norm() + 1e-12)).item() for k in found)}


def wide():
    """Return a model whose layers are large enough for sketches of their gradients."""
    sizes = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "vocab_size": VOCABULARY}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2))


def based(base, wrap, **settings):
    """Find gradient bases, each process on its rows, and compare with one process on all rows."""
    from peft import get_peft_model

    buffers = []
    for is_split in (True, False):
        config = QPAConfig(r=4, chunk_size=4, basis="gradient", target_modules=TARGETS, task_type="CAUSAL_LM")
        model = get_peft_model(base(), config)
        ids = share(rows(0))[0] if is_split else rows(0)
        if is_split:
            wrap(model)
        initialize_basis(model, [{"input_ids": ids, "labels": ids}], **settings)
        basis = gathered(model.base_model.lora_qpa["default"].basis)
        a, u = zip(*bank_of(model).pieces.views(basis), strict=True)
        buffers.append([u @ a for u, a in zip(u, a, strict=True)])  # the signs of singular vectors are arbitrary
    return {"bases": max(((x - y).norm() / y.norm()).item() for x, y in zip(*buffers, strict=True))}


def staged(is_sharded):
    """Train, find bases again, each process on its rows, and train on: how far the processes are apart then."""
    from peft import get_peft_model

    sizes = {"r": 4, "n_stages": 2, "chunk_size": 2, "n_circuits": 1, "basis": "gradient", "target_modules": TARGETS}
    model = get_peft_model(build("llama"), QPAConfig(**sizes, task_type="CAUSAL_LM"))
    batches = [{"input_ids": share(rows(0))[0], "labels": share(rows(0))[0]}]
    wrapped = shard(model) if is_sharded else DistributedDataParallel(model)
    initialize_basis(model, batches)
    train(wrapped, optimizer_of(wrapped), range(HALF))
    if is_sharded:
        return _message(lambda: refresh_basis(model, batches), ValueError)
    refresh_basis(model, batches)
    train(wrapped, optimizer_of(wrapped), range(HALF, N_STEPS))
    own = torch.cat([tensor.flatten() for tensor in model.base_model.generated_tensors().values()])
    first = own.clone()
    dist.broadcast(first, 0)
    assert model.base_model.lora_qpa["default"].n_bases == 2
    return {"processes": (own - first).norm().item()}


def evaluated():
    """Compare the loss without gradients, between two steps and without `eval()`, with that of one process."""
    model, alone = shard(model_of("lora")), model_of("lora")
    worst = 0.0
    pairs = [(model, optimizer_of(model)), (alone, optimizer_of(alone))]
    for step in range(HALF):
        losses = []
        for m, optimizer in pairs:
            loss_of(m, rows(step)).backward()
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                losses.append(loss_of(m, rows(step)).item())
        worst = max(worst, abs(losses[0] - losses[1]))
    return {"loss": worst}


def refused(folder):
    """Materialize into a file: every process must hear of it."""
    model, _ = begun()
    (folder / "a file").write_text("")
    return {
        "message": _message(lambda: materialize(model, folder / "a file"), ValueError)["message"].replace(
            f"{folder}/", ""
        )
    }


def reentrant():
    """Train a step with reentrant checkpointing, which FSDP2 does not allow."""
    model = model_of("lora")
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    model = shard(model)
    return _message(lambda: loss_of(model, rows(0)).backward(), RuntimeError)


def _message(run, kind):
    try:
        run()
    except kind as error:
        return {"message": str(error)}
    return {"message": ""}


def figures(folder, expected):
    """Return each check by its name, to be called with nothing."""
    return {
        "resumed from a sharded checkpoint": lambda: resumed(folder, expected),
        "resumed from Accelerate's sharded state": lambda: resumed_with_accelerate(folder, expected),
        "materialized": lambda: materialized(folder, "lora"),
        "materialized, DoRA": lambda: materialized(folder, "dora"),
        "gradient bases found when sharded": lambda: based(lambda: build("llama"), shard),
        "sketched bases": lambda: based(wide, lambda model: model, exact_bytes=0),
        "sketched bases found when sharded": lambda: based(wide, shard, exact_bytes=0),
        "evaluated between steps": evaluated,
        "stages under DDP": lambda: staged(is_sharded=False),
        "stages when sharded": lambda: staged(is_sharded=True),
        "refused by the first process": lambda: refused(folder),
        "reentrant checkpointing": reentrant,
        "angles without gradients": lambda: _message(lambda: optimize_angles(model_of("lora"), loss_of), RuntimeError),
    }

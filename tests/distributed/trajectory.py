"""A training run's gradients and parameters after each step, and how far two runs are apart."""

import torch
from helpers import adapted
from models import VOCABULARY
from torch.nn import functional as F

from qpa_hf.sharding import gathered

N_STEPS = 4
ROWS = 4  # of each step, over all processes together
LENGTH = 8
TARGETS = ["q_proj", "v_proj", "down_proj"]
ADAPTERS = {"lora": {}, "dora": {"use_dora": True}, "gradient": {"basis": "gradient", "chunk_size": 4}}
RATE = 0.01


def rows(step):
    """Return the token ids of one step of all processes together, shape (ROWS, LENGTH)."""
    return torch.randint(3, VOCABULARY, (ROWS, LENGTH), generator=torch.Generator().manual_seed(100 + step))


def model_of(adapter):
    """Return a small Llama with a QPA adapter that has been moved away from its start."""
    settings = ADAPTERS[adapter]
    return adapted("llama", target_modules=TARGETS, task_type="CAUSAL_LM", **settings).train()


def optimizer_of(model):
    """Return AdamW over what is trained, as Trainer would make it."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)


def loss_of(model, ids):
    """Return the mean loss of the next token."""
    logits = model(input_ids=ids).logits
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def seen(model):
    """Return the whole gradients and parameters of what is trained, by the parameters' names."""
    trained = {n.removeprefix("module."): p for n, p in model.named_parameters() if p.requires_grad}
    gradients = {n: gathered(p.grad).clone() for n, p in trained.items()}
    return {"gradients": gradients, "parameters": {n: gathered(p.detach()).clone() for n, p in trained.items()}}


def alone(adapter):
    """Return what is seen after each step in one process, without any wrapper."""
    model = model_of(adapter)
    optimizer = optimizer_of(model)
    steps = []
    for step in range(N_STEPS):
        loss_of(model, rows(step)).backward()
        optimizer.step()
        steps.append(seen(model))
        optimizer.zero_grad()
    return steps


def distance(found, expected):
    """Return the largest distance over all steps and tensors, relative to each expected tensor's norm.

    Args:
        found: what was seen after each step.
        expected: the same of the other run.
    """
    worst = {}
    for kind in ("gradients", "parameters"):
        pairs = [(f[kind], e[kind]) for f, e in zip(found, expected, strict=True)]
        assert all(f.keys() == e.keys() for f, e in pairs)
        worst[kind] = max(((f[n] - e[n]).norm() / e[n].norm()).item() for f, e in pairs for n in e)
    return worst

"""What must run on an accelerator without a wait: `python tests/absent_cases.py` prints as JSON what waited, by case.

A case is a function of an `Absent` that builds a model on the CPU, moves it there and uses it.
"""

import json
import sys
import warnings
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent / "networks"))

import methods
import modules
import torch
from absent_adapters import ADAPTERS, CONV1D, GRADIENT, HEADS, LM, QV
from absent_device import Absent
from helpers import start
from models import build, inputs
from peft import LoraConfig, get_peft_model

from qpa_hf import BottleneckConfig, QPAConfig, generate, initialize_basis, refresh_basis
from qpa_hf.circuit import ANSATZE, simulators
from qpa_hf.generator import freshness
from qpa_hf.heads import QuantumHead
from qpa_hf.trainer_callbacks import CircuitMetricsCallback

# These need what a device without data cannot do, in PEFT's own code: sparse matrices, sizes that depend on numbers.
WITHOUT = ("FROD", "SHIRA", "WAVEFT", "P_TUNING, LSTM")
# What asks the device, by the function that does: each for a reason, and none in the midst of training.
WAITS = {
    # A micro-step looks whether the last one's parameters are still there, or new shots must be drawn.
    "accumulation with shots": ["freshness.hold"],
    # A block that is computed again reads values that are kept, as readers without gradients do.
    "checkpointing, reentrant": ["freshness.hold"],
    # Values that are kept are used again if nobody has written a number since.
    "evaluation, batch after batch": ["freshness.hold"],
    "a loss in a part alone": ["freshness.hold"],
    "callback, a step that is logged": ["metrics._metrics", "timer._seconds"],
    "finding bases": ["generator.count_bases", "moments._add_up", "moments.find_bases"],
    "finding bases again": ["accelerators.of", "generator.begin_stage", "moments._add_up", "moments.find_bases"],
    "materializing": ["freshness.hold", "slots.tensors_of"],
}


def batch(absent, name):
    """Return a batch for a small model, on the device."""
    return {key: absent.put(value) for key, value in inputs(name).items()}


def square(model, ids):
    """Return a loss of what a model answers."""
    output = model(**ids) if isinstance(ids, dict) else model(ids)
    return getattr(output, "logits", output).float().square().mean()


def train(absent, model, ids, n_micro=1, between=None, autocast=None, may_begin_waiting=True):
    """Make two steps of training; the first one makes tables, which are kept, so that it may wait."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for step in range(2):
        if step == 1 and may_begin_waiting:
            absent.waits.clear()
        for _ in range(n_micro):
            with torch.autocast("absent", dtype=autocast) if autocast else nullcontext():
                loss = square(model, ids)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if between is not None:
            between(model, ids)


def trained(name, make, ids=None, **how):
    """Return the case that trains what `make` returns."""

    def run(absent):
        model = absent.move(make())
        here = ids(absent) if ids else batch(absent, name)
        with absent.running():
            train(absent, model, here, **how)

    return run


def adapter(case, **how):
    """Return the case that trains an adapter."""
    name, settings = ADAPTERS[case]
    return trained(name, lambda: start(name, **settings), **how)


def method(case):
    """Return the case that trains what generates another method's tensors."""
    settings = {"chunk_size": 32, "n_circuits": 2, "circuit_depth": 2}
    more = {key: torch.tensor(numbers) for key, numbers in methods.inputs_of(case).items()}

    def ids(absent):
        return batch(absent, methods.CASES[case][0]) | {key: absent.put(value) for key, value in more.items()}

    return trained(methods.CASES[case][0], lambda: generate(methods.make(case), **settings), ids)


def checkpointed(use_reentrant):
    """Return the case that computes each block again in the backward pass."""

    def make():
        model = start("gpt2", target_modules="all-linear", **CONV1D)
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
        return model

    return trained("gpt2", make)


def evaluated(n_batches):
    """Return the case that evaluates after each step."""

    def evaluate(model, ids):
        model.eval()
        with torch.no_grad():
            for _ in range(n_batches):
                square(model, ids)
        model.train()

    return adapter("source circuit", between=evaluate)


def write(model, ids):
    """Let a model write two texts."""
    for _ in range(2):
        model.generate(**ids, max_new_tokens=3, min_new_tokens=3, do_sample=False)


def with_triton(ansatz):
    """Return the case that simulates the circuits as on a GPU; not even a first step waits."""
    table = (simulators.Simulator("triton_gates", device="absent", compiler="triton"), *simulators.SIMULATORS)

    def run(absent):
        with mock.patch.object(simulators, "SIMULATORS", table):
            adapter(f"ansatz {ansatz}", may_begin_waiting=False)(absent)

    return run


def called_back(logging_steps):
    """Return the case in which a callback watches the steps."""

    def run(absent):
        model, ids = absent.move(start("llama", **QV)), batch(absent, "llama")
        callback, log = CircuitMetricsCallback(), {"loss": 1.0, "grad_norm": 1.0}
        args = SimpleNamespace(logging_strategy="steps", logging_first_step=False, max_grad_norm=1.0)
        state = SimpleNamespace(
            global_step=0, logging_steps=logging_steps, is_world_process_zero=True, log_history=[{}]
        )
        tell = {"model": model, "optimizer": None}
        with absent.running(), mock.patch("torch.Event", absent.event):
            callback.on_train_begin(args, state, None, **tell)
            for _ in range(3):
                callback.on_step_begin(args, state, None, **tell)
                square(model.train(), ids).backward()
                if not state.global_step:
                    absent.waits.clear()
                for happens in (callback.on_pre_optimizer_step, callback.on_optimizer_step):
                    happens(args, state, None, **tell)
                state.global_step += 1
                if state.global_step % logging_steps == 0:
                    callback.on_log(args, state, None, logs=log, **tell)

    return run


def bases(n_stages):
    """Return the case that finds bases, once or once more."""

    def run(absent):
        settings = {"r": 4, "n_stages": n_stages, **GRADIENT}
        ids, rest = batch(absent, "llama"), {"loss": square, "n_examples": 2, "progress": False}
        if n_stages == 1:
            model = absent.move(get_peft_model(build("llama"), QPAConfig(**settings)))
            with absent.running():
                initialize_basis(model, [ids], **rest)
        else:
            model = absent.move(start("llama", **settings))
            with absent.running():
                square(model, ids)
                absent.waits.clear()
                refresh_basis(model, [ids], **rest)

    return run


def materialized(absent):
    """Write the values in use as a plain adapter."""
    model, ids = absent.move(start("llama", **QV)), batch(absent, "llama")
    with absent.running(), torch.no_grad():
        square(model, ids)
        absent.waits.clear()
        model.base_model.generated_tensors()


def part(absent):
    """Train a part of the model that is called by itself."""
    model, ids = absent.move(start("t5", target_modules=["q", "v"])), batch(absent, "t5")
    with absent.running():
        for _ in range(2):
            absent.waits.clear()
            model.get_base_model().get_encoder()(ids["input_ids"]).last_hidden_state.square().mean().backward()


CASES = {
    "LoRA": trained("llama", lambda: get_peft_model(build("llama"), LoraConfig(r=4, **QV))),
    "the paper's generator": trained("llama", lambda: get_peft_model(build("llama"), QPAConfig.paper(32, r=4, **QV))),
    "feed-forward adapter": trained(
        "llama",
        lambda: get_peft_model(build("llama"), BottleneckConfig(bottleneck_size=4, target_modules=["o_proj"], **LM)),
    ),
    **{f"adapter, {case}": adapter(case) for case in ADAPTERS},
    **{
        f"module, {name}": trained(
            name, lambda name=name: modules.generated(name), lambda absent, name=name: absent.put(modules.batch(name))
        )
        for name in modules.MODULES
    },
    **{f"method, {name}": method(name) for name in methods.CASES if name not in WITHOUT},
    **{
        f"head, {name}": trained(
            name,
            lambda settings=settings: QuantumHead(6, n_qubits=4, n_layers=2, **settings),
            lambda absent: absent.put(torch.randn(3, 6)),
        )
        for name, settings in HEADS.items()
    },
    **{f"Triton kernels, {ansatz}": with_triton(ansatz) for ansatz in ANSATZE if find_spec("triton")},
    "checkpointing": checkpointed(False),
    "checkpointing, reentrant": checkpointed(True),
    "accumulation": adapter("source circuit", n_micro=2),
    "accumulation with shots": adapter("shots, none", n_micro=2),
    "autocast, float16": adapter("source circuit", autocast=torch.float16),
    "autocast, bfloat16": adapter("source circuit", autocast=torch.bfloat16),
    "autocast, gradient basis": adapter("gradient basis", autocast=torch.bfloat16),
    "evaluation": evaluated(1),
    "evaluation, batch after batch": evaluated(2),
    "generation": adapter("source circuit", between=write),
    "a loss in a part alone": part,
    "callback, steps between": called_back(10),
    "callback, a step that is logged": called_back(3),
    "finding bases": bases(1),
    "finding bases again": bases(2),
    "materializing": materialized,
}


def run(name):
    """Return where a case waited, without what other libraries do, or its error."""
    absent = Absent({"generator.count_bases": 0})
    try:
        CASES[name](absent)
    except Exception as error:  # whatever it is, the test says it
        return f"{type(error).__name__}: {error}"
    return sorted({place for place in absent.waits if ":" not in place})


def main(names):
    """Print what happened in some cases, or in all."""
    warnings.simplefilter("ignore")
    # The device's numbers are to be compared as a GPU's are, although they have no data.
    freshness._can_be_read = lambda tensors: True
    print(json.dumps({name: run(name) for name in names or CASES}))


if __name__ == "__main__":
    main(sys.argv[1:])

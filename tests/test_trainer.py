"""QPA in transformers' own Trainer, and gradients against an independent computation."""

import pytest
import torch
from cases import LM
from helpers import adapted, logits
from models import build
from packaging.version import Version
from peft import get_peft_model
from trained import TARGETS, StopAt, assert_close, checkpointed, gradients, loss_of, losses, trainer
from transformers import TrainerCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
one_graph = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.10"),
    reason="torch.compile traces PEFT's forward in one graph from 2.10 on",
)


def reference_gradients(**settings):
    """Gradients through plain LoRA weights and then, separately, through the generator's vector."""
    model = adapted("llama", target_modules=TARGETS, **LM, **settings)
    tuner = model.base_model
    values = tuner.generated_tensors()
    lora = get_peft_model(build("llama"), _plain(tuner)).eval()
    state = {key.replace(".weight", ".default.weight"): value for key, value in values.items()}
    lora.load_state_dict(state, strict=False)
    loss_of(lora).backward()
    of_lora = {n.replace(".default", ""): p.grad for n, p in lora.named_parameters() if p.grad is not None}
    (vector,) = tuner.lora_qpa["default"]()
    layout = [key for key, _, _ in tuner.peft_config["default"].layout]
    vector.backward(torch.cat([of_lora[key].flatten() for key in layout]))
    return gradients(model)


def _plain(tuner):
    from qpa_hf.tuners.qpa.model import plain_lora_config

    return plain_lora_config(tuner.peft_config["default"])


MODES = {
    "plain": {},
    "accumulated": {},
    "checkpointing, reentrant": {"use_reentrant": True},
    "checkpointing, not reentrant": {"use_reentrant": False},
    "compiled": {},
}


@pytest.mark.parametrize(
    "mode", [pytest.param(mode, marks=[one_graph] if mode == "compiled" else []) for mode in MODES]
)
def test_gradients_equal_an_independent_computation(mode):
    expected = reference_gradients()
    model = adapted("llama", target_modules=TARGETS, **LM)
    kwargs = {}
    if mode.startswith("checkpointing"):
        checkpointed(model, **MODES[mode])
        kwargs["use_cache"] = False
    if mode == "compiled":
        loss_of(torch.compile(model, fullgraph=True, backend="aot_eager"), use_cache=False).backward()
    elif mode == "accumulated":
        for _ in range(4):
            (loss_of(model) / 4).backward()
    else:
        loss_of(model, **kwargs).backward()
    assert_close(gradients(model), expected)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("settings", [{"use_dora": True}, {"basis": "gradient", "chunk_size": 4}], ids=str)
def test_gradients_are_the_same_under_checkpointing(settings, use_reentrant):
    results = []
    for checkpointing in (False, True):
        model = adapted("llama", target_modules=TARGETS, **settings, **LM)
        if checkpointing:
            checkpointed(model, use_reentrant)
        loss_of(model, use_cache=False).backward()
        results.append(gradients(model))
    assert_close(results[1], results[0])


@one_graph
def test_gradient_bases_compile_in_one_graph():
    results = []
    for compiled in (False, True):
        model = adapted("llama", target_modules=TARGETS, basis="gradient", **LM)
        callee = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
        loss_of(callee, use_cache=False).backward()
        results.append(gradients(model))
    assert_close(results[1], results[0])


@pytest.mark.parametrize("kwargs", [{}, {"gradient_accumulation_steps": 3}, {"bf16": True}], ids=str)
def test_training_lowers_the_loss(kwargs, tmp_path):
    run = trainer(tmp_path, max_steps=40, learning_rate=0.05, **kwargs)
    run.train()
    assert losses(run)[-1] < losses(run)[0] - 0.1


@pytest.mark.skipif(Version(torch.__version__) < Version("2.9"), reason="torch.compile is promised from 2.9 on")
def test_torch_compile_trains_like_eager(tmp_path):
    eager = trainer(tmp_path, dropout=0.0)  # compiled code draws other random numbers for dropout
    compiled = trainer(tmp_path, dropout=0.0, torch_compile=True, torch_compile_backend="aot_eager")
    eager.train()
    compiled.train()
    assert losses(compiled) == pytest.approx(losses(eager), abs=1e-3)


def test_interrupted_training_resumes_bit_for_bit(tmp_path):
    whole = trainer(tmp_path / "whole")
    whole.train()
    settings = {"save_strategy": "steps", "save_steps": 4}
    trainer(tmp_path / "parts", callbacks=[StopAt(4)], **settings).train()
    resumed = trainer(tmp_path / "parts", **settings)
    resumed.train(resume_from_checkpoint=True)
    for (name, expected), found in zip(whole.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(expected, found), name


def test_best_model_is_loaded_at_the_end(tmp_path):
    run = trainer(
        tmp_path,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        load_best_model_at_end=True,
        learning_rate=0.5,  # too high, so that the last model is not the best
    )
    run.train()
    assert run.evaluate()["eval_loss"] == pytest.approx(run.state.best_metric, rel=1e-5)


class CompareEval(TrainerCallback):
    """At each step, evaluates the model itself and a fresh copy of it."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, model, **kwargs):
        model.eval()
        here = logits(model, "llama")
        fresh = adapted("llama", target_modules=TARGETS, r=4, chunk_size=16, lora_alpha=8, circuit_depth=8, **LM)
        fresh.load_state_dict(model.state_dict())
        self.seen.append(torch.equal(here, logits(fresh, "llama")))
        model.train()


def test_evaluation_between_steps_sees_the_current_weights(tmp_path):
    compare = CompareEval()
    trainer(tmp_path, callbacks=[compare], max_steps=4).train()
    assert compare.seen == [True] * 4

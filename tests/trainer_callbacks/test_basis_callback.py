"""GradientBasisCallback in transformers' own trainers."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from cases import LM
from helpers import logits
from models import VOCABULARY, build
from peft import LoraConfig, get_peft_model
from torch.utils.data import DataLoader, IterableDataset
from trained import StopAt, rows, trainer
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, TrainerCallback, default_data_collator

from qpa_hf import QPAConfig, initialize_basis
from qpa_hf.trainer_callbacks import GradientBasisCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
SETTINGS = {"r": 6, "basis": "gradient", "target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.1}
STEPS = {"max_steps": 6, "save_strategy": "steps", "save_steps": 1}


class Count(TrainerCallback):
    """Notes how many bases are known at the end of each step."""

    def __init__(self):
        self.n_bases = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.n_bases.append(generator(model).n_bases)


def adapted(**settings):
    return get_peft_model(build("llama"), QPAConfig(**(SETTINGS | settings), **LM))


def generator(model):
    return model.base_model.lora_qpa["default"]


def run(folder, *callbacks, n_stages=1, model=None, n_examples=16, **kwargs):
    """Return a Trainer of six steps that finds its bases itself, with a checkpoint after each step."""
    made = trainer(folder, callbacks, model=model or adapted(n_stages=n_stages), **(STEPS | kwargs))
    made.add_callback(GradientBasisCallback(made, n_examples))
    return made


def square(model, batch):
    return model(**batch).logits.square().mean()


def assert_equal(found, expected):
    for (name, one), other in zip(expected.state_dict().items(), found.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_bases_are_those_of_the_trainers_data_and_loss(tmp_path):
    made = run(tmp_path, n_examples=48, max_steps=1)
    made.compute_loss = lambda model, inputs, **_: square(model, inputs)  # a sum over examples, in whatever batches
    made.train()
    by_hand = adapted()
    initialize_basis(by_hand, DataLoader(rows(), 4, collate_fn=default_data_collator), loss=square)
    for key, value in made.model.base_model.generated_tensors().items():
        if "lora_A" in key:  # singular vectors are known up to their signs
            expected = by_hand.base_model.generated_tensors()[key]
            cosines = torch.linalg.svdvals(torch.linalg.qr(value.T)[0].T @ torch.linalg.qr(expected.T)[0])
            assert cosines.min() > 0.99


def test_training_goes_on_as_if_nobody_had_read_a_batch(tmp_path):
    with_callback = run(tmp_path)
    with_callback.train()
    model = adapted()
    generator(model).basis.copy_(generator(with_callback.model).basis)
    without = trainer(tmp_path, model=model, **STEPS)
    without.train()
    assert_equal(with_callback.model, model)


def test_random_numbers_are_left_as_they_were(tmp_path):
    made = run(tmp_path)
    callback = made.callback_handler.callbacks[-1]
    made.create_optimizer()
    drawn = []
    for find in (False, True):
        random.seed(1)
        numpy.random.seed(1)
        torch.manual_seed(1)
        if find:
            made.state.max_steps = 6
            callback.on_train_begin(made.args, made.state, made.control, model=made.model, optimizer=made.optimizer)
        drawn.append([random.random(), numpy.random.random(), torch.rand(()).item()])
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_interrupted_run_resumes_bit_for_bit(step, tmp_path):
    whole = run(tmp_path / "whole", n_stages=3)
    whole.train()
    run(tmp_path / "parts", StopAt(step), n_stages=3).train()
    resumed = run(tmp_path / "parts", n_stages=3)
    resumed.train(resume_from_checkpoint=True)
    assert_equal(resumed.model, whole.model)


def test_known_bases_are_found_by_nobody_again(tmp_path):
    model = adapted()
    initialize_basis(model, [{name: row[None] for name, row in rows(1)[0].items()}])
    before = generator(model).basis.clone()
    run(tmp_path, model=model).train()
    assert torch.equal(generator(model).basis, before)


def test_each_stage_has_as_many_steps(tmp_path):
    count = Count()
    run(tmp_path, count, n_stages=3).train()
    assert count.n_bases == [1, 1, 2, 2, 3, 3]


def test_optimizer_forgets_the_last_stage(tmp_path):
    made = run(tmp_path, n_stages=3)
    made.train()
    assert {int(state["step"]) for state in made.optimizer.state.values()} == {2}


def test_stages_may_begin_amid_accumulated_steps(tmp_path):
    count = Count()
    run(tmp_path, count, n_stages=3, gradient_accumulation_steps=2).train()
    assert count.n_bases == [1, 1, 2, 2, 3, 3]


def test_encoder_decoder(tmp_path):
    ids = torch.randint(3, VOCABULARY, (4, 8), generator=torch.Generator().manual_seed(0))
    arguments = Seq2SeqTrainingArguments(
        str(tmp_path), max_steps=2, report_to="none", use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    config = QPAConfig(basis="gradient", r=4, target_modules=["q", "wo"], task_type="SEQ_2_SEQ_LM")
    data = [{"input_ids": row, "labels": row} for row in ids]
    made = Seq2SeqTrainer(get_peft_model(build("t5"), config), arguments, default_data_collator, train_dataset=data)
    made.add_callback(GradientBasisCallback(made))
    made.train()
    assert generator(made.model).n_bases == 1


def test_forward_without_bases_names_the_callback():
    with pytest.raises(RuntimeError, match=r"add_callback\(.*GradientBasisCallback\(trainer\)\).*initialize_basis"):
        logits(adapted(), "llama")


class Stream(IterableDataset):
    """Examples that are fewer than are asked for."""

    def __iter__(self):
        return iter(rows(6))


def test_a_loader_may_end_early(tmp_path):
    made = run(tmp_path, n_examples=1024)
    made.train_dataset = Stream()
    made.train()
    assert generator(made.model).n_bases == 1


def with_data(change):
    def make(folder):
        made = run(folder)
        made.train_dataset = [change(row) for row in rows()]
        return made

    return make


def with_loss(change):
    def make(folder):
        made = run(folder)
        made.compute_loss = lambda model, inputs, **_: change(model(**inputs).loss)
        return made

    return make


def without_data(folder):
    made = run(folder)
    made.train_dataset = None
    return made


def of_another_trainer(folder):
    made = run(folder)
    made.callback_handler.callbacks[-1].trainer = run(folder)
    return made


REFUSED = {
    "no labels": (with_data(lambda row: {"input_ids": row["input_ids"]}), ValueError, "did not return a loss"),
    "labels that are all masked": (
        with_data(lambda row: row | {"labels": torch.full((8,), -100)}),
        ValueError,
        "is zero|not finite",
    ),
    "a loss without a graph": (with_loss(torch.detach), TypeError, "Tensor without a graph"),
    "a loss of zero": (with_loss(lambda loss: 0 * loss), ValueError, "q_proj is zero"),
    "an infinite loss": (with_loss(lambda loss: torch.inf * loss), ValueError, "q_proj is not finite"),
    "no data": (without_data, ValueError, "requires a train_dataset"),
    "another trainer's": (of_another_trainer, ValueError, "made for another trainer"),
    "too few steps": (lambda folder: run(folder, n_stages=3, max_steps=2), ValueError, r"too few steps \(2\) for 3"),
    "other bases": (
        lambda folder: run(folder, model=adapted(basis="kaiming")),
        ValueError,
        "has no gradient bases. Configure it by",
    ),
    "LoRA": (
        lambda folder: run(folder, model=get_peft_model(build("llama"), LoraConfig(target_modules=["q_proj"], **LM))),
        ValueError,
        "no generator for an adapter 'default'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_found_is_said_before_the_first_step(case, tmp_path):
    make, error, message = REFUSED[case]
    made = make(tmp_path)
    with pytest.raises(error, match=message):
        made.train()
    assert made.state.global_step == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [{"trainer": None}, {"n_examples": 0}, {"adapter_name": 1}], ids=str)
def test_wrong_arguments_are_refused(wrong, tmp_path):
    with pytest.raises((TypeError, ValueError), match=f"`{next(iter(wrong))}`"):
        GradientBasisCallback(**({"trainer": trainer(tmp_path)} | wrong))


def test_two_processes_agree(tmp_path):
    here = Path(__file__).parent
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(here / "bases_ranks.py"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, env=os.environ | {"PYTHONPATH": str(here.parent)})
    one, other = (torch.load(tmp_path / f"rank-{i}.pt", weights_only=True) for i in range(2))
    assert one["default.basis"].any()
    assert all(torch.equal(value, other[name]) for name, value in one.items())

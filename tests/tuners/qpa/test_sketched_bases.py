"""Gradient bases of models that are too large for their whole gradients: sketched, over several passes."""

import pytest
import torch
from gradient_bases import RANK, SKETCHED, bases
from models import VOCABULARY
from peft import PeftModel, get_peft_model
from torch import nn
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM

from qpa_hf import QPAConfig, initialize_basis, refresh_basis
from qpa_hf.tuners.qpa.basis_cost import LayerSize, has_sketches

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]


def llama():
    """Return a model whose layers are just large enough for sketches, always the same."""
    sizes = {"num_hidden_layers": 1, "hidden_size": 64, "intermediate_size": 96, "vocab_size": VOCABULARY}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1)).eval()


def adapted(base=None, **settings):
    targets = {"target_modules": ["q_proj", "k_proj", "down_proj"], "task_type": "CAUSAL_LM"}
    config = {"r": RANK, "basis": "gradient", "chunk_size": 4} | targets | settings
    return get_peft_model(base or llama(), QPAConfig(**config))


def ids(n_rows=4, seed=0):
    return torch.randint(3, VOCABULARY, (n_rows, 8), generator=torch.Generator().manual_seed(seed))


def batches(n=3):
    return [{"input_ids": ids(seed=i), "labels": ids(seed=i)} for i in range(n)]


def buffer(model):
    return model.base_model.lora_qpa["default"].basis.clone()


def found(given, **settings):
    """Return the numbers of the sketched bases of a fresh model."""
    model = adapted()
    initialize_basis(model, given, **(SKETCHED | settings))
    return buffer(model)


def true_gradients(examples):
    """Return the summed dL/dW of every linear layer by name, in float64."""
    model = llama().double()
    for batch in examples:
        model(**batch).loss.backward()
    return {f"base_model.model.{name}": m.weight.grad for name, m in model.named_modules() if isinstance(m, nn.Linear)}


def test_only_layers_whose_sketch_is_smaller_are_sketched():
    sizes = [LayerSize(RANK, 32, 64), LayerSize(RANK, 64, 96), LayerSize(16, 14_336, 4096)]
    assert [size.n_columns for size in sizes] == [0, 26, 40]
    assert not has_sketches(sizes, 2**40)
    assert has_sketches(sizes, 2**20)
    assert not has_sketches(sizes[:1], 0)


def test_sketched_axes_are_those_of_the_true_gradient():
    model, examples = adapted(), batches()
    initialize_basis(model, examples, **SKETCHED)
    expected = true_gradients(examples)
    for name, (a, u) in bases(model).items():
        core = u.double().T @ expected[name] @ a.double().T
        values = core.diag()
        assert (values > 0).all()
        torch.testing.assert_close(core, values.diag(), rtol=0, atol=1e-3 * values[0].item())


def test_sketched_bases_capture_nearly_what_exact_ones_do():
    energies = []
    expected = true_gradients(batches())
    for exact_bytes in (0, 2**40):
        model = adapted()
        initialize_basis(model, batches(), exact_bytes=exact_bytes, progress=False)
        spans = {name: (torch.linalg.qr(u)[0], torch.linalg.qr(a.T)[0]) for name, (a, u) in bases(model).items()}
        energies.append({n: (u.double().T @ expected[n] @ v.double()).norm() ** 2 for n, (u, v) in spans.items()})
    for name, energy in energies[0].items():
        assert energy > 0.95 * energies[1][name]


def test_up_to_the_limit_nothing_is_sketched():
    bits = []
    for settings in ({}, {"exact_bytes": 2**40}):
        model = adapted()
        initialize_basis(model, batches(), progress=False, **settings)
        bits.append(buffer(model))
    assert torch.equal(*bits)
    assert not torch.equal(bits[0], found(batches()))


class Once:
    """Batches that can be read once."""

    def __iter__(self):
        yield from self.__dict__.pop("given", batches())
        self.given = []


LOADERS = {
    "a generator": lambda: iter(batches()),
    "one that ends early the second time": Once,
    "a shuffled loader": lambda: DataLoader([{k: v[i] for k, v in b.items()} for b in batches() for i in range(4)], 4),
}


@pytest.mark.parametrize("case", LOADERS)
def test_loaders_are_read_once(case):
    assert torch.equal(found(LOADERS[case]()), found(batches()))


def test_shuffled_loaders_give_the_same_spans():
    rows = [{k: v[i] for k, v in b.items()} for b in batches() for i in range(4)]
    torch.testing.assert_close(
        found(DataLoader(rows, 4, shuffle=True)).abs(), found(DataLoader(rows, 4)).abs(), rtol=0, atol=1e-2
    )


def test_only_as_many_examples_as_asked_for_are_read():
    assert torch.equal(found(iter(batches(5)), n_examples=9), found(batches(3)))


def test_what_is_random_in_the_loss_repeats_in_each_pass():
    def noisy(model, batch):
        mask = torch.rand(batch["input_ids"].shape) < 0.3
        return model(input_ids=batch["input_ids"], labels=batch["labels"].masked_fill(mask, -100)).loss

    torch.manual_seed(1)
    first = found(batches(), loss=noisy)
    torch.manual_seed(1)
    assert torch.equal(found(batches(), loss=noisy), first)


def changing():
    calls = []

    def loss(model, batch):
        calls.append(batch)
        return model(**batch).loss * (1 + len(calls))

    return loss


def infinite(model, batch):
    return model(**batch).loss * torch.inf


@torch.no_grad()
def without_gradient(model, batch):
    return model(**batch).loss.requires_grad_()


REFUSED = {
    "a loss of its own in each pass": (
        {"loss": changing()},
        ValueError,
        "is random. Make it repeatable, .* by exact_bytes=",
    ),
    "not finite": ({"loss": infinite}, ValueError, "q_proj is not finite"),
    "without a gradient": ({"loss": without_gradient}, ValueError, "No gradient came to model.layers.0"),
    "a number": ({"loss": lambda model, batch: model(**batch).loss.item()}, TypeError, "without a graph"),
    "no batches": ({"dataloader": []}, ValueError, "no batches"),
    "no labels": ({"dataloader": [{"input_ids": ids()}]}, ValueError, "Put `labels`"),
    "rows without names": ({"dataloader": [(1, 2)]}, TypeError, "without tensors by name"),
    "a limit below nothing": ({"exact_bytes": -1}, ValueError, "`exact_bytes`"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_calls_get_one_clear_sentence_and_lose_nothing(case):
    settings, error, message = REFUSED[case]
    model = adapted()
    with pytest.raises(error, match=message):
        initialize_basis(model, **({"dataloader": batches()} | SKETCHED | settings))
    initialize_basis(model, batches(), **SKETCHED)
    assert torch.equal(buffer(model), found(batches()))


def test_model_is_left_as_it_was():
    model = adapted(lora_dropout=0.5).train()
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    initialize_basis(model, batches(), **SKETCHED)
    assert model.training
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in llama_layers(model))


def llama_layers(model):
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def test_second_process_reads_the_cache_and_a_checkpoint_resumes(tmp_path):
    def refuse(model, batch):
        raise AssertionError("the cache should have been read")

    first, second = adapted(), adapted()
    initialize_basis(first, batches(), cache=tmp_path / "bases", **SKETCHED)
    initialize_basis(second, [], loss=refuse, cache=tmp_path / "bases", **SKETCHED)
    assert torch.equal(buffer(first), buffer(second))
    first.save_pretrained(tmp_path / "saved")
    assert torch.equal(buffer(PeftModel.from_pretrained(llama(), tmp_path / "saved")), buffer(first))


def test_later_stages_are_sketched_too():
    model = adapted(r=4, n_stages=2)
    initialize_basis(model, batches(), **SKETCHED)
    refresh_basis(model, batches(), **SKETCHED)
    assert model.base_model.lora_qpa["default"].n_bases == 2
    assert buffer(model).isfinite().all()


def test_half_precision_finds_the_same_spans():
    spans = []
    for dtype in (torch.float32, torch.bfloat16):
        model = adapted()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            initialize_basis(model, batches(), **SKETCHED)
        spans.append([a.T for a, _ in bases(model).values()])
    for low, expected in zip(*spans, strict=True):
        assert torch.linalg.svdvals(torch.linalg.qr(low)[0].T @ torch.linalg.qr(expected)[0]).min() > 0.9


def test_small_layers_beside_sketched_ones_are_exact():
    found = []
    for exact_bytes in (0, 2**29):
        model = adapted()  # 26 columns for both sides of k_proj are more than its 32 x 64 numbers
        initialize_basis(model, batches(), exact_bytes=exact_bytes)
        found.append(bases(model))
    for name, (a, u) in found[0].items():
        is_exact = torch.equal(a, found[1][name][0]) and torch.equal(u, found[1][name][1])
        assert is_exact == ("k_proj" in name)

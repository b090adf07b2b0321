"""Gradient bases: found from the true gradient, once, kept with the checkpoint, refused where they cannot be."""

from pathlib import Path

import pytest
import torch
from gradient_bases import SETTINGS, bases, square, uninitialized
from helpers import logits, start
from models import build, inputs, output
from peft import get_peft_model
from preconditioner import damped_root
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from qpa_hf import QPAConfig, initialize_basis

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
LAYERS = {
    "linear": ("llama", {"target_modules": ["q_proj", "down_proj"]}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "tied head": ("gpt2", {"target_modules": ["lm_head"]}),
}


def true_gradient(name, layer, n_batches=2):
    """Return dL/dW, shape (n_out, n_in), by making the base model's own weight a parameter."""
    model = build(name).requires_grad_(False)
    module = model.get_submodule(layer.removeprefix("base_model.model."))
    module.weight = torch.nn.Parameter(module.weight.detach().clone())
    for _ in range(n_batches):
        square(model, inputs(name)).backward()
    return module.weight.grad.T if type(module).__name__ == "Conv1D" else module.weight.grad


def seen(name, layer, n_batches=2):
    """Return a layer's inputs and its outputs' gradients, float64, one row for each token that the loss depends on."""
    model = build(name).requires_grad_(False)
    module = model.get_submodule(layer.removeprefix("base_model.model."))
    rows = []

    def keep(module, args, output):
        output = output.detach().requires_grad_()
        output.register_hook(lambda grad: rows.append((args[0].detach(), grad)))
        return output

    module.register_forward_hook(keep)
    for _ in range(n_batches):
        square(model, inputs(name)).backward()
    x, grad = (torch.cat([part.flatten(0, -2) for part in parts]).double() for parts in zip(*rows, strict=True))
    has_part = grad.norm(dim=1) > 1e-5 * grad.norm(dim=1).max()
    return x[has_part], grad[has_part]


@pytest.mark.parametrize("case", LAYERS)
def test_bases_span_the_leading_singular_vectors_of_the_preconditioned_gradient(case):
    name, settings = LAYERS[case]
    model = uninitialized(name, **settings)
    initialize_basis(model, [inputs(name)] * 2, loss=square)
    for layer, (a, u) in bases(model).items():
        x, grad = seen(name, layer)
        right, left = damped_root(x), damped_root(grad)
        vectors_left, _, vectors_right = torch.linalg.svd(left @ grad.T @ x @ right)
        for found, expected in ((u, left @ vectors_left[:, :3]), (a.T, right @ vectors_right[:3].T)):
            both = torch.linalg.qr(found.double())[0].T @ torch.linalg.qr(expected)[0]
            torch.testing.assert_close(torch.linalg.svdvals(both), torch.ones(3).double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", LAYERS)
def test_at_the_start_only_the_diagonal_of_a_core_has_a_gradient(case):
    name, settings = LAYERS[case]
    model = uninitialized(name, **settings)
    initialize_basis(model, [inputs(name)] * 2, loss=square)
    for layer, (a, u) in bases(model).items():
        core = u.double().T @ true_gradient(name, layer).double() @ a.double().T
        values = core.diag().sort(descending=True).values.clamp_min(0)
        torch.testing.assert_close(core, values.diag(), rtol=0, atol=1e-4 * values[0].item())


def test_base_model_may_be_any_module():
    def loss(model, batch):
        return output(model, "mlp").square().mean()

    model = uninitialized("mlp", target_modules=["hidden"], task_type=None)
    initialize_basis(model, [inputs("mlp")], loss=loss)
    assert torch.equal(logits(model, "mlp"), output(build("mlp"), "mlp"))


def test_what_follows_a_layer_may_write_in_place():
    base = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(inplace=True), torch.nn.Linear(8, 2))
    model = get_peft_model(base, QPAConfig(basis="gradient", r=2, target_modules=["0"]))
    initialize_basis(model, [{"input": torch.randn(4, 6)}], loss=lambda model, batch: model(**batch).square().mean())
    assert next(iter(model.base_model.lora_qpa.values())).n_bases == 1


def test_examples_are_counted_and_not_read_on():
    read = []

    def batches():
        for i in range(5):
            read.append(i)
            yield inputs("llama")  # of two rows

    initialize_basis(uninitialized("llama", target_modules=["q_proj"]), batches(), n_examples=3, loss=square)
    assert read == [0, 1]


def test_model_is_left_as_it_was():
    model = uninitialized("llama", target_modules=["q_proj"], lora_dropout=0.5).train()
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    for name in trained[:1]:  # as between two passes whose gradients are accumulated
        model.get_parameter(name).grad = torch.ones_like(model.get_parameter(name))
    gradients = [p.grad for p in model.parameters()]
    initialize_basis(model, [inputs("llama")], loss=square)
    assert model.training
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
    assert all(p.grad is gradient for p, gradient in zip(model.parameters(), gradients, strict=True))


def test_no_dropout_reaches_the_gradient():
    found = []
    for probability in (0.5, 0.0):
        torch.manual_seed(0)
        base = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(probability), torch.nn.Linear(8, 2))
        model = get_peft_model(base, QPAConfig(basis="gradient", r=2, target_modules=["0"])).train()
        rows = {"input": torch.randn(4, 6)}
        initialize_basis(model, [rows], loss=lambda model, batch: model(**batch).square().mean())
        found.append(model.base_model.lora_qpa["default"].basis)
    assert torch.equal(*found)


def test_disabled_adapters_stay_disabled():
    model = uninitialized("llama", target_modules=["q_proj"])
    model.base_model.disable_adapter_layers()
    initialize_basis(model, [inputs("llama")], loss=square)
    assert all(layer.disable_adapters for layer in model.modules() if hasattr(layer, "lora_A"))


def test_gradient_trains_the_core_and_leaves_the_bases():
    model = start("llama", target_modules=["q_proj"], basis="gradient", chunk_size=4)
    before = {name: (a.clone(), u.clone()) for name, (a, u) in bases(model).items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=10.0)
    square(model, inputs("llama")).backward()
    optimizer.step()
    assert not torch.equal(logits(model, "llama"), output(build("llama"), "llama"))
    assert all(torch.equal(a, before[n][0]) and torch.equal(u, before[n][1]) for n, (a, u) in bases(model).items())


def test_second_process_reads_the_cache(tmp_path):
    def refuse(model, batch):
        raise AssertionError("the cache should have been read")

    first, second = (uninitialized("llama", target_modules=["q_proj"]) for _ in range(2))
    initialize_basis(first, [inputs("llama")], loss=square, cache=tmp_path / "run" / "bases.safetensors")
    initialize_basis(second, [inputs("llama")], loss=refuse, cache=tmp_path / "run" / "bases.safetensors")
    for (a, u), (b, v) in zip(bases(first).values(), bases(second).values(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(u, v)


def test_random_numbers_that_follow_do_not_depend_on_the_cache(tmp_path):
    rows = [{name: tensor[0] for name, tensor in inputs("llama").items()}] * 2
    followed = []
    for _ in range(2):  # computed, then read
        torch.manual_seed(0)
        initialize_basis(
            uninitialized("llama"), DataLoader(rows, 2, shuffle=True), loss=square, cache=tmp_path / "bases"
        )
        followed.append(torch.rand(3))
    assert torch.equal(*followed)


@pytest.mark.filterwarnings("ignore:The classifier's loss:UserWarning")
def test_a_head_that_was_fitted_in_the_adapter_is_the_one_that_is_asked():
    def with_head(scale):
        model = uninitialized("bert", target_modules=["query"], task_type="SEQ_CLS")
        with torch.no_grad():
            model.base_model.model.classifier.modules_to_save["default"].weight.copy_(torch.ones(3, 16) * scale)
        initialize_basis(model, [inputs("bert")], loss=lambda model, batch: model(**batch).logits[:, 0].exp().mean())
        return bases(model)

    one, other = with_head(1.0), with_head(torch.arange(1.0, 17.0))
    assert not any(torch.equal(one[name][0], other[name][0]) for name in one)


def test_bases_that_arrive_by_copying_are_known():
    model = uninitialized("llama")
    average = AveragedModel(model)
    initialize_basis(model, [inputs("llama")], loss=square)
    average.update_parameters(model)
    assert torch.equal(logits(average, "llama"), logits(model, "llama"))


def test_damaged_cache_is_named(tmp_path):
    (tmp_path / "bases").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="bases is damaged"):
        initialize_basis(uninitialized("llama"), [], cache=tmp_path / "bases")


def test_cache_of_other_layers_is_refused(tmp_path):
    initialize_basis(
        uninitialized("llama", target_modules=["q_proj"]), [inputs("llama")], loss=square, cache=tmp_path / "bases"
    )
    with pytest.raises(ValueError, match="other layers or ranks"):
        initialize_basis(uninitialized("llama", target_modules=["v_proj"]), [], cache=tmp_path / "bases")


def test_cache_that_cannot_be_written_leaves_no_part(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError("refused")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="refused"):
        initialize_basis(
            uninitialized("llama", target_modules=["q_proj"]), [inputs("llama")], loss=square, cache=tmp_path / "bases"
        )
    assert not list(tmp_path.iterdir())


def test_random_head_is_warned_of():
    model = uninitialized("bert", target_modules=["query"], task_type="SEQ_CLS")
    batch = inputs("bert") | {"labels": torch.tensor([0, 2])}
    with pytest.warns(UserWarning, match="Fit the head"):
        initialize_basis(model, [batch])


def test_fitted_head_is_not_warned_of(recwarn):
    base = build("bert")
    labels = output(base, "bert").argmax(-1)
    with torch.no_grad():
        base.classifier.weight.mul_(1000)  # sure of its own answers
    model = get_peft_model(base, QPAConfig(**(SETTINGS | {"target_modules": ["query"], "task_type": "SEQ_CLS"})))
    initialize_basis(model, [inputs("bert") | {"labels": labels}])
    assert not [w for w in recwarn if "head" in str(w.message)]


def test_rank_alone_decides_the_sizes():
    config = QPAConfig(basis="gradient", r=32)
    assert (config.lora_alpha, config.chunk_size, config.n_circuits, config.circuit_depth) == (32, 512, 4, 2)


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 2}}], ids=str)
def test_every_layer_is_scaled_by_one(settings):
    """By PEFT's scale and by what the bases take up of it."""
    model = uninitialized("llama", target_modules=["q_proj", "down_proj"], **settings)
    initialize_basis(model, [inputs("llama")], loss=square)
    for name, (a, u) in bases(model).items():
        own = u.norm(dim=0) * (len(a) / len(u)) ** 0.5  # 1 as they are found
        scale = model.get_submodule(name).scaling["default"]
        torch.testing.assert_close(own * scale, torch.ones(len(a)))


def test_expert_without_a_token_adds_nothing():
    def loss(model, batch):
        few = model.base_model.model(batch["input"][:0])
        return model(batch["input"]).square().mean() + few.sum()

    found = []
    for own in (loss, lambda model, batch: model(batch["input"]).square().mean()):
        base = torch.nn.Sequential(torch.nn.Linear(6, 8))
        torch.nn.init.ones_(base[0].weight)
        torch.nn.init.zeros_(base[0].bias)
        model = get_peft_model(base, QPAConfig(basis="gradient", r=2, target_modules=["0"]))
        rows = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
        initialize_basis(model, [{"input": rows}], loss=own)
        found.append(model.base_model.lora_qpa["default"].basis)
    assert torch.equal(*found)

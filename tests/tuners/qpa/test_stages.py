"""Adapters whose gradient bases are found in several stages: each begins where the last one ended."""

import json

import pytest
import torch
from helpers import disturb, logits
from models import build, inputs
from peft import PeftModel, get_peft_model

from qpa_hf import QPAConfig, initialize_basis, materialize, refresh_basis
from qpa_hf.inspection import inspect

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
SETTINGS = {"r": 6, "n_stages": 2, "basis": "gradient", "target_modules": ["q_proj", "down_proj"]}
SOURCES = ["circuit", "direct"]


def square(model, batch):
    return model(**batch).logits.square().mean()


def staged(base=None, **settings):
    """Return a model whose first bases are known."""
    model = get_peft_model(base or build("llama"), QPAConfig(**(SETTINGS | settings))).eval()
    initialize_basis(model, [inputs("llama")], loss=square)
    return model


def in_second_stage(**settings):
    """Return a model that was changed in its first stage, and has bases for the second."""
    model = staged(**settings)
    disturb(model)
    refresh_basis(model, [inputs("llama")], loss=square)
    return model


def tensors(model):
    return {key: value.clone() for key, value in model.base_model.generated_tensors().items()}


@pytest.mark.parametrize("source", SOURCES)
def test_new_stage_changes_nothing(source):
    model = staged(source=source)
    disturb(model)
    before, expected = tensors(model), logits(model, "llama")
    refresh_basis(model, [inputs("llama")], loss=square)
    for key, value in tensors(model).items():
        if "lora_B" in key:
            assert torch.equal(value, before[key])
        else:
            assert torch.equal(value[:3], before[key][:3])
    torch.testing.assert_close(logits(model, "llama"), expected, rtol=0, atol=1e-5)


def test_second_bases_are_those_of_the_model_as_it_is_by_then():
    model = staged()
    disturb(model)
    refresh_basis(model, [inputs("llama")], loss=square)
    first = staged()
    disturb(first)
    fresh = staged(first.merge_and_unload(), r=3, n_stages=1)
    expected = tensors(fresh)
    for key, value in tensors(model).items():
        if "lora_A" in key:  # singular vectors are known up to their signs
            torch.testing.assert_close(value[3:].abs(), expected[key].abs(), rtol=0, atol=1e-3)


def test_only_the_last_stage_is_trained():
    model = in_second_stage()
    before = tensors(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=10.0)
    square(model, inputs("llama")).backward()
    optimizer.step()
    for key, value in tensors(model).items():
        if "lora_B" in key:
            assert torch.equal(value[:, :3], before[key][:, :3])
            assert value[:, 3:].any()


def test_each_stage_trains_as_many_numbers():
    one, two = staged(r=3, n_stages=1), in_second_stage()
    assert two.get_nb_trainable_parameters()[0] == one.get_nb_trainable_parameters()[0]


def test_saved_stage_is_loaded_and_collapses_into_lora(tmp_path):
    model = in_second_stage()
    disturb(model)
    model.save_pretrained(tmp_path / "native")
    expected = logits(model, "llama")
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path / "native")
    assert torch.equal(logits(loaded, "llama"), expected)
    materialize(tmp_path / "native", tmp_path / "plain")
    assert json.loads((tmp_path / "plain" / "adapter_config.json").read_text())["r"] == 6
    plain = PeftModel.from_pretrained(build("llama"), tmp_path / "plain")
    assert torch.equal(logits(plain, "llama"), expected)


def test_inspection_counts_all_stages(tmp_path):
    model = in_second_stage()
    model.save_pretrained(tmp_path)
    assert inspect(tmp_path)["trainable_numbers"] == 2 * model.get_nb_trainable_parameters()[0]


REFUSED = {
    "rank": ({"r": 5}, "multiple of `n_stages`"),
    "rank of a layer": ({"rank_pattern": {"q_proj": 3}}, "multiple of `n_stages`"),
    "other bases": ({"basis": "kaiming"}, "basis='gradient'"),
    "DoRA": ({"use_dora": True}, "use_dora=False"),
    "no stage": ({"n_stages": 0}, "at least 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_stages_are_refused(case):
    settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        QPAConfig(**(SETTINGS | settings))


def not_active(model):
    model.add_adapter("other", QPAConfig(r=2, chunk_size=16, target_modules=["q_proj"]))
    model.set_adapter("other")
    refresh_basis(model, [inputs("llama")], loss=square)


def disabled(model):
    with model.disable_adapter():
        refresh_basis(model, [inputs("llama")], loss=square)


REFUSED_CALLS = {
    "after the last stage": (lambda: refresh_basis(in_second_stage(), [inputs("llama")]), "last of its 2 stages"),
    "not active": (lambda: not_active(staged()), "not active"),
    "disabled": (lambda: disabled(staged()), "disabled"),
    "before the first": (
        lambda: refresh_basis(get_peft_model(build("llama"), QPAConfig(**SETTINGS)), [inputs("llama")]),
        "initialize_basis",
    ),
}


@pytest.mark.parametrize("case", REFUSED_CALLS)
def test_wrong_calls_get_one_clear_sentence(case):
    call, message = REFUSED_CALLS[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_copied_buffers_are_noticed():
    model, copy = in_second_stage(), staged()
    disturb(model)
    for key, value in copy.state_dict().items():  # as an average of weights does
        value.copy_(model.state_dict()[key])
    assert torch.equal(logits(copy, "llama"), logits(model, "llama"))


def test_combination_may_have_any_rank():
    model = in_second_stage()
    model.add_adapter("other", QPAConfig(r=3, chunk_size=16, target_modules=SETTINGS["target_modules"]))
    model.add_weighted_adapter(["default", "other"], [1.0, 1.0], "both", combination_type="cat")
    assert (model.peft_config["both"].r, model.peft_config["default"].n_stages) == (9, 2)


def test_float16_finds_the_same_bases():
    ids = torch.randint(3, 60, (64, 16), generator=torch.Generator().manual_seed(0))
    spans = []
    for dtype in (torch.float32, torch.float16):
        model = staged()
        disturb(model)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            refresh_basis(model, [{"input_ids": ids, "labels": ids}])
        spans.append([value[3:].T for key, value in tensors(model).items() if "lora_A" in key])
    for found, expected in zip(*spans, strict=True):
        cosines = torch.linalg.svdvals(torch.linalg.qr(found)[0].T @ torch.linalg.qr(expected)[0])
        assert cosines.min() > 0.9

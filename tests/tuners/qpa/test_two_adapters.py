"""Several adapters on one model: added, switched, combined and deleted; also run on older versions of PEFT."""

import pytest
import torch
from cases import LM
from helpers import adapted, disturb, logits, trainable
from models import build, output
from peft import PeftConfig, PeftModel
from peft.tuners.lora import LoraModel

from qpa_hf import QPAConfig

pytestmark = [
    pytest.mark.contract,
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),  # these models are tiny
]
IS_OLD = not hasattr(LoraModel, "_get_adapter_state_dict")  # peft < 0.21


def two_adapters():
    model = adapted("llama", target_modules=["q_proj", "v_proj"], **LM)
    model.add_adapter("b", QPAConfig(r=2, chunk_size=16, target_modules=["q_proj"], init_seed=4, **LM))
    disturb(model, 2, "b")
    return model


def test_second_adapter_is_added_frozen_and_inactive():
    alone = adapted("llama", target_modules=["q_proj", "v_proj"], **LM)
    model = two_adapters()
    assert torch.equal(logits(model, "llama"), logits(alone, "llama"))
    assert not any(p.requires_grad for p in model.base_model.lora_qpa["b"].parameters())


def test_switching_adapters_switches_values_and_gradients():
    model = two_adapters()
    first = logits(model, "llama")
    model.set_adapter("b")
    second = logits(model, "llama")
    assert not torch.equal(first, second)
    assert all(p.requires_grad for p in trainable(model, "b"))
    assert not any(p.requires_grad for p in model.base_model.lora_qpa["default"].parameters())
    model.set_adapter("default")
    assert torch.equal(logits(model, "llama"), first)


def trained(model, name):
    return {p.requires_grad for p in trainable(model, name)}


@pytest.mark.parametrize("is_trained", [True, False])
def test_other_adapters_that_come_and_go_leave_an_adapter_trainable_or_not(is_trained, tmp_path):
    adapted("llama", target_modules=["q_proj"], **LM).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(build("llama"), tmp_path, is_trainable=not is_trained)
    model.base_model.set_adapter("default", inference_mode=not is_trained)
    model.load_adapter(tmp_path, "b", is_trainable=not is_trained)
    assert trained(model, "default") == {is_trained}
    model.delete_adapter("b")
    assert trained(model, "default") == {is_trained}


def test_both_adapters_active():
    model = two_adapters()
    first = logits(model, "llama")
    model.base_model.set_adapter(["default", "b"])
    assert not torch.equal(logits(model, "llama"), first)
    output(model, "llama").sum().backward()
    assert all(p.grad is not None for name in ("default", "b") for p in trainable(model, name))


def test_deleting_an_adapter_leaves_the_other():
    model = two_adapters()
    first = logits(model, "llama")
    model.delete_adapter("b")
    assert list(model.base_model.lora_qpa) == ["default"]
    assert torch.equal(logits(model, "llama"), first)


def test_the_adapter_that_becomes_active_by_a_deletion_is_trained():
    model = two_adapters()
    model.delete_adapter("default")
    assert (model.active_adapters, trained(model, "b")) == (["b"], {True})


def test_the_name_of_a_deleted_combination_is_free_for_a_generated_adapter():
    model = two_adapters()
    model.add_weighted_adapter(["default", "b"], [1.0, 1.0], "c", combination_type="cat")
    model.delete_adapter("c")
    model.add_adapter("c", QPAConfig(r=4, chunk_size=32, target_modules=["q_proj"], **LM))
    assert "c" in model.base_model.lora_qpa


def test_mixed_batch_uses_each_row_s_adapter():
    model = two_adapters()
    first = logits(model, "llama")
    mixed = logits(model, "llama", adapter_names=["default", "b"])
    model.set_adapter("b")
    torch.testing.assert_close(mixed, torch.stack([first[0], logits(model, "llama")[1]]))


@pytest.mark.parametrize("combination_type", ["linear", "cat", "svd"])
def test_weighted_adapter_is_a_plain_one(combination_type, tmp_path):
    if IS_OLD and combination_type == "svd":
        pytest.skip("the combination of peft < 0.21 is off with plain LoRA too")
    model = adapted("llama", target_modules=["q_proj"], **LM)
    model.add_adapter("b", QPAConfig(r=4, chunk_size=16, lora_alpha=8, target_modules=["q_proj"], **LM))
    disturb(model, 2, "b")
    model.add_weighted_adapter(["default", "b"], [1.0, 0.0], "c", combination_type=combination_type)
    expected = logits(model, "llama")
    model.set_adapter("c")
    torch.testing.assert_close(logits(model, "llama"), expected, rtol=1e-3, atol=1e-4)
    model.save_pretrained(tmp_path, selected_adapters=["c"])
    assert PeftConfig.from_pretrained(tmp_path / "c").peft_type.value == "LORA"
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path / "c")
    torch.testing.assert_close(logits(loaded, "llama"), logits(model, "llama"))

"""What a PEFT method must do, over small models and every kind of target; also run on older versions of PEFT."""

import copy
import pickle

import pytest
import torch
from cases import CASES, LM, make
from helpers import adapted, disturb, logits, start, trainable
from models import build, inputs, output
from peft import AutoPeftModelForCausalLM, PeftModel, get_peft_model
from peft.tuners.lora import LoraModel
from torch import nn

from qpa_hf import QPAConfig, materialize

pytestmark = [
    pytest.mark.contract,
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),  # these models are tiny
]

IS_OLD = not hasattr(LoraModel, "_get_adapter_state_dict")  # peft < 0.21
each_case = pytest.mark.parametrize("case", CASES)


def plain(name):
    with torch.no_grad():
        return output(build(name), name)


@each_case
def test_adapter_changes_nothing_at_step_0(case):
    name, settings = CASES[case]
    model = start(name, **settings)
    torch.testing.assert_close(logits(model, name), plain(name), rtol=0, atol=1e-6 if "dora" in case else 0)


@each_case
@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_saved_adapter_loads_under_another_name(case, low_cpu_mem_usage, tmp_path):
    name, model = make(case)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build(name), tmp_path, adapter_name="b", low_cpu_mem_usage=low_cpu_mem_usage)
    assert torch.equal(logits(loaded, name), logits(model, name))


@each_case
def test_checkpoint_holds_the_generator_and_no_base_weight(case, tmp_path):
    from safetensors.torch import load_file

    _, model = make(case)
    model.save_pretrained(tmp_path)
    keys = set(load_file(tmp_path / "adapter_model.safetensors"))
    assert not [key for key in keys if "base_layer" in key or ".lora_A" in key or ".lora_B" in key]
    own = {"values"} if "direct" in case else {"w0", "b0"}
    assert {f"base_model.lora_qpa.{name}" for name in own} <= keys


@each_case
def test_optimizer_sees_only_the_generator(case):
    _, model = make(case)
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert names
    assert all(".lora_qpa." in n or "modules_to_save" in n for n in names)


@each_case
def test_every_trainable_number_gets_a_gradient(case):
    name, model = make(case)
    output(model, name).square().sum().backward()
    for parameter in trainable(model):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@each_case
def test_disabled_adapter_is_the_base_model(case):
    name, model = make(case)
    with model.disable_adapter():
        assert torch.equal(logits(model, name), plain(name))
    assert not torch.equal(logits(model, name), plain(name))


@each_case
def test_merge_and_unmerge(case):
    name, model = make(case)
    if "tied" in case:
        pytest.skip("as with LoRA itself, merging into one of two tied weights changes the other too")
    if IS_OLD and case == "dora conv1d":
        pytest.skip("peft < 0.21 cannot merge this with plain LoRA either")
    expected = logits(model, name)
    model.merge_adapter()
    torch.testing.assert_close(logits(model, name), expected, rtol=1e-4, atol=1e-4)
    model.unmerge_adapter()
    torch.testing.assert_close(logits(model, name), expected, rtol=1e-4, atol=1e-4)


@each_case
def test_merge_and_unload_leaves_a_plain_model(case):
    name, model = make(case)
    if "tied" in case:
        pytest.skip("as with LoRA itself, merging into one of two tied weights changes the other too")
    expected = logits(model, name)
    merged = model.merge_and_unload(safe_merge=True)
    torch.testing.assert_close(logits(merged, name), expected, rtol=1e-4, atol=1e-4)
    assert not [n for n, _ in merged.named_modules() if "lora" in n]


@each_case
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_copies_after_a_forward_are_independent(case, duplicate):
    name, model = make(case)
    expected = output(model, name).detach()
    other = duplicate(model)
    assert torch.equal(logits(other, name), expected)
    disturb(other, seed=5)
    assert not torch.equal(logits(other, name), expected)
    assert torch.equal(logits(model, name), expected)


def test_one_configuration_serves_two_models(tmp_path):
    config = QPAConfig(r=2, target_modules=["q_proj"], chunk_size=16, **LM)
    first = get_peft_model(build("llama"), config)
    wider = build("llama")
    wider.model.layers[0].self_attn.q_proj = nn.Linear(16, 32, bias=False)
    get_peft_model(wider, config)
    first.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path)
    assert torch.equal(logits(loaded, "llama"), logits(first, "llama"))


def test_a_checkpoint_of_other_layers_is_refused(tmp_path):
    adapted("llama", target_modules=["q_proj"], **LM).save_pretrained(tmp_path)
    other = adapted("llama", target_modules=["o_proj"], **LM)
    before = logits(other, "llama")
    with pytest.raises(ValueError, match="tensors of other names or shapes than this adapter"):
        other.load_adapter(tmp_path, "default", is_trainable=True)
    assert torch.equal(logits(other, "llama"), before)


def test_plain_tensors_are_not_passed_over_in_silence(tmp_path):
    model = adapted("llama", target_modules=["q_proj", "embed_tokens"])
    materialize(model, tmp_path)
    with pytest.raises(ValueError, match=r"lora_\S+ is a plain LoRA's tensor"):
        model.load_adapter(tmp_path, "default")


def test_initialisation_does_not_depend_on_torchs_default_dtype():
    drawn = []
    for dtype in (torch.float32, torch.float64):
        base = build("llama")
        torch.set_default_dtype(dtype)
        try:
            made = get_peft_model(base, QPAConfig(r=4, chunk_size=32, target_modules=["q_proj"], **LM))
        finally:
            torch.set_default_dtype(torch.float32)
        drawn.append(made.base_model.generated_tensors("default"))
    assert all(torch.equal(drawn[0][key], drawn[1][key]) for key in drawn[0])


def test_an_adapter_made_in_inference_mode_can_be_used():
    with torch.inference_mode():
        model = adapted("llama", target_modules=["q_proj"], **LM)
        expected = logits(model, "llama")
    assert torch.equal(logits(model, "llama"), expected)


def test_magnitudes_without_base_weights_are_refused():
    config = QPAConfig(target_modules=["q_proj"], use_dora=True, **LM)
    with pytest.raises(ValueError, match="Set `low_cpu_mem_usage`=False"):
        get_peft_model(build("llama"), config, low_cpu_mem_usage=True)


def test_auto_model_loads_base_and_adapter(tmp_path):
    build("llama").save_pretrained(tmp_path / "base")
    base = type(build("llama")).from_pretrained(tmp_path / "base")
    model = get_peft_model(base, QPAConfig(r=4, chunk_size=32, target_modules=["q_proj"], **LM)).eval()
    disturb(model)
    model.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(loaded, "llama"), logits(model, "llama"))


@pytest.mark.parametrize("is_trainable", [False, True])
def test_loaded_adapter_is_trainable_only_if_asked(is_trainable, tmp_path):
    adapted("llama", target_modules=["q_proj"], **LM).save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path, is_trainable=is_trainable)
    assert all(p.requires_grad == is_trainable for p in trainable(loaded))


def test_model_status():
    status = adapted("llama", target_modules=["q_proj"], **LM).get_model_status()
    assert status.enabled is True
    assert status.active_adapters == ["default"]
    assert status.peft_types == {"default": "QPA"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_base_keeps_the_generator_in_float32(dtype):
    base = build("llama").to(dtype)
    settings = {"r": 4, "chunk_size": 32, "target_modules": ["q_proj"], **LM}
    model = get_peft_model(base, QPAConfig(**settings)).eval()
    disturb(model)
    values = model.base_model.generated_tensors()
    model = model.to(dtype)
    assert {p.dtype for p in model.base_model.lora_qpa.parameters()} == {torch.float32}
    assert all(torch.equal(values[k], v) for k, v in model.base_model.generated_tensors().items())
    assert output(model, "llama").dtype == dtype


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_generate_runs_the_circuit_once(name):
    if IS_OLD and name == "t5":
        pytest.skip("PeftModelForSeq2SeqLM of peft < 0.21 does not work with transformers 5")
    targets = {"llama": (["q_proj"], "CAUSAL_LM"), "t5": (["q"], "SEQ_2_SEQ_LM")}[name]
    model = adapted(name, target_modules=targets[0], task_type=targets[1])
    runs = []
    model.base_model.lora_qpa["default"].register_forward_hook(lambda *_: runs.append(1))
    ids = inputs(name)["input_ids"]
    tokens = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
    assert tokens.shape[0] == 2
    assert len(runs) == 1


@pytest.mark.skipif(IS_OLD, reason="peft < 0.21")
@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases_are_saved(bias, tmp_path):
    model = adapted("bert", target_modules=["query"], bias=bias, task_type="SEQ_CLS")
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias") and parameter.requires_grad:
                parameter.add_(0.1)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(build("bert"), tmp_path), "bert"), logits(model, "bert"))


@pytest.mark.skipif(not IS_OLD, reason="peft >= 0.21")
def test_trained_biases_are_refused_where_peft_would_lose_them():
    with pytest.raises(ValueError, match="peft 0.21"):
        adapted("bert", target_modules=["query"], bias="all")


@pytest.mark.skipif(IS_OLD, reason="peft < 0.21 has no such hook")
def test_conversion_for_another_initial_model_is_refused(tmp_path):
    model = adapted("llama", target_modules=["q_proj"], **LM)
    with pytest.raises(ValueError, match="QPA has none of"):
        model.save_pretrained(tmp_path, path_initial_model_for_weight_conversion=str(tmp_path / "initial"))


def test_data_parallel_is_refused():
    model = adapted("llama", target_modules=["q_proj"], **LM)
    replica = model._replicate_for_data_parallel()
    replica._modules["base_model"] = model.base_model._replicate_for_data_parallel()
    with pytest.raises(RuntimeError, match="torchrun"):
        replica(**inputs("llama"))


def test_checkpoint_of_another_base_is_refused(tmp_path):
    adapted("llama", target_modules=["q_proj"], **LM).save_pretrained(tmp_path)
    other = build("llama")
    other.model.layers[0].self_attn.q_proj = nn.Linear(16, 32, bias=False)
    with pytest.raises(ValueError, match=r"does not fit this base model: .*q_proj.lora_B.weight is \(16, 4\)"):
        PeftModel.from_pretrained(other, tmp_path)


def test_truncated_checkpoint_is_refused(tmp_path):
    adapted("llama", target_modules=["q_proj"], **LM).save_pretrained(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="incomplete or damaged"):
        PeftModel.from_pretrained(build("llama"), tmp_path)

"""QPAConfig: the paper's counts, and one clear sentence for each wrong value."""

import numpy as np
import pytest
import torch
from cases import PAPER_COUNTS
from helpers import adapted, logits
from models import build
from peft import get_peft_model
from peft.utils.hotswap import hotswap_adapter
from peft.utils.peft_types import PeftType
from transformers import MambaConfig, MambaForCausalLM

from qpa_hf import QPAConfig

# GPT-2, lm_head 768 -> 50257, LoRA r = 4: the trainable counts of the paper's Fig. 2 and Table 8.


@pytest.mark.parametrize(("chunk_size", "count"), PAPER_COUNTS.items())
def test_paper_has_exactly_the_published_counts(chunk_size, count):
    assert QPAConfig.paper(chunk_size).generator_spec(204_100).n_trainable == count


def test_peft_type_is_a_member_of_the_enum():
    assert QPAConfig().peft_type is PeftType.QPA
    assert PeftType("QPA").value == "QPA"


def test_config_survives_saving(tmp_path):
    config = QPAConfig.paper(64, target_modules=["c_attn"], activation="gelu")
    config.inference_mode = True  # as PEFT writes it
    config.save_pretrained(tmp_path)
    loaded = QPAConfig.from_pretrained(str(tmp_path))
    assert loaded.to_dict() == config.to_dict()


BAD_VALUES = [
    ({"chunk_size": 0}, ValueError, r"`chunk_size`=0 is not allowed. Set it to a whole number of at least 1"),
    ({"n_circuits": 2.0}, ValueError, r"`n_circuits`=2.0"),
    ({"circuit_depth": True}, ValueError, r"`circuit_depth`=True"),
    ({"ansatz": "ry"}, ValueError, r"`ansatz`='ry' is not known. Choose one of 'ry_cnot'"),
    ({"features": "raw"}, ValueError, r"'standardized', 'authors', 'probability'"),
    ({"activation": "swish"}, ValueError, r"'none', 'relu', 'gelu', 'silu', 'tanh'"),
    ({"activation": "relu"}, ValueError, r"no hidden layer"),
    ({"start": "zero"}, ValueError, r"'identity', 'authors'"),
    ({"source": "noise"}, ValueError, r"'circuit', 'random', 'bits'"),
    ({"mapping_widths": (8, 0)}, ValueError, r"`mapping_widths`=\(8, 0\)"),
    ({"mapping_widths": (True,)}, ValueError, r"`mapping_widths`=\(True,\)"),
    ({"init_seed": -1}, ValueError, r"`init_seed`=-1"),
    ({"save_init": 1}, TypeError, r"`save_init`=1"),
    ({"use_dora": "abc"}, TypeError, r"`use_dora`='abc' is not a truth value"),
    ({"exclude_modules": 5}, ValueError, r"`exclude_modules`=5 is not allowed. Set it to a name or a list of names"),
    ({"chunksize": 8}, TypeError, r"unexpected keyword argument 'chunksize'. Did you mean `chunk_size`"),
    ({"init_lora_weights": "pissa"}, ValueError, r"`init_lora_weights`='pissa'.*Use True or 'gaussian'"),
    ({"init_lora_weights": "olora"}, ValueError, r"'olora'"),
    ({"init_lora_weights": "corda"}, ValueError, r"'corda'"),
    ({"init_lora_weights": "eva"}, ValueError, r"'eva'"),
    ({"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, ValueError, r"'loftq'"),
    ({"init_lora_weights": "orthogonal"}, ValueError, r"'orthogonal'"),
    ({"init_lora_weights": False}, ValueError, r"False"),
    ({"layer_replication": [(0, 1)]}, ValueError, r"`layer_replication`.*LoraConfig"),
    ({"alora_invocation_tokens": [1], "task_type": "CAUSAL_LM"}, ValueError, r"`alora_invocation_tokens`"),
    ({"megatron_config": {"a": 1}}, ValueError, r"`megatron_config`"),
    ({"r": "foo"}, ValueError, r"`r`='foo'"),
    ({"r": 0}, ValueError, r"`r`=0"),
    ({"lora_alpha": "abc"}, ValueError, r"`lora_alpha`='abc' is not allowed. Set it to a finite number"),
    ({"lora_alpha": float("nan")}, ValueError, r"`lora_alpha`=nan"),
    ({"r": None}, ValueError, r"`r`=None"),
    ({"rank_pattern": {"q": "x"}}, ValueError, r"`rank_pattern`=\{'q': 'x'\}"),
    ({"lora_dropout": "x"}, ValueError, r"`lora_dropout`='x'"),
    ({"rank_pattern": 5}, ValueError, r"`rank_pattern`=5 is not allowed. Set it to a dictionary"),
    ({"target_modules": 5}, ValueError, r"`target_modules`=5"),
    ({"device_folder": None}, TypeError, r"`device_folder`=None is not a path. Set it to a directory's name"),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("kwargs", "error", "message"), BAD_VALUES, ids=[str(case[0]) for case in BAD_VALUES])
def test_bad_value_is_named(kwargs, error, message):
    with pytest.raises(error, match=message):
        QPAConfig(**kwargs)


def test_numbers_of_numpy_are_taken(tmp_path):
    numbers = {"r": np.int64(4), "lora_alpha": np.float32(8), "lora_dropout": np.float32(0), "chunk_size": np.int32(8)}
    QPAConfig(**numbers, target_modules={"q_proj"}).save_pretrained(tmp_path)
    assert QPAConfig.from_pretrained(str(tmp_path)).r == 4


# Variants that only newer versions of PEFT have.
SUBCONFIGS = {
    "kasa_config": "KasaConfig",
    "velora_config": "VeloraConfig",
    "monteclora_config": "MontecloraConfig",
    "arrow_config": "ArrowConfig",
    "use_bdlora": "BdLoraConfig",
}


@pytest.mark.parametrize(("name", "kind"), SUBCONFIGS.items())
def test_variant_is_refused(name, kind):
    lora = pytest.importorskip("peft.tuners.lora.config")
    if not hasattr(lora, kind) or name not in QPAConfig.__dataclass_fields__:
        pytest.skip(f"this version of peft has no {kind}")
    with pytest.raises(ValueError, match=f"`{name}` is not possible with QPA"):
        QPAConfig(**{name: getattr(lora, kind)()})


def test_a_folder_of_device_jobs_may_be_a_path(tmp_path):
    assert QPAConfig(device_folder=tmp_path).device_folder == str(tmp_path)


def test_targets_that_match_nothing_are_named():
    with pytest.raises(ValueError, match="nothing_here"):
        get_peft_model(build("gpt2"), QPAConfig(target_modules=["nothing_here"]))


def test_chunk_larger_than_the_adapter_warns_with_the_count():
    with pytest.warns(UserWarning, match=r"more than the 608 numbers .* larger than what it"):
        get_peft_model(build("gpt2"), QPAConfig(r=8, target_modules=["lm_head"], chunk_size=10_000))


def test_more_numbers_than_lora_warns_with_both_counts():
    with pytest.warns(UserWarning, match=r"and generates 608"):
        get_peft_model(build("gpt2"), QPAConfig(r=8, target_modules=["lm_head"], chunk_size=200))


def test_too_many_qubits_are_refused_with_the_bytes():
    with pytest.raises(MemoryError, match="bytes"):
        get_peft_model(build("gpt2"), QPAConfig(target_modules=["lm_head"], chunk_size=1, n_circuits=2_000_000))


def test_refused_adapter_leaves_the_base_model_as_it_was():
    base = build("gpt2")
    expected = logits(base, "gpt2")
    with pytest.raises(MemoryError):
        get_peft_model(base, QPAConfig(target_modules=["lm_head"], chunk_size=1, n_circuits=2_000_000))
    assert not [name for name, _ in base.named_modules() if "lora" in name]
    assert torch.equal(logits(base, "gpt2"), expected)


@pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
def test_refused_second_adapter_leaves_the_first():
    model = adapted("gpt2", target_modules=["lm_head"])
    expected = logits(model, "gpt2")
    with pytest.raises(MemoryError):
        model.add_adapter("b", QPAConfig(target_modules=["lm_head"], chunk_size=1, n_circuits=2_000_000))
    assert list(model.peft_config) == ["default"]
    assert torch.equal(logits(model, "gpt2"), expected)


def test_mamba_layers_that_lora_refuses_are_refused():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 20, "state_size": 4}
    base = MambaForCausalLM(MambaConfig(**sizes))
    with pytest.raises(ValueError, match="incompatible with Mamba"):
        get_peft_model(base, QPAConfig(target_modules=["out_proj"]))


@pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
def test_hotswapping_is_refused(tmp_path):
    adapted("gpt2", target_modules=["c_attn"], fan_in_fan_out=True).save_pretrained(tmp_path)
    model = adapted("gpt2", target_modules=["c_attn"], fan_in_fan_out=True)
    with pytest.raises(ValueError, match="Hotswapping only supports"):
        hotswap_adapter(model, str(tmp_path), "default")


def test_mixed_models_are_refused():
    with pytest.raises(ValueError, match="PeftMixedModel|mixed"):
        get_peft_model(build("gpt2"), QPAConfig(target_modules=["c_attn"]), mixed=True)


REPRS = {
    "QPAConfig()": {},
    "QPAConfig(r=4, target_modules=['k', 'q'])": {"r": 4, "target_modules": ["q", "k"]},
    "QPAConfig(r=20, basis='gradient')": {"r": 20, "basis": "gradient"},
    "QPAConfig(chunk_size=16, shots='20x')": {"chunk_size": 16, "shots": "20x"},
}


@pytest.mark.parametrize("shown", REPRS)
def test_a_configuration_shows_what_differs_from_the_defaults(shown):
    assert repr(QPAConfig(**REPRS[shown])) == shown

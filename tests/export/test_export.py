"""An exported adapter, in the genuine reader: llama.cpp, mlx-lm and diffusers answer as PEFT does."""

import json
import sys

import numpy as np
import pytest
import torch
from helpers import adapted, disturb
from peft import get_peft_model
from tiny_gguf import VOCABULARY, base_file, tiny_base

from qpa_hf import QPAConfig, materialize
from qpa_hf.export import export

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
PROMPT = [5, 9, 17, 33, 8, 21]
SETTINGS = {  # with scales that a reader of one alpha would get wrong
    "r": 4,
    "lora_alpha": 40,
    "use_rslora": True,
    "chunk_size": 32,
    "n_circuits": 2,
    "circuit_depth": 2,
    "task_type": "CAUSAL_LM",
}
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
PATTERNS = {"rank_pattern": {"q_proj": 6}, "alpha_pattern": {"down_proj": 10}}
ADAPTERS = {
    "llama": {"target_modules": LLAMA, **PATTERNS},
    "qwen2": {"target_modules": LLAMA, **PATTERNS},
    "gpt2": {
        "target_modules": ["c_attn", "c_proj", "c_fc"],
        "fan_in_fan_out": True,
        "rank_pattern": {"c_attn": 6},
        "alpha_pattern": {"mlp.c_proj": 10},
    },
}


def trained(base, **settings):
    """Return a model whose adapter changes much."""
    model = get_peft_model(base, QPAConfig(**settings)).eval()
    disturb(model)
    return model


def llama_cpp(base, adapter=None):
    """Return llama.cpp's log probabilities of the token after the prompt."""
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(base)
    params.n_ctx, params.n_gpu_layers, params.warmup, params.n_parallel = 64, 0, False, 1
    params.cpuparams.n_threads = 1
    params.verbosity = 0
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    if adapter:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0)]
    server = xllamacpp.Server(params)
    asked = {"prompt": PROMPT, "n_predict": 1, "logprobs": VOCABULARY, "temperature": 0}
    answer = server.handle_completions(asked)
    found = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return torch.tensor([value for _, value in sorted((token["id"], token["logprob"]) for token in found)])


def ours(model):
    with torch.no_grad():
        return model(input_ids=torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_llama_cpp_answers_as_peft_does(kind, tmp_path):
    pytest.importorskip("gguf")
    base = tiny_base(kind, tmp_path / "base")
    file = base_file(kind, base, tmp_path / "base.gguf")
    torch.testing.assert_close(llama_cpp(file), ours(base), rtol=0, atol=1e-2)
    model = trained(base, **ADAPTERS[kind], **SETTINGS)
    model.save_pretrained(tmp_path / "native")
    export(tmp_path / "native", tmp_path / "a.gguf", "gguf", base=tmp_path / "base")
    expected = ours(model)
    with model.disable_adapter():
        assert (expected - ours(model)).abs().max() > 0.1
    torch.testing.assert_close(llama_cpp(file, tmp_path / "a.gguf"), expected, rtol=0, atol=1e-2)


def test_mlx_answers_as_peft_does(tmp_path):
    mx = pytest.importorskip("mlx.core")
    utils = pytest.importorskip("mlx_lm.tuner.utils")
    from mlx_lm.models import llama

    base = tiny_base("llama", tmp_path / "base")
    arguments = llama.ModelArgs.from_dict(json.loads((tmp_path / "base" / "config.json").read_text()))
    there = llama.Model(arguments)
    weights = {name: mx.array(value.numpy()) for name, value in base.state_dict().items()}
    there.load_weights(list(there.sanitize(weights).items()))
    model = trained(base, **ADAPTERS["llama"], **SETTINGS)
    export(model, tmp_path / "mlx", "mlx")
    there = utils.load_adapters(there, str(tmp_path / "mlx"))
    there.eval()
    found = torch.from_numpy(np.array(there(mx.array([PROMPT]))))[0, -1].log_softmax(-1)
    torch.testing.assert_close(found, ours(model), rtol=0, atol=1e-3)


def test_diffusers_answers_as_peft_does(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    sizes = {"sample_size": 8, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    blocks = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }

    def unet():
        torch.manual_seed(0)
        return diffusers.UNet2DConditionModel(**sizes, **blocks, cross_attention_dim=8, attention_head_dim=2).eval()

    def answer(model):
        rng = torch.Generator().manual_seed(2)
        with torch.no_grad():
            sample, states = torch.randn(1, 4, 8, 8, generator=rng), torch.randn(1, 3, 8, generator=rng)
            return model(sample, 1, encoder_hidden_states=states).sample

    settings = SETTINGS | {"task_type": None, "rank_pattern": {"to_q": 6}, "alpha_pattern": {"conv1": 10}}
    model = trained(unet(), target_modules=["to_q", "to_k", "to_out.0", "conv1"], **settings)
    export(model, tmp_path / "a", "diffusers")
    there = unet()
    before = answer(there)
    there.load_lora_adapter(str(tmp_path / "a"), prefix="unet", weight_name="pytorch_lora_weights.safetensors")
    assert (answer(model) - before).abs().max() > 1e-2
    torch.testing.assert_close(answer(there), answer(model), rtol=1e-4, atol=1e-4)


def test_plain_adapter_is_exported_as_its_native_one(tmp_path):
    model = adapted("llama", target_modules=["q_proj"], task_type="CAUSAL_LM", use_rslora=True)
    materialize(model, tmp_path / "plain")
    for source, name in ((model, "a"), (tmp_path / "plain", "b")):
        export(source, tmp_path / name, "mlx")
    for name in ("adapters.safetensors", "adapter_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def lora(**settings):
    return lambda: adapted("llama", target_modules=["q_proj"], task_type="CAUSAL_LM", **settings)


BAD = {
    "format": (lora(), "a", "onnx", r"`to`='onnx' is not known\. Use one of 'gguf', 'mlx', 'diffusers'"),
    "ending": (lora(), "a", "gguf", r"Pass a path that ends with \.gguf"),
    "folder": (lora(), "a.gguf", "mlx", "Pass a path that is a folder's name"),
    "taken": (lora(), "taken", "mlx", "is there already"),
    "nowhere": (lora(), "no/where", "mlx", "There is no directory"),
    "variant": (lora(use_dora=True), "a", "mlx", "no portable form"),
    "no component": (lora(), "a", "diffusers", "pipelines of diffusers have a unet, transformer or text_encoder"),
    "no base": (lora(), "a.gguf", "gguf", "does not name its base model"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_exported_is_named_and_nothing_is_written(case, tmp_path):
    if case == "no base":
        pytest.importorskip("gguf")
    make, name, to, message = BAD[case]
    (tmp_path / "taken").mkdir()
    with pytest.raises(ValueError, match=message):
        export(make(), tmp_path / name, to)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("kind", "targets", "message"),
    [
        ("bert", ["query"], r"of the family 'bert', and GGUF is written here for llama.*convert_lora_to_gguf\.py"),
        ("gpt2", ["lm_head"], "is no linear layer with weights of its own in llama.cpp"),
    ],
)
def test_base_that_gguf_has_no_place_for_is_named(kind, targets, message, tmp_path):
    pytest.importorskip("gguf")
    model = adapted(kind, target_modules=targets)
    model.get_base_model().config.save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match=message):
        export(model, tmp_path / "a.gguf", "gguf", base=tmp_path / "base")


def test_without_the_library_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"pip install 'qpa-hf\[gguf\]'"):
        export(lora()(), tmp_path / "a.gguf", "gguf")


def test_command_exports(tmp_path, monkeypatch):
    from qpa_hf_cli import main

    lora()().save_pretrained(tmp_path / "native")
    arguments = ["qpa", "export", str(tmp_path / "native"), str(tmp_path / "a"), "--to", "mlx"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    assert (tmp_path / "a" / "adapters.safetensors").is_file()

"""Arguments of another kind: one sentence names each, before anything is read or written."""

import pytest
from peft import get_peft_model
from torch import nn
from transformers import GPT2Config

from qpa_hf import QPAConfig, generate, initialize_basis, materialize, plan
from qpa_hf.hub import push
from qpa_hf.inspection import inspect

CONFIG = QPAConfig(target_modules=["0"], chunk_size=8, n_circuits=1)
CALLS = {
    "plan(config)": lambda _: plan(5, GPT2Config()),
    "plan(model)": lambda _: plan(CONFIG, [1]),
    "plan(chunk_sizes)": lambda _: plan(CONFIG, GPT2Config(), "inf"),
    "materialize(path)": lambda place: materialize(place, 5),
    "materialize(adapter_name)": lambda place: materialize(place, place / "plain", []),
    "materialize(record)": lambda place: materialize(place, place / "plain", record="5"),
    "generate(names)": lambda _: generate(nn.Linear(2, 2), names=1),
    "generate(names), a list": lambda _: generate(nn.Linear(2, 2), names=[0]),
    "push(policy)": lambda place: push(place, "me/adapter", policy="20x", token=False),
    "initialize_basis(adapter_name)": lambda _: initialize_basis(
        get_peft_model(nn.Sequential(nn.Linear(64, 64)), CONFIG), [], adapter_name=[]
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_argument_of_another_kind_is_named(call, tmp_path):
    name = call.partition("(")[2].partition(")")[0]
    with pytest.raises(TypeError, match=rf"^`{name}`=.* is not allowed\. Pass .*\.$"):
        CALLS[call](tmp_path)
    assert not list(tmp_path.iterdir())


PATHS = {
    "a source": lambda path, place: materialize(path, place),
    "a target": lambda path, place: materialize(place, path),
    "a folder to inspect": lambda path, _: inspect(path),
    "a base model": lambda path, _: plan(CONFIG, path),
}


@pytest.mark.parametrize("path", ["a" * 5000, "nul\0"], ids=["too long", "with a NUL"])
@pytest.mark.parametrize("call", PATHS)
def test_what_can_be_no_path_is_refused_briefly(call, path, tmp_path):
    with pytest.raises(ValueError, match=r"^'.*is no path here \(.*\)\. Pass another one\.$") as refused:
        PATHS[call](path, tmp_path / "plain")
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("settings", [{}, {"r": 5}])
def test_a_variant_given_as_a_dictionary_is_refused_by_name(settings):
    if "monteclora_config" not in QPAConfig.__dataclass_fields__:
        pytest.skip("this version of peft has no MonteCLoRA")
    with pytest.raises(ValueError, match="^`monteclora_config` is not possible with QPA"):
        QPAConfig(target_modules=["0"], monteclora_config=settings)

"""A setting is declared once: one that is added from outside is found wherever settings are read."""

import inspect as python_inspect
from dataclasses import asdict, dataclass, fields

import pytest
from models import build
from peft import LoraConfig, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn

from qpa_hf import QPAConfig, generate
from qpa_hf.generator import GeneratorSettings, GeneratorSpec, documented, setting, settings_in
from qpa_hf.inspection import inspect
from qpa_hf.messages import truth_value
from qpa_hf.model_cards import make_card

LORA = {"target_modules": ["q_proj"], "r": 2, "chunk_size": 8, "n_circuits": 1, "circuit_depth": 1}


@documented
@dataclass
class Wider(QPAConfig):
    """A configuration with one setting more.

    Args:
        {settings}
    """

    is_tested: bool = setting(False, "Whether a test has added this. It does nothing.", truth_value, label="tested")


@pytest.fixture
def wider(monkeypatch):
    monkeypatch.setitem(PEFT_TYPE_TO_CONFIG_MAPPING, "QPA", Wider)
    return Wider(**LORA, is_tested=True)


def test_added_setting_is_checked():
    with pytest.raises(TypeError, match="`is_tested`='x' is not a truth value"):
        Wider(is_tested="x")


@pytest.mark.parametrize("indent", ["    ", "        "], ids=["Python 3.13", "before"])
def test_added_setting_is_in_the_help(indent):
    heir = type("Heir", (Wider,), {"__doc__": f"A configuration.\n\nArgs:\n{indent}{{settings}}\n"})
    entry = "is_tested (`bool`, *optional*, defaults to `False`): Whether a test has added this. It does nothing."
    assert documented(heir).__doc__.splitlines()[-1] == indent + entry


def test_added_setting_is_saved_and_inspected(wider, tmp_path):
    get_peft_model(build("llama"), wider).save_pretrained(tmp_path)
    assert inspect(tmp_path)["tested"] is True


def test_added_setting_is_in_the_card(wider):
    wider.layout = [["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", [2, 16], None]]
    assert "| tested | True |" in str(make_card("native", wider))


def test_help_has_every_setting_with_its_full_text():
    words = " ".join(python_inspect.getdoc(QPAConfig).split())
    assert not [name for name, declared in settings_in(QPAConfig).items() if f"): {declared.help}" not in words]


def test_configuration_and_sizes_repeat_no_setting():
    own = {f.name: f for f in fields(GeneratorSettings)}
    for heir in (QPAConfig, GeneratorSpec):
        assert all(f.metadata is own[f.name].metadata for f in fields(heir) if f.name in own)
        assert not own.keys() & heir.__dict__.get("__annotations__", {}).keys()


def test_any_module_is_generated_without_a_configuration_of_lora(monkeypatch):
    monkeypatch.setattr(LoraConfig, "__post_init__", lambda self: pytest.fail("a LoRA configuration was built"))
    generate(nn.Linear(100, 10), chunk_size=64, n_circuits=2, circuit_depth=2)


def test_settings_without_lora_are_those_of_a_configuration():
    chosen = {"source": "free", "shots": None, "mapping_widths": [4], "activation": "relu", "init_seed": 3}
    config = QPAConfig(**chosen)
    assert asdict(GeneratorSettings(**chosen)) == {name: getattr(config, name) for name in asdict(GeneratorSettings())}

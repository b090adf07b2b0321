"""`generate` on every PEFT method: which tensors, which bits elsewhere, and which methods are refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from methods import CASES, REFUSED, answer, experts, inputs_of, make
from models import build
from modules import SETTINGS
from peft import PeftModel
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file

from qpa_hf import generate, load_generated, materialize
from qpa_hf.inspection import inspect
from qpa_hf.models import bank_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
    pytest.mark.filterwarnings("ignore:`chunk_size`=8 is more than:UserWarning"),
]
OURS = {"QPA", "BOTTLENECK", "GENERATED"}
# What PEFT saves of a projection is computed for one sequence, and while training for a batch: other bits, also there.
ROUNDED = ("PREFIX_TUNING, projection", "P_TUNING, LSTM")
each = pytest.mark.parametrize("case", CASES)


def disturbed(case):
    """Return a model whose generator, and whatever else is trained, has been moved away from its start."""
    model = generate(make(case), **SETTINGS)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return model


def value(model, case):
    with torch.no_grad():
        return answer(model, case)


def same(found, expected, case):
    if case in ROUNDED:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        return "same to 1e-6, as in PEFT itself"
    assert torch.equal(found, expected)
    return "same bits"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Every method materialized and saved, with the answers of the model and of a process without qpa_hf."""
    root = tmp_path_factory.mktemp("methods")
    expected, cases = {}, {}
    for case in CASES:
        model = disturbed(case)
        expected[case] = value(model, case)
        model.save_pretrained(root / "native" / case)
        cases[case] = (CASES[case][0], str(materialize(model, root / case)), inputs_of(case))
        materialize(model).save_pretrained(root / "peft" / case)
    (root / "cases.json").write_text(json.dumps(cases))
    tests = Path(__file__).parents[1]
    command = [sys.executable, str(tests / "load_plain.py"), str(root / "cases.json"), str(root / "answers.pt")]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(tests)})
    return root, expected, torch.load(root / "answers.pt")


def test_every_method_of_peft_works_or_is_refused():
    known = {case.partition(",")[0] for case in (*CASES, *REFUSED)}
    assert known == {kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING if kind not in OURS}


@each
def test_nothing_changes_at_step_0_and_every_number_has_a_gradient(case):
    plain = make(case)
    model = generate(make(case), **SETTINGS)
    assert torch.equal(value(model, case), value(plain, case))
    model = disturbed(case)
    answer(model, case).square().sum().backward()
    for parameter in bank_of(model).generator.parameters():
        assert parameter.grad.abs().sum() > 0


@each
def test_materialized_method_gives_the_same_bits_in_a_fresh_process(case, exported, table):
    root, expected, answers = exported
    model = generate(make(case), **SETTINGS)
    spec = bank_of(model).generator.spec
    verdict = same(answers[case], expected[case], case)
    table[case] = (f"{spec.n_values:,}", f"{spec.n_trainable:,}", verdict)
    assert "Nothing but peft is needed" in (root / case / "README.md").read_text()


@each
def test_materialized_checkpoint_is_what_peft_saves(case, exported):
    root, _, _ = exported
    ours, theirs = (load_file(folder / case / "adapter_model.safetensors") for folder in (root, root / "peft"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    ours, theirs = (json.loads((f / case / "adapter_config.json").read_text()) for f in (root, root / "peft"))
    for config in (ours, theirs):
        config["target_modules"] = sorted(config.get("target_modules") or [])  # a set, in any order
        config["base_model_name_or_path"] = config["base_model_name_or_path"] or None  # "" in older versions
    assert ours == theirs


@each
def test_saved_generator_loads_again(case, exported):
    root, expected, _ = exported
    torch.manual_seed(99)  # nothing may be drawn anew
    loaded = load_generated(build(CASES[case][0]), root / "native" / case)
    assert torch.equal(value(loaded, case), expected[case])


@pytest.mark.parametrize("case", REFUSED)
def test_refused_method_says_why(case, tmp_path, table):
    model = experts(tmp_path) if case == "XLORA" else make(case)
    with pytest.raises(ValueError, match=REFUSED[case][2]) as refusal:
        generate(model, **SETTINGS)
    table[case] = ("", "", f"refused: {str(refusal.value).partition(', because ')[2]}")


@pytest.mark.parametrize("case", ["IA3, classifier", "PROMPT_TUNING, classifier"])
def test_classifiers_head_is_trained_as_it_is(case):
    model = generate(make(case), **SETTINGS)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("modules_to_save" in name for name in trained)
    assert all("modules_to_save" in name or name.startswith("qpa_generator.") for name in trained)


def test_head_is_generated_if_named():
    model = make("IA3, classifier")
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    trained = {n for n, p in generate(model, names, **SETTINGS).named_parameters() if p.requires_grad}
    assert all(name.startswith("qpa_generator.") for name in trained)


def test_native_form_is_smaller_and_stops_plain_peft(tmp_path):
    model = generate(make("LOHA"), chunk_size=64, n_circuits=1, circuit_depth=2, save_init=False)
    model.save_pretrained(tmp_path / "native")
    materialize(model, tmp_path / "plain")
    native, plain = (load_file(tmp_path / f / "adapter_model.safetensors") for f in ("native", "plain"))
    assert sum(t.numel() for t in native.values()) < 0.5 * sum(t.numel() for t in plain.values())
    with pytest.raises(ValueError, match=r"LOHA adapter are generated.* Use `qpa_hf.load_generated\(base, folder\)`"):
        PeftModel.from_pretrained(build("llama"), tmp_path / "native")


def test_second_adapter_is_saved_as_peft_does(tmp_path):
    model = disturbed("IA3")
    model.add_adapter("b", PEFT_TYPE_TO_CONFIG_MAPPING["IA3"](**CASES["IA3"][1]))
    expected = value(model, "IA3")
    model.save_pretrained(tmp_path)
    assert torch.equal(value(model, "IA3"), expected)
    assert "base_model.model.model.layers.0.self_attn.v_proj.ia3_l" in load_file(
        tmp_path / "b/adapter_model.safetensors"
    )
    assert torch.equal(value(load_generated(build("llama"), tmp_path), "IA3"), expected)


def test_generator_of_another_method_is_refused(tmp_path):
    disturbed("IA3").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="generates other tensors than this model"):
        disturbed("VERA").load_adapter(tmp_path, "default")


def test_initial_values_that_were_not_saved_are_not_drawn_anew(tmp_path):
    generate(make("LORA"), save_init=False, **SETTINGS).save_pretrained(tmp_path)
    torch.manual_seed(99)
    with pytest.raises(RuntimeError, match="trained on other initial values"):
        load_generated(build("llama"), tmp_path)


def test_plain_adapter_is_no_generator(tmp_path):
    make("IA3").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds no adapter with a generator"):
        load_generated(build("llama"), tmp_path)


def test_base_models_weights_are_no_part_of_an_adapter():
    with pytest.raises(ValueError, match="is not trained by the adapter"):
        generate(make("IA3"), "base_model.model.lm_head", **SETTINGS)


def test_other_settings_are_noticed_when_loading(tmp_path):
    disturbed("IA3").save_pretrained(tmp_path)
    other = generate(make("IA3"), **SETTINGS | {"ansatz": "rx_cnot"})
    with pytest.raises(ValueError, match="was trained with `ansatz`='ry_cnot', but this model's generator has 'rx_"):
        other.load_adapter(tmp_path, "default")


def test_numbers_that_are_missing_are_noticed_when_loading(tmp_path):
    disturbed("IA3").save_pretrained(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    first = next(name for name in sorted(weights) if name.startswith("qpa_generator."))
    save_file({name: t for name, t in weights.items() if name != first}, tmp_path / "adapter_model.safetensors")
    base = build("llama")
    before = [type(module) for module in base.modules()]
    with pytest.raises(ValueError, match=f"lacks {first}"):
        load_generated(base, tmp_path)
    assert [type(module) for module in base.modules()] == before


def test_a_generator_is_not_overwritten_by_what_it_generates(tmp_path):
    model = disturbed("IA3")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a native checkpoint, which would be overwritten"):
        materialize(model, tmp_path)
    with pytest.raises(ValueError, match="load_generated"):
        materialize(tmp_path, tmp_path / "plain")


def test_materialized_adapter_is_inspected(tmp_path):
    materialize(disturbed("IA3"), tmp_path)
    found = inspect(tmp_path)
    assert (found["form"], found["method"], found["numbers"]) == ("materialized", "IA3", 64)


def test_several_active_adapters_are_refused():
    model = make("LORA")
    model.add_adapter("b", PEFT_TYPE_TO_CONFIG_MAPPING["LORA"](**CASES["LORA"][1]))
    model.base_model.set_adapter(["default", "b"])
    with pytest.raises(ValueError, match="one generator serves one"):
        generate(model)

"""Where PEFT and transformers ask for LoRA by name: every place is known, and does for QPA what it does for LoRA."""

import ast
import copy
import re
from pathlib import Path

import peft
import pytest
import torch
import transformers
from experts import EXPERTS, build
from helpers import adapted, logits
from models import inputs
from peft import LoraConfig, PeftModel, get_peft_model

from qpa_hf import QPAConfig, initialize_basis, materialize

# Each place of the supported versions (peft 0.18.1 to 0.21.2), and why it is right for QPA.
PLACES = {
    "peft/helpers.py MontecloraTrainerMixin.compute_loss": "a QPAModel is a LoraModel",
    "peft/mapping_func.py get_peft_model": "warns of EVA, which QPAConfig refuses",
    "peft/optimizers/lorafa.py LoraFAOptimizer.step": "refused by name",
    "peft/optimizers/lorafa.py create_lorafa_optimizer": "its optimizer is refused by name",
    "peft/optimizers/lorafa.py create_lorafa_optimizer.get_scaling_factor": "its optimizer is refused by name",
    "peft/optimizers/loraplus.py create_loraplus_optimizer": "gives the biases the other rate: a listed limit",
    "peft/optimizers/riemannian.py _collect_lora_pairs": "finds no pairs, and says so",
    "peft/peft_model.py PeftModel._get_peft_specific_model_tags": "our card has tags of its own",
    "peft/peft_model.py PeftModel.save_pretrained": "QPAModel._convert_state_dict_for_initial_model refuses",
    "peft/peft_model.py PeftModel.save_pretrained.save_mutated_as_lora": "refused: QPA mutates no weights",
    "peft/tuners/lora/conversion.py convert_to_lora": "warns LoRA that it is LoRA",
    "peft/tuners/lora/intruders.py reduce_intruder_dimension": "says that it is for LoRA alone",
    "peft/tuners/mixed/model.py": "PeftMixedModel is refused by name",
    "peft/tuners/mixed/model.py MixedModel._create_and_replace": "PeftMixedModel is refused by name",
    "peft/tuners/mixed/model.py MixedModel._create_new_module": "PeftMixedModel is refused by name",
    "peft/tuners/tuners_utils.py _check_lora_target_modules_mamba": "QPAModel asks for a LoRA",
    "peft/utils/hotswap.py": "refuses by name",
    "peft/utils/hotswap.py hotswap_adapter_from_state_dict": "refused before",
    "peft/utils/save_and_load.py _validate_lora_adapter_state_dict": "there are no factors to validate",
    "peft/utils/save_and_load.py get_peft_model_state_dict": "saves biases for LoRA alone up to 0.20: refused",
    "peft/utils/save_and_load.py set_peft_model_state_dict": "renames DoRA's magnitudes, which are generated",
    "peft/utils/transformers_weight_conversion.py build_peft_weight_mapping": "renames factors, which are generated",
    "peft/utils/transformers_weight_conversion.py convert_peft_adapter_state_dict_for_transformers": "the same",
    "peft/utils/transformers_weight_conversion.py convert_peft_config_for_transformers": "`translate_experts` asks it",
    "transformers/integrations/peft.py PeftAdapterMixin.load_adapter": "is refused by name before",
}
OTHER_METHODS = re.compile(r"peft/tuners/(?!lora/|mixed/|tuners_utils)")


def _is_type(node):
    return getattr(node, "attr", getattr(node, "value", None)) == "LORA"


def _is_name(node):
    """Whether this is a part of a Parameter's name."""
    value = getattr(node, "value", None)
    return isinstance(value, str) and re.fullmatch(r"\.?lora(_\w*)?\.?", value) is not None


def _decides(node, has_names):
    if isinstance(node, ast.Compare):
        parts = [inner for part in (node.left, *node.comparators) for inner in ast.walk(part)]
        return any(_is_type(part) or (has_names and _is_name(part)) for part in parts)
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return any(map(_is_type, node.elts))
    if isinstance(node, ast.Dict):
        return any(map(_is_type, node.keys))
    if isinstance(node, ast.Subscript):
        return _is_type(node.slice)
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
        named = {getattr(inner, "id", getattr(inner, "attr", "")) for inner in ast.walk(node.args[1])}
        return bool(named & {"LoraConfig", "LoraModel"})
    return False


def _places(package):
    root = Path(package.__file__).parent
    for path in root.rglob("*.py"):
        name, text = path.relative_to(root.parent).as_posix(), path.read_text(encoding="utf-8")
        if OTHER_METHODS.match(name) or not re.search("lora", text, re.IGNORECASE):
            continue
        has_names = not name.startswith("peft/tuners/")  # which go by names of Parameters that they have made
        nodes = [(ast.parse(text), "")]
        while nodes:
            node, scope = nodes.pop()
            if _decides(node, has_names):
                yield f"{name} {scope}".strip()
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                scope = f"{scope}.{node.name}".strip(".")
            nodes += [(child, scope) for child in ast.iter_child_nodes(node)]


@pytest.mark.parametrize("package", [peft, transformers])
def test_every_place_that_asks_for_lora_by_name_is_known(package):
    assert set(_places(package)) - PLACES.keys() == set()


TARGETS = ["q_proj", *EXPERTS]
# PEFT looks for the rank that it has itself set for the experts, among the modules alone.
peft_warns = pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys did not match:RuntimeWarning")


@peft_warns
@pytest.mark.parametrize("targets", [TARGETS, r".*\.(q_proj|gate_proj|up_proj|down_proj)", "all-linear"])
def test_experts_are_adapted_as_by_lora(targets):
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=copy.copy(targets))
    names = [name for name, _ in get_peft_model(build(), lora).named_parameters() if "lora_" in name]
    qpa = QPAConfig(r=2, lora_alpha=4, target_modules=copy.copy(targets), chunk_size=32, circuit_depth=2)
    model = get_peft_model(build(), qpa)
    assert {slot[0] for slot in qpa.layout} == {name.replace(".default", "") for name in names}
    assert any("experts" in name for name in names)
    for field in ("target_modules", "target_parameters", "rank_pattern", "alpha_pattern"):
        assert getattr(qpa, field) == getattr(lora, field)
    assert all("lora_qpa" in name for name, p in model.named_parameters() if p.requires_grad)


@peft_warns
def test_adapted_experts_are_saved_loaded_and_materialized(tmp_path):
    config = QPAConfig(r=2, target_modules=TARGETS, chunk_size=32, circuit_depth=2, task_type="CAUSAL_LM")
    model = get_peft_model(build(), config).eval()
    with torch.no_grad():
        for parameter in model.base_model.lora_qpa["default"].trained().values():
            parameter.add_(0.3)
    seen = logits(model, "llama")
    assert not torch.equal(seen, build()(**inputs("llama")).logits)
    model.save_pretrained(tmp_path / "native")
    materialize(model, tmp_path / "plain")
    for folder in ("native", "plain"):
        loaded = PeftModel.from_pretrained(build(), tmp_path / folder)
        assert torch.equal(logits(loaded, "llama"), seen)


@peft_warns
@pytest.mark.parametrize("targets", [TARGETS, "all-linear"])
def test_experts_by_their_old_names_have_gradient_bases(targets, tmp_path):
    config = QPAConfig(r=2, basis="gradient", source="direct", target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(build(), config).eval()
    initialize_basis(model, [inputs("llama")], loss=lambda model, batch: model(**batch).logits.square().mean())
    assert torch.equal(logits(model, "llama"), build()(**inputs("llama")).logits)
    with torch.no_grad():
        for parameter in model.base_model.lora_qpa["default"].trained().values():
            parameter.add_(0.3)
    model.save_pretrained(tmp_path / "native")
    loaded = PeftModel.from_pretrained(build(), tmp_path / "native")
    assert torch.equal(logits(loaded, "llama"), logits(model, "llama"))


def test_lora_fa_is_refused():
    from peft.optimizers import create_lorafa_optimizer

    model = adapted("llama", target_modules=["q_proj"], task_type="CAUSAL_LM")
    optimizer = create_lorafa_optimizer(model, r=4, lora_alpha=8, lr=1e-3)
    model(**inputs("llama")).logits.sum().backward()
    with pytest.raises(ValueError, match="LoRA-FA is not possible with QPA"):
        optimizer.step()


def test_loraplus_gives_the_other_rate_to_biases_alone():
    from peft.optimizers import create_loraplus_optimizer

    model = adapted("llama", target_modules=["q_proj"], task_type="CAUSAL_LM")
    optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16)
    names = {id(p): name.rpartition(".")[2] for name, p in model.named_parameters()}
    faster = {names[id(p)] for group in optimizer.param_groups if group["lr"] > 1e-3 for p in group["params"]}
    assert faster == {"b0"}

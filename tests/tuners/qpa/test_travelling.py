"""An adapter is its named parameters, to much code that copies and saves it."""

import copy
import pickle

import pytest
import torch
from helpers import adapted, disturb, logits, trainable
from models import build, inputs
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from qpa_hf import QPAConfig, materialize, refresh_basis

FILE = "adapter_model.safetensors"
LAYERS = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
GRADIENT = {"basis": "gradient", "r": 4, "chunk_size": 4}
STAGES = GRADIENT | {"n_stages": 2, "chunk_size": 2, "n_circuits": 1}


def squares(model, batch):
    return model(**batch).logits.square().mean()


def staged():
    """Return an adapter in the second of its stages."""
    model = adapted("llama", **LAYERS, **STAGES)
    refresh_basis(model, [inputs("llama")], loss=squares)
    disturb(model)
    return model


def measured(**settings):
    """Return an adapter whose circuits have been measured in three steps of training."""
    model = adapted("llama", **LAYERS, shots=100, **settings).train()
    for _ in range(3):
        squares(model, inputs("llama")).backward()
        disturb(model)
    return model.eval()


def thawed(folder):
    """Return an adapter whose angles were trained and are frozen since."""
    adapted("llama", **LAYERS).save_pretrained(folder)
    config = QPAConfig.from_pretrained(folder)
    config.train_circuit = False
    return PeftModel.from_pretrained(build("llama"), folder, config=config, is_trainable=True)


CASES = {
    "circuits": lambda _: adapted("llama", **LAYERS),
    "gradient": lambda _: adapted("llama", **LAYERS, **GRADIENT),
    "gradient, DoRA": lambda _: adapted("llama", **LAYERS, **GRADIENT, use_dora=True),
    "stages": lambda _: staged(),
    "random": lambda _: adapted("llama", **LAYERS, source="random"),
    "free": lambda _: adapted("llama", **LAYERS, source="free"),
    "direct": lambda _: adapted("llama", **LAYERS, source="direct"),
    "DoRA": lambda _: adapted("llama", **LAYERS, use_dora=True),
    "shots": lambda _: measured(),
    "shots, network": lambda _: measured(interpolation="network"),
    "rebuilt initialisation": lambda _: adapted("llama", **LAYERS, save_init=False),
    "authors": lambda _: adapted("llama", **LAYERS, start="authors", use_dora=True),
    "frozen circuit": thawed,
}
each_case = pytest.mark.parametrize("make", CASES.values(), ids=CASES)


def tensors(model, name="default"):
    return model.base_model.generated_tensors(name)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def copied_by_name(model):
    """Make a reference policy as TRL does."""
    for name, parameter in model.named_parameters():
        if ".default." in name:
            model.get_parameter(name.replace(".default.", ".ref.")).data.copy_(parameter.data)


@each_case
def test_an_adapter_copied_by_its_parameters_is_the_same(make, tmp_path):
    model = make(tmp_path)
    expected, seen = tensors(model), logits(model, "llama")
    model.add_adapter("ref", model.peft_config["default"])
    copied_by_name(model)
    assert same(tensors(model, "ref"), expected)
    model.set_adapter("ref")
    assert torch.equal(logits(model, "llama"), seen)


def test_a_copy_follows_its_original_into_another_stage():
    model = adapted("llama", **LAYERS, **STAGES)
    model.add_adapter("ref", model.peft_config["default"])
    copied_by_name(model)
    assert same(tensors(model, "ref"), tensors(model))
    refresh_basis(model, [inputs("llama")], loss=squares)
    disturb(model)
    copied_by_name(model)
    assert same(tensors(model, "ref"), tensors(model))
    model.set_adapter("ref")
    output = model(**inputs("llama")).logits
    assert output.requires_grad
    assert torch.equal(output, logits(model, "llama"))


def test_a_copy_keeps_what_it_was_when_its_original_is_trained_on():
    model = measured()
    model.add_adapter("ref", model.peft_config["default"])
    copied_by_name(model)
    before = tensors(model, "ref")
    model.train()
    squares(model, inputs("llama")).backward()
    disturb(model)
    assert same(tensors(model, "ref"), before)
    assert not same(tensors(model), before)


def parameters_only(model):
    return {name: p for name, p in model.named_parameters() if "lora_" in name}


def trained_only(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def saved_with(choose):
    return lambda model, folder: model.save_pretrained(folder, state_dict=choose(model))


def saved_by_hand(choose):
    def save(model, folder):
        state = get_peft_model_state_dict(model, state_dict=choose(model) if choose else None)
        folder.mkdir()
        save_file({key: value.detach().clone() for key, value in state.items()}, folder / FILE)
        model.peft_config["default"].save_pretrained(folder)

    return save


SAVES = {
    "parameters": saved_with(parameters_only),
    "trained": saved_with(trained_only),
    "state dict": saved_with(lambda model: model.state_dict()),
    "by hand": saved_by_hand(None),
    "parameters by hand": saved_by_hand(parameters_only),
    "not safetensors": lambda model, folder: model.save_pretrained(
        folder, state_dict=trained_only(model), safe_serialization=False
    ),
}


def is_whole(model, save):
    """Whether what is saved is enough: of circuits that are measured, the draw is no Parameter."""
    generator = model.base_model.lora_qpa["default"]
    if save in (SAVES["state dict"], SAVES["by hand"]):
        return True
    if save in (SAVES["parameters"], SAVES["parameters by hand"]):
        return not hasattr(generator, "draw")
    return set(generator.saved_tensors()) == set(generator.trained())


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
@each_case
def test_a_folder_is_the_adapter_or_is_refused_when_it_is_saved(make, save, tmp_path):
    model = make(tmp_path / "before")
    expected = tensors(model)
    if not is_whole(model, save):
        with pytest.raises(ValueError, match="`state_dict` lacks"):
            save(model, tmp_path / "saved")
        return
    save(model, tmp_path / "saved")
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path / "saved")
    assert same(tensors(loaded), expected)
    if (tmp_path / "saved" / FILE).is_file():
        found = load_file(materialize(tmp_path / "saved", tmp_path / "plain") / FILE)
        assert same(found, expected)


@pytest.mark.parametrize("name", ["circuits", "gradient", "stages", "DoRA"])
def test_parameters_alone_are_enough_to_save(name, tmp_path):
    SAVES["parameters"](CASES[name](tmp_path), tmp_path / "saved")


def test_a_part_of_a_checkpoint_is_refused_where_there_was_nothing(tmp_path):
    model = adapted("llama", **LAYERS, **GRADIENT)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / FILE)
    save_file({k: v for k, v in weights.items() if "basis" not in k}, tmp_path / FILE)
    with pytest.raises(ValueError, match=r"do not fit its adapter_config\.json: basis is missing"):
        PeftModel.from_pretrained(build("llama"), tmp_path)


def test_a_configuration_that_peft_read_is_of_a_checkpoint_too(tmp_path):
    adapted("llama", **LAYERS, **GRADIENT).save_pretrained(tmp_path)
    model = get_peft_model(build("llama"), PeftConfig.from_pretrained(tmp_path))
    weights = {k.replace("lora_qpa.", "lora_qpa.default."): v for k, v in load_file(tmp_path / FILE).items()}
    del weights["base_model.lora_qpa.default.basis"]
    with pytest.raises(ValueError, match="lacks base_model.lora_qpa.default.basis"):
        model.load_state_dict(weights, strict=False)


@each_case
def test_trained_parameters_alone_can_be_put_back(make, tmp_path):
    model = make(tmp_path)
    expected = tensors(model)
    kept = {name: p.detach().clone() for name, p in trained_only(model).items()}
    disturb(model, seed=5)
    assert not same(tensors(model), expected)
    model.load_state_dict(kept, strict=False)
    assert same(tensors(model), expected)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@each_case
def test_copies_are_the_same(make, duplicate, tmp_path):
    model = make(tmp_path)
    other = duplicate(model)
    assert same(tensors(other), tensors(model))
    assert [p.requires_grad for p in other.parameters()] == [p.requires_grad for p in model.parameters()]


def test_frozen_numbers_stay_even_if_all_are_to_be_trained():
    model = adapted("llama", **LAYERS, **GRADIENT)
    for _, parameter in parameters_only(model).items():
        parameter.requires_grad_(True)
    squares(model, inputs("llama")).backward()
    assert model.base_model.lora_qpa["default"].basis.grad is None
    assert all(p.grad is not None for p in trainable(model))


def test_only_what_can_be_trained_is_counted():
    model = get_peft_model(build("llama"), QPAConfig(**LAYERS, **GRADIENT))
    spec = model.base_model.lora_qpa["default"].spec
    assert model.get_nb_trainable_parameters()[0] == spec.n_trainable
    model.set_adapter("default")
    assert model.get_nb_trainable_parameters()[0] == spec.n_trainable


def test_a_stage_saved_as_a_scalar_is_read(tmp_path):
    model = staged()
    model.save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / FILE
    save_file({k: v.reshape(()) if k.endswith("stage") else v for k, v in load_file(file).items()}, file)
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path / "saved")
    assert same(tensors(loaded), tensors(model))
    materialize(tmp_path / "saved", tmp_path / "plain")


def test_a_new_adapter_of_the_same_settings_starts_anew():
    model = measured()
    config = QPAConfig(**LAYERS, r=4, shots=100, chunk_size=32, n_circuits=2, circuit_depth=2)
    model.add_adapter("third", config)
    assert int(model.base_model.lora_qpa["third"].draw) == 0

"""No file acts: whatever an adapter's files say, nothing is submitted to a device and no folder is made for one."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from entries import LOADED, NATIVE, command
from peft import PeftConfig, PeftModel, get_peft_config
from safetensors.torch import load_file, save_file
from stand_in import DEVICE, TOKENS, answer, base, edit, generated, measure, native, settings_of

from qpa_hf import QPAConfig, load_generated, materialize, plan
from qpa_hf.hub import load, push
from qpa_hf.inspection import inspect
from qpa_hf.tuners.qpa.machine import MACHINE

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
FORMS = {"native": native, "generated": generated}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Adapters by form, saved once: what the device measured is with them, in "exact" there was none."""
    root = tmp_path_factory.mktemp("saved")
    answers = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qpa_hf.measurement.device.sample", measure)
        patch.setattr("qpa_hf.generator.checks.require_extra", lambda name: None)
        for form, make in FORMS.items():
            answers[form] = make(root / form, **DEVICE, device_folder=str(root / "jobs"), max_jobs=9)
            make(root / f"{form} exact")
    return root, answers


class Scene:
    """Adapters of an attacker, and a device that notes each touch."""

    def __init__(self, root, answers, place, touched):
        self.answers, self.place, self.touched = answers, place, touched
        self.adapters = place / "adapters"
        shutil.copytree(root, self.adapters)
        evil = {"backend": "ibm", "device": "ibm_brisbane", "shots": 10**8, "device_folder": str(place / "jobs")}
        for folder in self.adapters.iterdir():
            edit(folder, **evil, max_jobs=None, max_shots=None)

    def forget(self, form):
        """Let an adapter belong to other angles than those that were measured."""
        path = self.adapters / form / "adapter_model.safetensors"
        weights = load_file(path)
        (angles,) = (name for name in weights if name.endswith(".angles"))
        save_file(weights | {angles: weights[angles] + 0.1}, path, metadata={"format": "pt"})

    def is_untouched(self):
        return not self.touched and not (self.place / "jobs").exists() and not (self.place / "device-jobs").exists()


@pytest.fixture
def scene(saved, tmp_path, monkeypatch):
    touched = []

    def touch(*args, **kwargs):
        touched.append(args)
        raise AssertionError("a device was touched")

    for name in ("sample", "sampling.find_machine", "sampling.Ledger", "machines._connect"):
        monkeypatch.setattr(f"qpa_hf.measurement.device.{name}", touch)
    monkeypatch.setattr("qpa_hf.hub.loading.download", lambda repo, **kwargs: repo)
    monkeypatch.setattr("qpa_hf.hub.upload.Repository", Repository)
    monkeypatch.chdir(tmp_path)
    return Scene(*saved, tmp_path, touched)


class Repository:
    """A stand-in for the Hub's."""

    token = None

    def __init__(self, *args):
        pass

    def create(self, private):
        pass

    def commit(self, files, *args):
        return SimpleNamespace(oid="0", pr_url=None, commit_url="there")


ENTRIES = [("native", name) for name in NATIVE] + [("generated", name) for name in LOADED]
every_entry = pytest.mark.parametrize(("form", "name"), ENTRIES, ids=lambda word: word.replace(" ", "-"))


def use(form, name, folder):
    """Use an adapter; return what its model answers, None if there is no model."""
    model = (NATIVE if form == "native" else LOADED)[name](folder)
    return None if model is None else answer(model)


@every_entry
def test_a_loaded_adapter_has_what_was_measured(form, name, scene):
    found = use(form, name, scene.adapters / form)
    assert found is None or torch.allclose(found, scene.answers[form], atol=5e-2)
    assert scene.is_untouched()


@every_entry
def test_an_adapter_of_other_angles_says_what_to_do(form, name, scene):
    scene.forget(form)
    with pytest.raises(RuntimeError, match=r"^The adapter has no probabilities .*Name yours in this process[^\n]*$"):
        use(form, name, scene.adapters / form)
    assert scene.is_untouched()


@every_entry
def test_an_ordinary_adapter_whose_configuration_was_edited_does_nothing(form, name, scene):
    with pytest.raises((RuntimeError, ValueError), match="Name yours in this process|Save or download") as error:
        use(form, name, scene.adapters / f"{form} exact")
    assert "\n" not in str(error.value)
    assert scene.is_untouched()


LOOKS = {
    "PeftConfig": lambda folder: PeftConfig.from_pretrained(folder).device,
    "QPAConfig": lambda folder: QPAConfig.from_pretrained(folder).device,
    "get_peft_config": lambda folder: get_peft_config(json.loads((folder / "adapter_config.json").read_text())).device,
    "inspect": lambda folder: inspect(folder) and None,
    "qpa inspect": lambda folder: command("inspect", folder),
    "push": lambda folder: push(folder, "somebody/something") and None,
    "qpa push": lambda folder: command("push", folder, "somebody/something"),
}


@pytest.mark.parametrize("name", LOOKS)
def test_who_only_looks_finds_no_device(name, scene):
    assert LOOKS[name](scene.adapters / "native") is None
    assert scene.is_untouched()


def test_a_plan_from_a_file_has_the_limits_of_a_device(scene):
    config = QPAConfig.from_pretrained(scene.adapters / "native")
    with pytest.raises(ValueError, match="100,000,000 shots of a circuit are more than the 100,000"):
        plan(config, base())
    config.shots = 50
    assert plan(config, base()).rows[0].measuring.jobs_per_step == 1
    assert scene.is_untouched()


def test_a_file_without_a_layout_has_no_device_either(scene):
    edit(scene.adapters / "native", layout=None)
    assert PeftConfig.from_pretrained(scene.adapters / "native").device is None
    with pytest.raises(ValueError, match="has no `layout`"):
        materialize(scene.adapters / "native", scene.place / "plain")
    assert scene.is_untouched()


@pytest.mark.parametrize("device", ["ibm_'; rm", "torino", 5, ["ibm_torino"], "ibm_a\nb"])
def test_a_device_that_is_no_name_is_refused_in_a_file(device, scene):
    edit(scene.adapters / "native", device=device)
    with pytest.raises(ValueError, match="`(measured_by|device)`=.* is not (known|allowed)"):
        PeftModel.from_pretrained(base(), scene.adapters / "native")


def trained_native(folder):
    return PeftModel.from_pretrained(base(), folder, is_trainable=True)


def trained_generated(folder):
    return load_generated(base(), folder, is_trainable=True)


@pytest.mark.parametrize(("form", "load"), [("native", trained_native), ("generated", trained_generated)])
def test_training_a_loaded_adapter_asks_for_a_device_and_changes_nothing(form, load, scene):
    model = load(scene.adapters / form)
    with pytest.raises(RuntimeError, match=r"^Training measures the circuits on a device.*Name yours"):
        model.train()(input_ids=TOKENS)
    assert torch.equal(answer(model), scene.answers[form])
    assert scene.is_untouched()


GIVEN = {"device": "ibm_fez", "device_folder": "mine", "max_jobs": 3, "max_shots": 10_000}


def native_with(folder):
    return PeftModel.from_pretrained(base(), folder, config=QPAConfig.from_pretrained(folder, **GIVEN))


def generated_with(folder):
    return load_generated(base(), folder, **GIVEN)


@pytest.mark.parametrize(("form", "load"), [("native", native_with), ("generated", generated_with)])
def test_a_device_given_in_this_process_measures(form, load, scene, monkeypatch):
    asked = []

    def note(angles, ansatz, shots, device, folder, **limits):
        asked.append((device, folder, limits["max_jobs"], limits["max_shots"], shots))
        return measure(angles, ansatz, shots, device, folder, limits["seed"])

    monkeypatch.setattr("qpa_hf.measurement.device.sample", note)
    monkeypatch.setattr("qpa_hf.generator.checks.require_extra", lambda name: None)
    scene.forget(form)
    edit(scene.adapters / form, shots=50)
    model = load(scene.adapters / form)
    answer(model)
    assert asked == [("ibm_fez", "mine", 3, 10_000, 50)]
    model.save_pretrained(scene.place / "again")
    settings = settings_of(scene.place / "again")
    assert settings["measured_by"] == "ibm_fez"
    assert not settings.keys() & set(MACHINE)


def test_no_file_names_what_belongs_to_a_computer(saved):
    for form in FORMS:
        settings = settings_of(saved[0] / form)
        assert settings["measured_by"] == DEVICE["device"]
        assert not settings.keys() & set(MACHINE)


def test_only_a_setting_of_the_computer_is_given_beside_a_generated_folder(saved):
    with pytest.raises(TypeError, match="has no argument `shots`. Use device, device_folder, max_jobs, max_shots"):
        load_generated(base(), saved[0] / "generated", shots=5)


def test_a_bad_limit_beside_a_file_is_refused(saved):
    with pytest.raises(ValueError, match="`max_jobs`=0 is not allowed"):
        QPAConfig.from_pretrained(saved[0] / "native", device="fake_torino", max_jobs=0)


@pytest.mark.parametrize("library", ["antigravity", "os", "transformers_evil", "evil.transformers"])
def test_no_file_chooses_what_is_imported(library, saved, tmp_path, monkeypatch):
    monkeypatch.setattr("qpa_hf.hub.loading.download", lambda repo, **kwargs: repo)
    shutil.copytree(saved[0] / "native exact", tmp_path / "adapter")
    edit(tmp_path / "adapter", task_type=None, auto_mapping={"base_model_class": "x", "parent_library": library})
    monkeypatch.setitem(sys.modules, library, None)  # importing it would raise ImportError
    with pytest.raises(ValueError, match="no file chooses what is imported here"):
        load(str(tmp_path / "adapter"))


PROMPT = {"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "num_virtual_tokens": 2}
BEYOND = {  # a method's settings that would read, fetch or import beyond the folder, and where it ends instead
    "a tokenizer": (
        PROMPT | {"prompt_tuning_init": "TEXT", "prompt_tuning_init_text": "x", "tokenizer_name_or_path": "evil/evil"},
        "matches no parameter",
    ),
    "a module": (
        {
            "peft_type": "LORA",
            "r": 2,
            "target_modules": ["c_attn"],
            "fan_in_fan_out": True,
            "megatron_config": {"a": 1},
        }
        | {"task_type": "CAUSAL_LM", "megatron_core": "antigravity"},
        "megatron|Megatron",
    ),
    "experts": ({"peft_type": "XLORA", "hidden_size": 8, "adapters": {"a": "evil/evil"}}, "XLORA cannot be generated"),
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_generated_folder_reads_nothing_beyond_itself(name, saved, tmp_path, monkeypatch):
    shutil.copytree(saved[0] / "generated exact", tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["method"], sentence = BEYOND[name]
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises((ValueError, ModuleNotFoundError), match=sentence):
        load_generated(base(), tmp_path / "adapter")

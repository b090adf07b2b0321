"""The card after Trainer has written its own: it still says how to load a generator, and a plain folder keeps ours."""

import ast
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from models import build
from peft import LoraConfig, PeftModel, get_peft_model
from trained import trainer

from qpa_hf import QPAConfig, materialize
from qpa_hf.model_cards import MARKER

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
QPA = {"r": 4, "chunk_size": 16, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}


def program(card):
    [first, *_] = re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    ast.parse(first)
    return first


def saved_then_card(training):
    training.save_model()
    training.create_model_card(model_name="run", dataset="texts")


def card_then_saved(training):
    training.create_model_card(model_name="run")
    training.save_model()


def twice(training):
    saved_then_card(training)
    saved_then_card(training)
    training.save_model()


def pushed(training):
    training.push_to_hub()


@pytest.fixture
def uploads(monkeypatch):
    """What `push_to_hub` would upload: the card at that moment."""
    seen = []

    class Api:
        def create_repo(self, name, **_):
            return type("Url", (), {"repo_id": f"alice/{name}"})

        def upload_folder(self, folder_path, **_):
            seen.append(Path(folder_path, "README.md").read_text(encoding="utf-8"))

    monkeypatch.setattr("transformers.trainer.hf_api", Api)
    return seen


@pytest.mark.parametrize("write", [saved_then_card, card_then_saved, twice, pushed])
def test_trainers_card_says_how_to_load_the_generator(write, tmp_path, uploads):
    training = trainer(tmp_path / "run", max_steps=1)
    training.train()
    write(training)
    text = (tmp_path / "run" / "README.md").read_text()
    assert uploads in ([], [text])
    assert text.count("## How to load") == 1
    assert "Training hyperparameters" in text
    assert program(text).startswith("import qpa_hf\n")
    assert "qpa" in ModelCard(text).data.tags
    reloaded = PeftModel.from_pretrained(build("llama"), tmp_path / "run")
    assert isinstance(reloaded.peft_config["default"], QPAConfig)


def test_an_adapter_of_another_name_is_loaded_from_its_folder(tmp_path):
    model = get_peft_model(build("llama"), QPAConfig(**QPA), adapter_name="task")
    saved_then_card(trainer(tmp_path / "run", model=model))
    assert 'PeftModel.from_pretrained(base, "path/to/this/folder/task")' in (tmp_path / "run/README.md").read_text()


def test_the_card_of_a_saved_generator_stays_ours(tmp_path):
    trainer(tmp_path).save_model()
    text = (tmp_path / "README.md").read_text()
    assert MARKER in text
    assert "How to load" not in text


def test_a_card_that_a_person_wrote_gets_nothing(tmp_path):
    (tmp_path / "README.md").write_text("My own words.\n")
    trainer(tmp_path).save_model()
    assert "import qpa_hf" not in (tmp_path / "README.md").read_text()


def test_plain_lora_and_the_plain_folder_are_left_alone(tmp_path):
    lora = LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    saved_then_card(trainer(tmp_path / "lora", model=get_peft_model(build("llama"), lora)))
    assert "qpa" not in (tmp_path / "lora" / "README.md").read_text()
    training = trainer(tmp_path / "run")
    materialize(training.model, tmp_path / "plain")
    before = (tmp_path / "plain" / "README.md").read_bytes()
    saved_then_card(training)
    assert (tmp_path / "plain" / "README.md").read_bytes() == before
    assert b"import qpa_hf" not in before

"""Cards of native and materialized adapters: what they say, and that their programs run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import adapted, disturb, logits
from huggingface_hub import ModelCard, ModelCardData
from models import build
from peft import LoraConfig, get_peft_model
from records import LM
from transformers import AutoModelForCausalLM

from qpa_hf import QPAConfig, materialize
from qpa_hf.model_cards import RunRecord, make_card

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft")


@pytest.mark.parametrize("kind", ["native", "materialized"])
def test_metadata_is_what_the_run_recorded(kind, saved):
    data = ModelCard.load(saved / kind / "README.md").data
    assert (data.library_name, data.license, data.datasets, data.language, data.pipeline_tag) == (
        "peft",
        "apache-2.0",
        ["wikitext"],
        ["en"],
        "text-generation",
    )
    results = [(r.metric_type, r.metric_value, r.dataset_name, r.dataset_split) for r in data.eval_results]
    assert results == [("perplexity", 23.5, "wikitext", "test")]  # the Hub refuses those without a set or a number


SAID = {
    "split": r"angles of the circuits \| 12 \|\n.*hidden layers \| 0 \|\n.*output layer \| 96 \|\n\| all \| 108 \|",
    "qubits": r"\| qubits \| 3 \|",
    "depth": r"\| depth \| 2 \|",
    "ansatz": r"\| ansatz \| ry_cnot \|",
    "backend and shots": r"\| backend \| exact \|\n\| shots \| none",
    "all results": r"\| Perplexity \| 23.5 \| wikitext \| test \|\n\| loss \| 3.25 \| not recorded \| not recorded \|",
    "control": r"Control \(random\): perplexity 24.25, against 23.5 here",
    "hyperparameters": r"\| learning_rate \| 0.01 \|\n\| seed \| 7 \|\n\| steps \| 160 \|",
    "versions": r"\| peft \| 0.21.2 \|",
    "citation": r"liu2025quantum",
}


@pytest.mark.parametrize("case", SAID)
@pytest.mark.parametrize("kind", ["native", "materialized"])
def test_text_says(case, kind, saved):
    assert re.search(SAID[case], (saved / kind / "README.md").read_text())


def test_card_without_a_record_claims_nothing(tmp_path):
    adapted("llama", **LM).save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    for sentence in ("No evaluation was recorded", "No control was recorded", "settings of the training were not"):
        assert sentence in text
    assert not re.search(r"More Information Needed|None|learning_rate|model-index|license:", text)


CONTROLS = {
    "random": ({"source": "random"}, 'is itself a control: `source="random"`'),
    "frozen": ({"train_circuit": False}, "is itself a control: its angles are not trained"),
}


@pytest.mark.parametrize("case", CONTROLS)
def test_a_control_says_that_it_is_one(case):
    settings, sentence = CONTROLS[case]
    config = adapted("llama", **LM, **settings).peft_config["default"]
    assert sentence in make_card("native", config).text


BASES = {
    "on the Hub": ("alice/llama", "alice/llama", '.from_pretrained("alice/llama")'),
    "on Windows": (r"C:\home\alice\llama", None, '.from_pretrained("path/to/llama")'),
    "in the Hub's cache": (
        f"/home/alice/.cache/huggingface/hub/models--alice--llama/snapshots/{'a1' * 20}",
        "alice/llama",
        '.from_pretrained("alice/llama")',
    ),
    "a folder": ("/home/alice/models/llama", None, '.from_pretrained("path/to/llama")'),
}


@pytest.mark.parametrize("case", BASES)
def test_base_model_is_a_hub_id_or_a_folder_without_its_parents(case):
    name, in_metadata, in_text = BASES[case]
    config = adapted("llama", **LM).peft_config["default"]
    config.base_model_name_or_path = name
    card = make_card("materialized", config)
    assert card.data.base_model == in_metadata
    assert in_text in card.text
    assert not re.search(r"alice[/\\]", str(card).replace("alice/llama", ""))


def test_a_recorded_base_model_is_named_for_one_in_a_folder():
    config = adapted("llama", **LM).peft_config["default"]
    config.base_model_name_or_path = "/home/alice/models/llama"
    card = make_card("native", config, RunRecord(base_model="alice/llama"))
    assert card.data.base_model == "alice/llama"
    assert '.from_pretrained("alice/llama")' in card.text


@pytest.mark.parametrize("name", ["/home/alice/llama", "two words", ""])
def test_a_recorded_base_model_is_a_hub_id(name):
    with pytest.raises(ValueError, match="`base_model`='.*' is no Hub id. Name it as owner/name"):
        RunRecord(base_model=name)


def test_program_loads_the_base_models_revision():
    config = adapted("llama", **LM).peft_config["default"]
    config.base_model_name_or_path, config.revision = "alice/llama", "v2"
    assert '.from_pretrained("alice/llama", revision="v2")' in make_card("materialized", config).text


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"modules_to_save": ["classifier", "score"]}, "`classifier`, `score`."),
        ({"bias": "all"}, "all biases."),
        ({"bias": "lora_only", "modules_to_save": ["score"]}, "`score`, the adapted layers' biases."),
        ({"trainable_token_indices": [1, 2, 3]}, "the embeddings of 3 tokens."),
        ({"trainable_token_indices": {"wte": [7], "lm_head": [7]}}, "the embeddings of 1 token."),
    ],
    ids=str,
)
def test_what_is_trained_beside_is_named(settings, named):
    config = adapted("llama", **LM).peft_config["default"]
    vars(config).update(settings)
    assert f"as far as the base model has them: {named}" in make_card("native", config).text


@pytest.mark.parametrize("kind", ["native", "materialized"])
def test_program_in_the_card_runs(kind, tmp_path):
    here = tmp_path / "path" / "to"
    build("llama").save_pretrained(here / "base")
    base = AutoModelForCausalLM.from_pretrained(here / "base")
    model = get_peft_model(base, QPAConfig(r=4, chunk_size=32, n_circuits=2, **LM)).eval()
    disturb(model)
    model.save_pretrained(tmp_path / "native")
    materialize(model, tmp_path / "materialized")
    (here / "this").mkdir()
    (here / "this" / "folder").symlink_to(tmp_path / kind)
    program = re.findall(r"```python\n(.*?)```", (tmp_path / kind / "README.md").read_text(), re.DOTALL)[0]
    block = "" if kind == "native" else "import sys; sys.modules['qpa_hf'] = None\n"
    show = "\nimport torch\nfrom models import output\ntorch.save(output(model, 'llama').detach(), 'logits.pt')"
    tests = Path(__file__).parents[1]
    env = os.environ | {"PYTHONPATH": str(tests)}
    subprocess.run([sys.executable, "-c", block + program + show], check=True, cwd=tmp_path, env=env)
    assert torch.equal(torch.load(tmp_path / "logits.pt"), logits(model, "llama"))


def test_a_card_that_a_person_changed_is_kept(saved):
    path = saved / "materialized" / "README.md"
    path.write_text(re.sub("<!-- Written by qpa_hf.*-->", "My own words.", path.read_text()))
    materialize(saved / "native", saved / "materialized")
    assert "My own words." in path.read_text()


WRITTEN = {
    "PEFT's card with a paragraph": str(ModelCard.from_template(ModelCardData())) + "\nMy own words.\n",
    "PEFT's card with a list": str(ModelCard.from_template(ModelCardData())) + "\n- Caution: my own words.\n",
    "in Latin-1": "Café, my own words.",
}


@pytest.mark.parametrize("case", WRITTEN)
def test_a_card_that_a_person_wrote_is_kept(case, saved):
    path = saved / "materialized" / "README.md"
    path.write_text(WRITTEN[case], encoding="latin-1")
    materialize(saved / "native", saved / "materialized")
    assert b"y own words." in path.read_bytes()


def test_card_of_gradient_bases_counts_all_stages_and_what_lora_would_train(tmp_path):
    model = adapted("llama", **LM, r=16, n_stages=2, basis="gradient", chunk_size=16, n_circuits=1)
    n_trained = 2 * model.get_nb_trainable_parameters()[0]
    model.save_pretrained(tmp_path / "native")
    materialize(tmp_path / "native", tmp_path / "plain")
    n_lora = get_peft_model(build("llama"), LoraConfig(r=16, **LM)).get_nb_trainable_parameters()[0]
    card = " ".join((tmp_path / "plain" / "README.md").read_text().split())
    assert f"Its {n_lora:,} numbers were generated" in card
    assert f"from {n_trained:,} trained numbers between frozen bases" in card
    assert f"would train {n_lora:,} numbers" in card

"""A control is one entry of `SOURCES`: one from outside trains, is counted, and has its words in a card."""

import pytest
import torch
from helpers import adapted, logits
from models import build
from peft import PeftModel

from qpa_hf import QPAConfig, generate, plan
from qpa_hf.generator import SOURCES, Generator
from qpa_hf.generator.checks import Need
from qpa_hf.generator.sources import Source
from qpa_hf.inspection import inspect
from qpa_hf.model_cards import make_card

LORA = {"target_modules": ["q_proj"], "r": 2, "chunk_size": 8, "n_circuits": 3}
SENTENCE = "The numbers of the chunks stand in the place of circuits."


class Numbered(Source):
    """Gives each chunk its number, times a trained factor for each circuit."""

    meaning = "the chunk's number"
    sentence = SENTENCE
    needs = (Need("start", "identity", "a test says so"),)

    def n_columns(self, spec):
        return spec.n_circuits

    def n_free(self, spec):
        return spec.n_circuits

    def add_to(self, generator):
        generator.add_parameter("factors", torch.ones(generator.spec.n_circuits))

    def columns(self, generator):
        return torch.arange(generator.spec.n_chunks)[:, None] * generator.factors


@pytest.fixture(autouse=True)
def numbered(monkeypatch):
    monkeypatch.setitem(SOURCES, "numbered", Numbered())


def test_added_control_gives_the_inputs():
    generator = Generator(QPAConfig(**LORA, source="numbered", use_basis_bits=True).generator_spec(32))
    expected = [[-1, -1, 0, 0, 0], [-1, 1, 1, 1, 1], [1, -1, 2, 2, 2], [1, 1, 3, 3, 3]]
    assert generator.features().tolist() == expected


def test_added_control_is_counted():
    config = QPAConfig(**LORA, source="numbered")
    row = plan(config, build("llama")).rows[0]
    trained = sum(p.numel() for p in adapted("llama", **LORA, source="numbered").parameters() if p.requires_grad)
    assert (row.n_angles, row.n_trainable) == (0, trained)


def test_added_control_is_saved_and_loaded(tmp_path):
    model = adapted("llama", **LORA, source="numbered")
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(build("llama"), tmp_path), "llama"), logits(model, "llama"))
    assert inspect(tmp_path)["source"] == "numbered"


def test_added_control_has_its_sentence_in_the_card():
    config = QPAConfig(**LORA, source="numbered")
    config.layout = [["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", [2, 16], None]]
    assert SENTENCE in str(make_card("native", config))


def test_what_the_added_control_needs_is_checked():
    with pytest.raises(ValueError, match="`source`='numbered' is not possible with `start`='authors', because a test"):
        QPAConfig(source="numbered", start="authors")


def test_added_control_serves_any_module():
    module = generate(torch.nn.Linear(100, 10), source="numbered", chunk_size=64, n_circuits=3)
    module(torch.ones(1, 100)).sum().backward()
    assert dict(module.named_parameters())["qpa_generator.factors"].grad is not None

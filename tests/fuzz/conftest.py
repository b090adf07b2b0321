"""One small model in each form that is read back, made once."""

import json

import pytest
from helpers import adapted
from models import build
from peft import IA3Config, get_peft_model

from qpa_hf import generate, materialize
from qpa_hf.heads import QuantumHead
from qpa_hf.model_cards import Control, Result, RunRecord, add_record
from qpa_hf.training import read_settings

LM = {"task_type": "CAUSAL_LM"}
SMALL = {"r": 8, "chunk_size": 8, "n_circuits": 1, "circuit_depth": 1}
RECORD = RunRecord(
    datasets=["wikitext"],
    license="mit",
    language=["en"],
    results=[Result("perplexity", 23.5, "wikitext", "test"), Result("loss", float("nan"))],
    control=Control("random", "perplexity", 24.25),
    hyperparameters={"learning_rate": 0.01, "seed": 7},
    versions={"peft": "0.21.2"},
    steps=160,
)
RUN = {"arm": "QPA", "n_trainable": 12, "perplexity": 5.5, "perplexity_before": 6.5, "losses": [[1, 2.5]]}


@pytest.fixture(scope="session")
def forms(tmp_path_factory):
    """A folder of each form: native (two kinds of bases), materialized, generated, a head, a run."""
    root = tmp_path_factory.mktemp("forms")
    kinds = {"native": {}, "gradient": {"basis": "gradient", "n_stages": 2}}
    for name, settings in kinds.items():
        adapted("llama", target_modules=["q_proj"], **LM, **SMALL, **settings).save_pretrained(root / name)
        add_record(root / name, RECORD)
    materialize(root / "native", root / "materialized")
    method = get_peft_model(build("llama"), IA3Config(target_modules=["v_proj"], feedforward_modules=[], **LM))
    generate(method, chunk_size=4, n_circuits=1, circuit_depth=1).save_pretrained(root / "generated")
    QuantumHead(12, n_qubits=4).save_pretrained(root / "head")
    (root / "run" / "runs").mkdir(parents=True)
    settings = read_settings(model="gpt2", data={"train": ["book.txt"]}, training={"max_steps": 4})
    (root / "run" / "run.yaml").write_text(settings.to_yaml(), encoding="utf-8")
    (root / "run" / "runs" / "one.json").write_text(json.dumps(RUN), encoding="utf-8")
    (root / "run" / "checkpoint-4").mkdir()
    state = {"global_step": 4, "max_steps": 4, "log_history": []}
    (root / "run" / "checkpoint-4" / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    return root

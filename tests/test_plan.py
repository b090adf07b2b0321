"""`plan` counts what training will train, without weights."""

import html

import pytest
from cases import CASES, PAPER_COUNTS
from helpers import adapted
from models import build
from torch import nn
from transformers import BertConfig, GPT2Config, LlamaConfig

from qpa_hf import QPAConfig, materialize, plan
from qpa_hf.checkpoint import read_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
GPT2 = {"r": 4, "target_modules": ["lm_head"], "task_type": "CAUSAL_LM"}


def test_gpt2_rows_have_the_published_counts():
    result = plan(QPAConfig.paper(256, **GPT2), GPT2Config(), list(PAPER_COUNTS))
    assert [row.n_trainable for row in result.rows] == list(PAPER_COUNTS.values())
    assert {row.n_values for row in result.rows} == {204_100}
    assert [row.n_qubits for row in result.rows] == [10, 9, 8, 7, 6, 5]
    assert result.rows[3].percent_of_lora == pytest.approx(52.06, abs=0.01)


MORE = {
    "DoRA on an embedding": ("gpt2", {"target_modules": ["wte"], "use_dora": True}),
    "biases": ("bert", {"target_modules": ["query"], "bias": "all", "task_type": "SEQ_CLS"}),
    "tokens": (
        "llama",
        {"target_modules": ["q_proj"], "trainable_token_indices": [1, 2, 3], "task_type": "CAUSAL_LM"},
    ),
}


@pytest.mark.parametrize("name", ["\u202e", "a\nb"])
def test_a_name_that_is_none_is_shown_on_one_line(name):
    with pytest.raises(ValueError, match=r"has no configuration that can be read") as refused:
        plan(QPAConfig(target_modules=["lm_head"]), name)
    assert f"`model`={name!r} has" in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("case", [*CASES, *MORE])
def test_plan_agrees_with_the_model(case):
    name, settings = (CASES | MORE)[case]
    model = adapted(name, **settings)
    spec = model.base_model.lora_qpa["default"].spec
    config = QPAConfig(**({"r": 4, "lora_alpha": 8, "chunk_size": 32, "n_circuits": 2, "circuit_depth": 2} | settings))
    (row,) = plan(config, build(name)).rows
    trained = sum(p.numel() for p in model.base_model.lora_qpa.parameters() if p.requires_grad)
    assert (row.n_trainable, row.n_values, row.n_qubits) == (trained, spec.n_values, spec.n_qubits)
    assert row.n_beside == model.get_nb_trainable_parameters()[0] - trained


FILES = {
    "tied": CASES["tied"],
    "DoRA": CASES["dora"],
    "DoRA from the seed": ("llama", CASES["dora"][1] | {"save_init": False}),
    "DoRA, the authors' start": ("llama", CASES["dora"][1] | {"start": "authors"}),
    "seed only": CASES["seed only"],
    "gradient basis, dora": CASES["gradient basis, dora"],
}


@pytest.mark.parametrize("case", FILES)
def test_files_have_the_planned_sizes(case, tmp_path):
    name, settings = FILES[case]
    model = adapted(name, **settings)
    (row,) = plan(model.peft_config["default"], build(name)).rows
    model.save_pretrained(tmp_path / "native")
    materialize(model, tmp_path / "plain")
    found = [
        sum(tensor.nbytes for tensor in read_weights(tmp_path / kind).values() if tensor.is_floating_point())
        for kind in ("native", "plain")
    ]
    assert found == [row.native_bytes, row.materialized_bytes]


def test_packed_weights_are_counted_one_by_one():
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes, which packs weights, is not installed")
    packed = nn.Sequential(bitsandbytes.nn.Linear4bit(64, 64, bias=False).to("cpu"))
    assert packed[0].weight.numel() == 64 * 64 / 2
    rows = [
        plan(QPAConfig(r=4, target_modules=["0"]), model).rows[0]
        for model in (packed, nn.Sequential(nn.Linear(64, 64, bias=False)))
    ]
    assert rows[0].percent_of_target == rows[1].percent_of_target


def test_stages_count_together():
    rows = [
        plan(QPAConfig(basis="gradient", r=32 * n, n_stages=n, target_modules=["c_attn"]), GPT2Config()).rows[0]
        for n in (1, 3)
    ]
    assert rows[1].n_trainable == 3 * rows[0].n_trainable


def test_large_model_needs_no_weights():
    shapes = LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_key_value_heads=8, vocab_size=128256
    )
    config = QPAConfig(r=16, target_modules="all-linear", chunk_size=4096, task_type="CAUSAL_LM")
    (row,) = plan(config, shapes).rows
    assert row.n_values == 41_943_040
    assert row.n_qubits == 14


def test_readable_table_and_dictionary():
    result = plan(QPAConfig(**GPT2), GPT2Config(), [384, 768])
    assert "204,100 numbers to generate" in str(result)
    assert len(str(result).splitlines()) == 4
    assert result.to_dict()[0]["n_trainable"] == 4096


@pytest.mark.parametrize("task", ["TOKEN_CLS", "QUESTION_ANS"])
def test_modules_have_the_names_that_a_model_of_the_task_gives_them(task):
    config = QPAConfig(r=2, target_modules=r"bert\.encoder\.layer\.0\..*query", task_type=task)
    (row,) = plan(config, BertConfig()).rows
    assert row.n_lora == 2 * (768 + 768)


def test_head_of_no_task_is_missed():
    with pytest.raises(ValueError, match=r"'lm_head'.*Choose from its c_attn, .*Without a `task_type` it has no head"):
        plan(QPAConfig(target_modules=["lm_head"]), GPT2Config())


def test_targets_that_match_nothing_are_named():
    with pytest.raises(ValueError, match="nothing_here"):
        plan(QPAConfig(target_modules=["nothing_here"], task_type="CAUSAL_LM"), GPT2Config())


def test_a_plan_is_its_table_wherever_it_is_shown():
    found = plan(QPAConfig(target_modules=["c_attn"], task_type="CAUSAL_LM", shots=10), build("gpt2").config)
    assert repr(found) == str(found)
    assert found._repr_html_() == f"<pre>{html.escape(str(found))}</pre>"

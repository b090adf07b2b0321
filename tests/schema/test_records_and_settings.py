"""Records, settings and configurations: each value that cannot be is one sentence that names its field."""

import pytest
from bounds import small_memory
from models import build
from peft import get_peft_model
from safetensors import safe_open
from safetensors.torch import save_file

from qpa_hf import QPAConfig, initialize_basis
from qpa_hf.comparison.runs import _recorded
from qpa_hf.heads import HeadSettings
from qpa_hf.model_cards import Result, RunRecord
from qpa_hf.schema import parse_object, parse_yaml, read_text
from qpa_hf.training import TASKS, read_settings
from qpa_hf.training.run import last_checkpoint

A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
RECORD = "qpa_run.json"
SMALL = {"target_modules": ["q_proj"], "r": 4, "chunk_size": 16, "n_circuits": 1, "circuit_depth": 1}

RECORDS = {
    '{"hyperparameters": "abc"}': "`hyperparameters`='abc' is not allowed. Set it to a dictionary",
    '{"results": 5}': "`results`=5 is not allowed. Set it to a list",
    '{"results": [5]}': "5 is no Result",
    '{"results": [{"metric": "loss"}]}': "missing 1 required positional argument",
    '{"results": [{"metric": 5, "value": 1}]}': "`metric`=5 is not allowed. Set it to a text",
    '{"results": [{"metric": "loss", "value": "abc"}]}': "`value`='abc' is not allowed. Set it to a finite number",
    '{"control": [1]}': r"\[1\] is no Control",
    '{"steps": 2.5}': "`steps`=2.5 is not allowed. Set it to a whole number or None",
    '{"versions": {"peft": 5}}': "`versions`=.* is not allowed",
    '{"language": [5]}': "`language`=.* is not allowed. Set it to a list of texts",
    '{"misspelt": 1}': "unexpected keyword argument 'misspelt'",
    "5": "holds 5 and not a JSON object",
}


@pytest.mark.parametrize("text", RECORDS)
def test_damaged_record_is_named(text, tmp_path):
    (tmp_path / RECORD).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{RECORD}.*{RECORDS[text]}"):
        RunRecord.load(tmp_path)


def test_numbers_of_a_record_that_are_not_finite_have_names():
    record = RunRecord(results=[Result("loss", float("inf"))], train_loss=float("nan"))
    read = RunRecord.from_json(record.to_json())
    assert (read.results[0].value, str(read.train_loss)) == (float("inf"), "nan")


def test_constant_of_a_head_beyond_floats_is_refused():
    with pytest.raises(ValueError, match="`constant`=1000"):
        HeadSettings(12, constant=10**400)


LINES = [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
YAML = {
    "\n".join(["a: &a [1]", *LINES]): "values",
    "a: &a [*a]": "unconstructable|levels|recursive",
    "[" * 5000: "nested too deeply",
    "a: 1\na: 2": "it has 'a' twice",
    "a: !!bool maybe": "maybe",
    "a: !!timestamp x": "",
    "a: !!python/object/apply:os.system [ls]": "could not determine a constructor",
    "a: 2020-99-99": "month must be in",
    "1" * 5000: "digits",
    "a: " + "b" * 300_000: "settings have at most 262,144",
}


@pytest.mark.parametrize("text", YAML, ids=range(len(YAML)))
def test_yaml_that_is_no_settings_is_named(text, tmp_path):
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    with small_memory(), pytest.raises(ValueError, match=f"run.yaml.*({YAML[text]})"):
        read_settings(tmp_path / "run.yaml")


SETTINGS = {
    "training.save_steps=1e400": "`training.save_steps`=inf is not allowed. Set it to a finite number",
    "training.save_steps=.nan": "`training.save_steps`=nan is not allowed",
    f"training.max_steps={10**30}": "`training.max_steps`=1000.* is not allowed. Set it to a whole number",
    "training.lr_scheduler_kwargs=5": "`training.lr_scheduler_kwargs`=5 is not allowed. Set it to a dictionary or",
    "training.label_names=5": "`training.label_names`=5 is not allowed. Set it to a list of texts or None",
    "training.metric_for_best_model=[loss]": "nothing but the loss",
    "model=[a]": r"`model` is \['a'\], not a name",
    "training.optim=5": "`training.optim`=5 is not allowed. Set it to one of 'adamw_torch'",
}


@pytest.mark.parametrize("override", SETTINGS)
def test_value_that_training_cannot_have_is_named(override):
    with pytest.raises(ValueError, match=SETTINGS[override]):
        read_settings(
            overrides=[override], **{} if override.startswith("model") else {"model": "a"}, data={"train": ["b"]}
        )


CONFIGURATIONS = [
    ({"layout": 5}, "`layout`=5 is not allowed"),
    ({"layout": [[A, [4, 16], None]], "basis": "gradient"}, "with its lora_B"),
    ({"lora_alpha": 10**400}, "`lora_alpha`=1000"),
    ({"r": 10**400, "use_rslora": True, "basis": "gradient"}, "`r`=1000.* from 1 to 9223372036854775807"),
    ({"r": 10**5000}, "`r`=a number of thousands of digits"),
    ({"shots": 10**400}, "`shots`=1000"),
    ({"rank_pattern": {5: 4}}, "`rank_pattern`={5: 4}"),
    ({"rank_pattern": {"(": 4}}, r"`rank_pattern`='\(' is no regular expression"),
    ({"exclude_modules": "["}, r"`exclude_modules`='\[' is no regular expression"),
    ({"ansatz": ["ry_cnot"]}, r"`ansatz`=\['ry_cnot'\] is not known"),
    ({"features": "x" * 5000}, r"`features`='x+\.\.\. is not known"),
    ({"monteclora_config": {"a": 1}, "modules_to_save": 5}, "`modules_to_save`=5|monteclora_config"),
]


@pytest.mark.parametrize(("kwargs", "words"), CONFIGURATIONS, ids=[next(iter(case[0])) for case in CONFIGURATIONS])
def test_configuration_with_odd_values_is_refused_in_one_sentence(kwargs, words):
    with pytest.raises((ValueError, TypeError), match=words) as refusal:
        QPAConfig(**kwargs)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"r": 10**9}, "`r`=1000000000 is more than any dimension of the weights, of which the largest is 60"),
        ({"trainable_token_indices": [60]}, r"`trainable_token_indices`=\[60\] .* tokens from 0 to 59"),
        ({"target_modules": ".*self_attn"}, "Target module LlamaAttention"),
    ],
    ids=["rank", "token", "module"],
)
def test_what_the_base_model_has_no_place_for_is_refused_in_one_sentence(kwargs, words):
    with small_memory(), pytest.raises(ValueError, match=words) as refusal:
        get_peft_model(build("llama"), QPAConfig(**SMALL | kwargs))
    assert "\n" not in str(refusal.value)


def test_record_of_a_comparison_is_checked(tmp_path):
    path = tmp_path / "run.json"
    path.write_text('{"perplexity": "nan", "n_trainable": 5}', encoding="utf-8")
    assert str(_recorded(path, TASKS["text"])["perplexity"]) == "nan"
    path.write_text('{"perplexity": [5], "n_trainable": 5}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"is not the record of a run \(`perplexity`=\[5\]"):
        _recorded(path, TASKS["text"])


@pytest.mark.parametrize("state", ["", "5", "[]", '{"misspelt": 1}', '{"global_step": "a"}'])
def test_damaged_checkpoint_of_a_run_is_no_checkpoint(state, tmp_path):
    for name in ("checkpoint-2", "checkpoint-x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text(state, encoding="utf-8")
    assert last_checkpoint(tmp_path) is None


def test_cached_bases_of_another_size_are_refused(tmp_path):
    model = get_peft_model(build("llama"), QPAConfig(**SMALL | {"chunk_size": 4}, basis="gradient"))
    batches = [{"input_ids": (ids := build("llama").model.embed_tokens.weight.argmax(1)[None, :8]), "labels": ids}]
    path = tmp_path / "bases.safetensors"
    initialize_basis(model, batches, cache=path, progress=False)
    with safe_open(path, "pt") as file:
        metadata, basis = file.metadata(), file.get_tensor("basis")
    save_file({"basis": basis[1:].clone()}, path, metadata=metadata)
    other = get_peft_model(build("llama"), QPAConfig(**SMALL | {"chunk_size": 4}, basis="gradient"))
    with pytest.raises(ValueError, match="is damaged .it holds"):
        initialize_basis(other, batches, cache=path, progress=False)


def test_text_is_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_text(tmp_path)


def test_parsed_values_are_as_they_stand():
    assert parse_object('{"a": [1, 2.5, null, "b"]}', "it") == {"a": [1, 2.5, None, "b"]}
    assert parse_yaml("a: &a {b: 1}\nc: *a") == {"a": {"b": 1}, "c": {"b": 1}}

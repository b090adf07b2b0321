"""`qpa train`: from text files to adapters, resumed where it was interrupted, and refusals before any work."""

import json
import math
import sys

import pytest
import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from qpa_hf import generate
from qpa_hf.demo.arms import BASE
from qpa_hf.evaluation import perplexity, text_blocks
from qpa_hf.training import folder, read_data, read_settings, run


def weights(folder):
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_train_leaves_adapters_card_record_and_pictures(qpa, tiny, book, tmp_path):
    found = json.loads(qpa("train", "--output", tmp_path / "run", *tiny, "--json").out)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"native", "adapter", "loss.png", "probabilities.png", "singular_values.png"} <= names
    card = (tmp_path / "run" / "adapter" / "README.md").read_text(encoding="utf-8")
    assert f"{found['perplexity']}"[:6] in card
    blocks = text_blocks(AutoTokenizer.from_pretrained(BASE), [book.read_text(encoding="utf-8")], 32)
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter")
    assert perplexity(plain, blocks[-(len(blocks) // 10) :]) == found["perplexity"]
    assert found["perplexity"] < found["perplexity_before"]


def test_same_command_resumes_to_the_same_bits(qpa, tiny, tmp_path, monkeypatch):
    options = [*tiny, "--set", "training.save_steps=2"]
    qpa("train", "--output", tmp_path / "whole", *options)
    callback = run.QuietProgress
    monkeypatch.setattr(run, "QuietProgress", _interrupted_after(3))
    stopped = qpa("train", "--output", tmp_path / "parts", *options)
    assert (stopped.code, "The same command, without --fresh, goes on" in stopped.err) == (130, True)
    monkeypatch.setattr(run, "QuietProgress", callback)
    assert qpa("train", "--output", tmp_path / "parts", *options).code == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_run_without_bars_draws_none(qpa, tiny, tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(run, "perplexity", lambda *args, progress: found.append(progress) or 1.0)
    monkeypatch.setattr(run, "QuietProgress", None)  # to add it would fail
    result = qpa("train", "--output", tmp_path, *tiny, "--set", "training.disable_tqdm=true")
    assert (result.code, found) == (0, [False, False])


def _interrupted_after(step):
    class Interrupted(run.QuietProgress):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise KeyboardInterrupt

    return Interrupted


def test_file_recipe_and_overrides_are_put_together_in_that_order(qpa, tiny, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("adapter: {chunk_size: 64, n_circuits: 2}\n", encoding="utf-8")
    qpa("train", "--output", tmp_path / "run", "--config", file, *tiny, "--set", "adapter.n_circuits=3")
    config = json.loads((tmp_path / "run" / "native" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["chunk_size"], config["n_circuits"]) == (64, 3)


REFUSALS = {
    "misspelt adapter field": (["--set", "adapter.chunk_sise=8"], "Did you mean `chunk_size`"),
    "misspelt training field": (["--set", "training.learning_rat=1"], "Did you mean `learning_rate`"),
    "misspelt section": (["--set", "adaptor.r=8"], "Did you mean `adapter`"),
    "no setting": (["--set", "chunk_size"], "section.field=value"),
    "unknown recipe": (["--recipe", "papper"], "paper-gemma, paper-gpt2"),
    "missing settings": (["--config", "nothing.yaml"], "There is no file nothing.yaml"),
    "missing text": (["--train", "nothing.txt"], "There is no text file nothing.txt"),
    "block too long": (["--set", "data.block_length=100000"], "fewer than one block of 100000"),
    "more than the model's positions": (["--set", "data.block_length=300"], "positions"),
    "unclosed bracket": (["--set", "adapter.r=[1"], "Close its brackets"),
    "section without fields": (["--set", "data=5"], "Write data.field=value"),
    "text for a number": (["--set", "training.learning_rate=fast"], "Set it to a number"),
    "text for yes or no": (["--set", "training.use_cpu=treu"], "true or false"),
    "list for a number": (["--set", "training.num_train_epochs=[1]"], "=[1] is not allowed. Set it to a number"),
    "list for a whole number": (["--set", "training.max_steps=[1]"], "=[1] is not allowed. Set it to a number"),
    "list for a number or null": (["--set", "training.save_total_limit=[1]"], "Set it to a number"),
    "number for a text file": (["--set", "data.validation=5"], "Set it to a name (text) or a list of names"),
    "number for a column": (["--set", "data.text_column=5"], "`data.text_column`=5 is not allowed. Set it to a name"),
    "truth value for a name": (["--set", "training={on: 5}"], "`training` has no field `True`"),
    "truth value for an adapter's name": (["--set", "adapter={on: 5}"], "unexpected keyword argument 'True'"),
    "a part of a step": (["--set", "training.max_steps=1.5"], "whole number"),
    "missing model": (["--model", "./nothing"], "There is no directory ./nothing"),
    "dataset beside a text": (["--dataset", "alice/texts"], "either `data.train`"),
    "another task": (["--set", "adapter.task_type=SEQ_CLS"], "trains causal language models"),
    "rate below zero": (["--set", "training.learning_rate=-1"], "finite number from 0 on"),
    "rate that is no number": (["--set", "training.learning_rate=.nan"], "finite number from 0 on"),
    "empty batches": (["--set", "training.per_device_train_batch_size=0"], "from 1 on"),
    "epochs without end": (["--set", "training.num_train_epochs=.inf"], "finite number from 0 on"),
    "metric that no run has": (["--set", "training.metric_for_best_model=accuracy"], "nothing but the loss"),
    "more stages than steps": (
        [*("--set", "adapter.basis=gradient"), *("--set", "adapter.n_stages=6"), *("--set", "adapter.r=6")],
        "leaves no step",
    ),
    "layers that are not there": (["--set", "adapter.target_modules=[nope]"], "Choose from its c_attn, c_fc, c_proj"),
    "null for a number": (["--set", "training.max_steps=null"], "`training.max_steps`=null is not allowed"),
    "no step": (["--set", "training.max_steps=0"], "leave nothing to train"),
    "no epoch": (["--set", "training.max_steps=-1", "--set", "training.num_train_epochs=0"], "leave nothing to train"),
    "checkpoints without an optimizer": (["--set", "training.save_only_model=true"], "the run sets it itself. Leave"),
    "another output": (["--set", "training.output_dir=x"], "Leave it out, and use --output"),
    "push at the end": (["--set", "training.push_to_hub=true"], "Leave it out, and use `qpa push`"),
    "where to push": (["--set", "training.hub_model_id=me/it"], "Leave it out, and use `qpa push`"),
    "another checkpoint": (["--set", "training.resume_from_checkpoint=/nowhere"], "the same command goes on"),
    "an adapter that does not train": (["--set", "adapter.inference_mode=true"], "such a run trains"),
    "revision of the base": (["--set", "adapter.revision=abc123"], "name its directory as `model`"),
    "text for the paper's generator": (["--set", "adapter.paper=abc"], "`adapter.paper`='abc' is not a truth value"),
    "unknown bias": (["--set", "adapter.bias=foo"], "`bias`='foo' is not known"),
    "licence that is no text": (
        ["--set", "record.license=[mit]"],
        "=['mit'] is not allowed. Set it to a name (text).",
    ),
    "number for a language": (["--set", "record.language=[en, 5]"], "Set it to a name (text) or a list of names"),
    "value out of range": (["--set", "adapter.circuit_depth=0"], "whole number of at least 1"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_is_one_sentence_before_any_work(qpa, tiny, case, tmp_path):
    options, expected = REFUSALS[case]
    result = qpa("train", "--output", tmp_path / "run", *tiny, *options)
    assert result.code == 2
    assert expected in result.err
    assert result.err.count("Error: ") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_section_whose_name_is_no_text_is_named(tmp_path):
    (tmp_path / "settings.yaml").write_text("no: 5\n", encoding="utf-8")
    with pytest.raises(ValueError, match="A run has no field `False`"):
        read_settings(tmp_path / "settings.yaml")


def test_output_below_a_file_is_refused(qpa, tiny, tmp_path):
    (tmp_path / "file").touch()
    result = qpa("train", "--output", tmp_path / "file" / "run", *tiny)
    assert (result.code, "is a file. Pass a folder" in result.err) == (2, True)


COMMANDS = {"train": ["train"], "compare": ["compare", "--arm", "LoRA r=1", "--rate", "1e-2"]}


@pytest.mark.parametrize("command", COMMANDS)
def test_text_that_changed_under_its_name_is_another_run(command, qpa, tiny, book, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(book.read_text(encoding="utf-8"), encoding="utf-8")
    options = [*(text if option == book else option for option in tiny), "--output", tmp_path / "run"]
    assert qpa(*COMMANDS[command], *options).code == 0
    text.write_text(text.read_text(encoding="utf-8")[::-1], encoding="utf-8")
    result = qpa(*COMMANDS[command], *options)
    assert (result.code, "on another text" in result.err) == (2, True)


@pytest.mark.parametrize("command", COMMANDS)
def test_epochs_with_fewer_steps_than_stages_are_refused_before_any_work(command, qpa, tiny, tmp_path):
    epochs = {"max_steps": -1, "num_train_epochs": 1, "per_device_train_batch_size": 300}
    settings = [f"training.{name}={value}" for name, value in epochs.items()]
    settings += ["adapter.basis=gradient", "adapter.n_stages=2"]
    options = [option for setting in settings for option in ("--set", setting)]
    result = qpa(*COMMANDS[command], "--output", tmp_path / "run", *tiny, *options)
    assert (result.code, "so few steps (1) leaves no step for some of the 2 stages" in result.err) == (2, True)
    assert not (tmp_path / "run").exists()


def test_logged_losses_are_those_of_the_perplexity(qpa, tiny, tmp_path):
    result = json.loads(qpa("train", "--output", tmp_path, *tiny, "--json").out)
    record = json.loads((tmp_path / "adapter" / "qpa_run.json").read_text(encoding="utf-8"))
    loss = next(r["value"] for r in record["results"] if r["metric"] == "loss")
    assert loss == pytest.approx(math.log(result["perplexity"]), rel=1e-5)


def test_settings_that_a_run_wrote_start_another(qpa, tiny, tmp_path):
    qpa("train", "--output", tmp_path / "a", *tiny, "--set", "training.save_steps=0.5")
    again = qpa("train", "--output", tmp_path / "b", "--config", tmp_path / "a" / "run.yaml")
    assert again.code == 0
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_finished_run_takes_no_step_more(qpa, tiny, tmp_path):
    options = ["--output", tmp_path, *tiny, "--set", "training.lr_scheduler_type=constant", "--json"]
    first = qpa("train", *options).out
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.suffix != ".png" and path.is_file()}
    again = qpa("train", *options)
    assert (again.out, "nothing is trained" in again.err) == (first, True)
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize("n_stages", [1, 2])
def test_gradient_bases_of_all_stages_are_found(n_stages, qpa, tiny, tmp_path):
    settings = {"basis": "gradient", "source": "direct", "n_stages": n_stages}
    options = [option for name, value in settings.items() for option in ("--set", f"adapter.{name}={value}")]
    result = json.loads(qpa("train", "--output", tmp_path, *tiny, *options, "--json").out)
    assert result["perplexity"] < result["perplexity_before"]
    assert PeftConfig.from_pretrained(tmp_path / "adapter").peft_type == "LORA"
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(tensor.any(1).all() for key, tensor in tensors.items() if "lora_A" in key)


def test_settings_refused_late_do_not_occupy_the_folder(qpa, tiny, tmp_path):
    assert qpa("train", "--output", tmp_path, *tiny, "--set", "data.block_length=300").code == 2
    assert qpa("train", "--output", tmp_path, *tiny).code == 0


def test_dataset_folder_is_read_by_its_splits(qpa, book, tmp_path):
    lines = book.read_text(encoding="utf-8")
    for split, text in {"train": lines[:8000], "validation": lines[8000:]}.items():
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{split}.txt").write_text(text, encoding="utf-8")
    settings = read_settings(model=str(BASE), data={"dataset": str(tmp_path / "texts"), "block_length": 32})
    data = read_data(settings.data, AutoTokenizer.from_pretrained(BASE))
    assert (data.validation_split, data.name) == ("validation", None)  # a path is not for a card
    assert len(data.train) > len(data.validation) > 0


@pytest.mark.parametrize(("options", "expected"), [((), None), (("--set", "data.dataset_config=mine"), "mine")])
def test_configuration_of_a_recipes_dataset_is_not_anothers(qpa, options, expected, tmp_path, monkeypatch):
    found = []

    def stop(settings, *args, **kwargs):
        found.append(settings.data.dataset_config)
        sys.exit()

    monkeypatch.setattr(run, "train", stop)
    qpa("train", "--output", tmp_path, "--recipe", "paper-gpt2", "--dataset", tmp_path, *options)
    assert found == [expected]


DATASETS = {
    "column of numbers": ({"text_column": "n"}, "holds int, not text"),
    "validation files beside a dataset": ({"validation": "other.txt"}, "Leave one of them out"),
}


@pytest.mark.parametrize("case", DATASETS)
def test_dataset_that_cannot_be_read_is_explained(case, tmp_path):
    settings, message = DATASETS[case]
    _write_rows(tmp_path)

    def read():
        found = read_settings(model=str(BASE), data={"dataset": str(tmp_path), "block_length": 32, **settings})
        return read_data(found.data, AutoTokenizer.from_pretrained(BASE))

    with pytest.raises(ValueError, match=message):
        read()


@pytest.mark.parametrize(
    ("rows", "reason"), [('{"text": "a"}\n{"text": b', "JSON parse error"), ("", "a file is empty")]
)
def test_damaged_dataset_is_named(rows, reason, tmp_path):
    _write_rows(tmp_path)
    (tmp_path / "train.jsonl").write_text(rows, encoding="utf-8")
    settings = read_settings(model=str(BASE), data={"dataset": str(tmp_path)})
    with pytest.raises(ValueError, match=rf"The split `train` of the dataset .* cannot be read \({reason}"):
        read_data(settings.data, AutoTokenizer.from_pretrained(BASE))


def test_rows_without_text_are_left_out(tmp_path):
    _write_rows(tmp_path)
    settings = read_settings(model=str(BASE), data={"dataset": str(tmp_path), "block_length": 32})
    assert len(read_data(settings.data, AutoTokenizer.from_pretrained(BASE)).train) > 0


def _write_rows(folder):
    rows = [{"text": "some words " * 50, "n": 3}, {"text": None, "n": 3}]
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def test_folder_of_another_run_is_kept(qpa, tiny, tmp_path):
    qpa("train", "--output", tmp_path, *tiny)
    before = weights(tmp_path)
    result = qpa("train", "--output", tmp_path, *tiny, "--set", "adapter.r=4")
    assert result.code == 2
    assert "other settings" in result.err
    assert all(torch.equal(before[name], weights(tmp_path)[name]) for name in before)


def test_folder_that_is_no_run_is_never_removed(qpa, tiny, tmp_path):
    for name in ("thesis.tex", "earlier/draft.tex", "discarded/chapter.tex"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("years of work", encoding="utf-8")
    before = _texts(tmp_path)
    assert qpa("train", "--output", tmp_path, "--fresh", *tiny).code == 2
    assert _texts(tmp_path) == before


def test_a_fresh_start_removes_a_run_only_once_the_new_one_is_found_good(qpa, tiny, tmp_path):
    qpa("train", "--output", tmp_path, *tiny)
    before = weights(tmp_path)
    assert qpa("train", "--output", tmp_path, "--fresh", *tiny, "--train", tmp_path / "typo.txt").code == 2
    assert all(torch.equal(before[name], weights(tmp_path)[name]) for name in before)
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    refused = qpa("train", "--output", tmp_path, "--fresh", *tiny)
    assert (refused.code, "notes.txt, which is no part of a run" in refused.err) == (2, True)
    assert (tmp_path / "native").is_dir()
    (tmp_path / "notes.txt").unlink()
    late = ("--set", "adapter.target_modules=[typo]")
    assert qpa("train", "--output", tmp_path, "--fresh", *tiny, *late).code == 2
    assert all(torch.equal(before[name], weights(tmp_path)[name]) for name in before)
    assert qpa("train", "--output", tmp_path, "--fresh", *tiny, "--set", "adapter.r=4").code == 0
    assert not {path.name for path in tmp_path.iterdir()} & {folder.EARLIER, folder.DISCARDED}
    assert {4} == {min(tensor.shape) for tensor in weights(tmp_path).values()}


@pytest.mark.parametrize("cut_off_at", [0, 1, 2])
def test_killed_fresh_start_gives_the_earlier_run_back(cut_off_at, tmp_path):
    (tmp_path / "run.yaml").write_text("old", encoding="utf-8")
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / "weights").write_text("old", encoding="utf-8")
    before = _texts(tmp_path)
    start = folder.begun(tmp_path, is_fresh=True)
    start.__enter__()  # and killed, so that nothing is done at the end
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "run.yaml").write_text("new", encoding="utf-8")
    for name in ("run.yaml", "native")[:cut_off_at]:  # when it was being put back
        (tmp_path / folder.EARLIER / name).replace(tmp_path / name)
    with folder.begun(tmp_path, is_fresh=False):
        assert _texts(tmp_path) == before


def _texts(place):
    return {path.relative_to(place): path.read_text(encoding="utf-8") for path in place.rglob("*") if path.is_file()}


def test_a_run_that_diverges_is_a_failure_and_no_bad_input(qpa, tiny, tmp_path):
    result = qpa("train", "--output", tmp_path, *tiny, "--set", "training.learning_rate=1e8")
    assert (result.code, "Lower the learning rate" in result.err) == (1, True)


def test_a_run_that_ends_with_nan_writes_no_adapter(qpa, tiny, tmp_path):
    unnoticed = ["adapter.source=random", *(f"training.{name}" for name in ("max_grad_norm=0", "eval_strategy=no"))]
    high = ["training.learning_rate=1e30", "training.lr_scheduler_type=constant"]
    options = [*tiny, *(word for setting in (*unnoticed, *high) for word in ("--set", setting))]
    result = qpa("train", "--output", tmp_path, *options)
    assert (result.code, "use --fresh or another folder" in result.err) == (1, True)
    assert not (tmp_path / "native").exists()


def test_a_finished_run_without_checkpoints_is_not_trained_again(qpa, tiny, tmp_path):
    options = [*tiny, "--set", "training.save_strategy=no"]
    assert qpa("train", "--output", tmp_path, *options).code == 0
    result = qpa("train", "--output", tmp_path, *options)
    assert (result.code, "holds the finished run" in result.err) == (2, True)


@pytest.mark.parametrize("kind", [ValueError, TypeError, KeyError, AttributeError, OverflowError])
def test_what_fails_in_training_is_a_failure_in_its_own_words(kind, qpa, tiny, tmp_path, monkeypatch):
    def fails(*args):
        raise kind("It's over.")

    monkeypatch.setattr(run, "train_or_resume", fails)
    result = qpa("train", "--output", tmp_path, *tiny)
    assert (result.code, result.err.endswith("Error: It's over.\n")) == (1, True)


def test_best_checkpoint_is_found_where_the_run_was_moved_to(qpa, tiny, tmp_path, monkeypatch):
    best = ("load_best_model_at_end=true", "save_steps=1", "eval_steps=1", "save_total_limit=4")
    options = [*tiny, *(word for setting in best for word in ("--set", f"training.{setting}"))]
    monkeypatch.chdir(tmp_path)
    assert qpa("train", "--output", "run", *options).code == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").rename(tmp_path / "elsewhere" / "run")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert qpa("train", "--output", "run", *options).code == 0


def test_a_checkpoint_cut_off_by_a_full_disk_is_passed_over(tmp_path):
    for step, state in ((2, "{}"), (4, "")):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state, encoding="utf-8")
    assert run.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--block-length", 300), "`block_length`=300 is more than the 256 positions"),
        (("--block-length", 1), "`block_length`=1 is not allowed"),
        (("--adapter", "./nowhere"), "There is no directory ./nowhere"),
        (("--adapter", __file__), "is a file"),
    ],
)
def test_bad_input_of_an_evaluation_is_named(qpa, book, options, message):
    result = qpa("evaluate", BASE, "--text", book, *options)
    assert (result.code, message in result.err) == (2, True)


@pytest.mark.parametrize(
    ("name", "written", "value"),
    [
        ("save_strategy", "no", "no"),  # which YAML takes for false
        ("learning_rate", "1e-3", 1e-3),  # which YAML takes for a text
        ("max_steps", "'100'", 100),
        ("run_name", "'007'", "007"),
    ],
)
def test_training_settings_are_what_is_meant(name, written, value, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(f"training: {{{name}: {written}}}\n", encoding="utf-8")
    found = read_settings(file, model=str(BASE), data={"train": ["a.txt"]}).training[name]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("written", "value"), [("no", "no"), ("[en, no]", ["en", "no"])])
def test_norwegian_is_a_language(written, value):
    settings = read_settings(overrides=[f"record.language={written}"], model="any", data={"train": ["a.txt"]})
    assert settings.record == {"language": value}


@pytest.mark.filterwarnings("ignore:The generator has:UserWarning")
def test_evaluate_takes_the_native_form_of_any_method(qpa, book, tmp_path):
    base = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    model = get_peft_model(
        base, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    )
    model = generate(model, start="authors", chunk_size=64)
    model.save_pretrained(tmp_path)
    options = ("--text", book, "--block-length", 32, "--json")
    found = json.loads(qpa("evaluate", BASE, "--adapter", tmp_path, *options).out)
    blocks = text_blocks(AutoTokenizer.from_pretrained(BASE), [book.read_text(encoding="utf-8")], 32)
    assert found["perplexity"] == perplexity(model, blocks)


@pytest.mark.parametrize("size", [{"n_layer": 2}, {"n_layer": 5}, {"n_embd": 96}], ids=str)
def test_an_adapter_of_another_base_is_refused(size, qpa, book, tmp_path):
    other = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(BASE, **size))
    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    get_peft_model(other, config).save_pretrained(tmp_path)
    result = qpa("evaluate", BASE, "--text", book, "--adapter", tmp_path)
    assert (result.code, "Name the base model that it was trained with" in result.err) == (2, True)


def test_an_adapter_for_another_task_is_refused(qpa, book, tmp_path):
    base = AutoModelForSequenceClassification.from_pretrained(BASE)
    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="SEQ_CLS")
    get_peft_model(base, config).save_pretrained(tmp_path)
    result = qpa("evaluate", BASE, "--text", book, "--adapter", tmp_path)
    assert (result.code, "is an adapter for SEQ_CLS" in result.err) == (2, True)


def test_evaluate_names_the_base_that_an_adapter_was_trained_with(qpa, book, tmp_path):
    base = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(BASE))
    base.name_or_path = "someone/other-base"  # of the same shapes, so that all tensors fit
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM"))
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    result = qpa("evaluate", BASE, "--text", book, "--adapter", tmp_path)
    assert "trained with someone/other-base;" in result.out


def test_evaluate_equals_the_library(qpa, book):
    found = json.loads(qpa("evaluate", BASE, "--text", book, "--block-length", 32, "--padded", "--json").out)
    blocks = text_blocks(AutoTokenizer.from_pretrained(BASE), [book.read_text(encoding="utf-8")], 32)
    assert found["perplexity"] == perplexity(AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32), blocks)
    assert math.isfinite(found["padded_perplexity"])

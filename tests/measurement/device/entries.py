"""Every way in which an adapter's files come into use: each returns the model, None where there is none to return."""

import sys

import pytest
from peft import AutoPeftModelForCausalLM, PeftConfig, PeftModel
from stand_in import TOKENS, base
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from qpa_hf import load_generated, materialize
from qpa_hf.demo.arms import BASE
from qpa_hf.hub import load, push
from qpa_hf.trainer_callbacks import MaterializeCallback
from qpa_hf_cli import main


def command(*arguments):
    """Run `qpa`; what it prints as an error becomes a RuntimeError, as what the library raises."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["qpa", *map(str, arguments)])
        errors = []
        patch.setattr(sys.modules["qpa_hf_cli.main"], "_stop", lambda error, code: errors.append(error))
        try:
            main()
        except SystemExit:
            pass
    if errors:
        raise errors[0]


def peft_model(folder):
    return PeftModel.from_pretrained(base(), folder)


def second_adapter(folder):
    model = PeftModel.from_pretrained(base(), folder)
    model.load_adapter(folder, "second")
    model.set_adapter("second", inference_mode=True)
    return model


def written_config(folder):
    return PeftModel.from_pretrained(base(), folder, config=PeftConfig.from_pretrained(folder))


def plain(folder):
    return PeftModel.from_pretrained(base(), materialize(folder, folder.parent / "plain"))


def saved_again(loader):
    def load_again(folder):
        loader(folder).save_pretrained(folder.parent / "again")
        return loader(folder.parent / "again")

    return load_again


def through(loader, change):
    def changed(folder):
        model = loader(folder)
        return change(model, folder) or model

    return changed


def evaluate(model, folder):
    arguments = TrainingArguments(str(folder.parent / "run"), report_to="none", use_cpu=True, disable_tqdm=True)
    data = [{"input_ids": TOKENS[0], "labels": TOKENS[0]}]
    Trainer(model, arguments, eval_dataset=data).evaluate()


def callback(model, folder):
    arguments = TrainingArguments(str(folder.parent / "run"), report_to="none", use_cpu=True)
    state = TrainerState(global_step=1, max_steps=1)
    model.save_pretrained(folder.parent / "run" / "checkpoint-1")
    MaterializeCallback().on_save(arguments, state, TrainerControl(), model=model)
    return PeftModel.from_pretrained(base(), folder.parent / "run" / "checkpoint-1" / "plain" / "adapter")


def pushed(model, folder):
    push(model, "somebody/something")


def written(model, folder):
    model.generate(TOKENS, max_new_tokens=2, pad_token_id=0)


def plain_of(model, folder):
    return PeftModel.from_pretrained(base(), materialize(model, folder.parent / "plain"))


def merged(model, folder):
    return model.merge_and_unload()


def loaded_again(model, folder):
    model.load_adapter(folder, "default")


def pushed_plain(folder):
    push(folder, "somebody/something", form="materialized")


def load_ours(folder):
    return load_generated(base(), folder)


def text(folder):
    path = folder.parent / "text.txt"
    path.write_text("A qubit is a two-level system, and a circuit turns it. " * 20, encoding="utf-8")
    return path


NATIVE = {
    "PeftModel": peft_model,
    "load_adapter": second_adapter,
    "its configuration": written_config,
    "AutoPeftModel": lambda folder: AutoPeftModelForCausalLM.from_pretrained(folder),
    "hub.load": lambda folder: load(str(folder)),
    "hub.load onto a base": lambda folder: load(str(folder), base()),
    "materialize the folder": plain,
    "materialize the model": through(peft_model, plain_of),
    "merge_and_unload": through(peft_model, merged),
    "generate": through(peft_model, written),
    "save again": saved_again(peft_model),
    "Trainer.evaluate": through(peft_model, evaluate),
    "MaterializeCallback": through(peft_model, callback),
    "hub.push": through(peft_model, pushed),
    "hub.push materialized": pushed_plain,
    "qpa materialize": lambda folder: command("materialize", folder, folder.parent / "plain"),
    "qpa evaluate": lambda folder: command("evaluate", BASE, "--text", text(folder), "--adapter", folder),
}
LOADED = {
    "load_generated": load_ours,
    "load_adapter": through(load_ours, loaded_again),
    "merge_and_unload": through(load_ours, merged),
    "materialize the model": through(load_ours, plain_of),
    "save again": saved_again(load_ours),
    "MaterializeCallback": through(load_ours, callback),
    "qpa evaluate": lambda folder: command("evaluate", BASE, "--text", text(folder), "--adapter", folder),
}

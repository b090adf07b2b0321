"""A device as the adapter's backend; fake devices run on Qiskit Aer, as IBM's own local mode has them."""

import importlib.util
import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from helpers import logits
from models import build
from peft import PeftModel
from trained import trainer
from transformers import GPT2Config

from qpa_hf import QPAConfig, materialize, plan
from qpa_hf.measurement.device.ledger import Ledger

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.filterwarnings("ignore:The generator has:UserWarning"),
]
needs_runtime = pytest.mark.skipif(
    importlib.util.find_spec("qiskit_ibm_runtime") is None, reason="needs the extra `noise`"
)
DEVICE = {"backend": "ibm", "device": "fake_torino", "shots": 50}
SMALL = {"chunk_size": 256, "n_circuits": 1, "circuit_depth": 1, "gradient": "parameter_shift"}


def n_jobs(folder):
    return Ledger(folder).n_kept


@needs_runtime
def test_an_interrupted_run_repeats_no_job_and_its_checkpoint_needs_no_device(tmp_path):
    adapter = DEVICE | SMALL | {"device_folder": str(tmp_path / "jobs")}
    steps = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    with pytest.raises(RuntimeError, match="`max_jobs`=2 would be passed"):  # a step, its checkpoint, and no more
        trainer(tmp_path, adapter=adapter | {"max_jobs": 2}, **steps).train()
    assert n_jobs(tmp_path / "jobs") == 2
    resumed = trainer(tmp_path, adapter=adapter, **steps)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert n_jobs(tmp_path / "jobs") == 4
    expected = logits(resumed.model.eval(), "llama")
    config = QPAConfig.from_pretrained(str(tmp_path / "checkpoint-2"))
    config.device_folder, config.max_jobs = str(tmp_path / "elsewhere"), 1
    loaded = PeftModel.from_pretrained(build("llama"), tmp_path / "checkpoint-2", config=config).eval()
    assert torch.equal(logits(loaded, "llama"), expected)
    materialize(tmp_path / "checkpoint-2", tmp_path / "plain")
    plain = PeftModel.from_pretrained(build("llama"), tmp_path / "plain").eval()
    assert torch.equal(logits(plain, "llama"), expected)
    assert not (tmp_path / "elsewhere").exists()
    assert json.loads((tmp_path / "plain" / "adapter_config.json").read_text())["peft_type"] == "LORA"


@needs_runtime
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_example_submits_no_further_job_once_it_has_ended(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["device.py", "--steps", "1", "--output", str(tmp_path)])
    example = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "device.py"))
    ends = []
    for _ in range(2):
        example["main"]()
        ends.append(capsys.readouterr().out.splitlines()[-1])
    assert ends[0] == ends[1]


@needs_runtime
def test_plan_says_how_many_jobs_and_shots_a_step_is():
    config = QPAConfig.paper(2048, r=4, target_modules=["lm_head"], task_type="CAUSAL_LM", **DEVICE)
    row = plan(config, GPT2Config()).rows[0]
    step = row.measuring
    assert (step.jobs_per_step, step.circuits_per_step, step.shots_per_step) == (1, 113, 113 * 50)


LARGE = [  # shots, circuits, and how many jobs of at most 10 million executions these are
    ("20x", 8 * 161, 3),  # 26,378,240 executions
    (50, 8 * 161, 1),
    (100_000, 8 * 161, 13),
]


@needs_runtime
@pytest.mark.parametrize(("shots", "n_circuits", "n_jobs"), LARGE)
def test_plan_counts_the_jobs_that_the_service_takes(shots, n_circuits, n_jobs):
    lora = {"r": 4, "target_modules": ["lm_head"], "task_type": "CAUSAL_LM"}
    config = QPAConfig(**lora, **(DEVICE | {"shots": shots}))
    step = plan(config, GPT2Config(), n_steps=10).rows[0].measuring
    assert (step.circuits_per_step, step.jobs_per_step, step.jobs_per_run) == (n_circuits, n_jobs, 10 * n_jobs)


@needs_runtime
@pytest.mark.parametrize("shots", [100_001, "200x"])
def test_shots_beyond_the_service_are_refused_before_training(shots):
    config = QPAConfig(r=4, target_modules=["lm_head"], task_type="CAUSAL_LM", **(DEVICE | {"shots": shots}))
    with pytest.raises(ValueError, match="shots of a circuit are more than the 100,000 that a device takes"):
        plan(config, GPT2Config())


@needs_runtime
def test_plan_compares_the_estimators_over_a_run_before_anything_starts():
    config = QPAConfig.paper(2048, r=4, target_modules=["lm_head"], task_type="CAUSAL_LM", **DEVICE)
    result = plan(config, GPT2Config(), n_steps=1000)
    found = {
        one.gradient: (one.circuits_per_run, one.shots_per_run, one.jobs_per_run) for one in result.rows[0].estimators
    }
    assert found == {
        "parameter_shift": (113_000, 5_650_000, 1000),
        "spsa": (17_000, 850_000, 1000),
        "none": (1000, 50_000, 1000),
    }
    assert "parameter_shift *" in str(result)


BAD = [
    ({"device": "osaka"}, "`device`='osaka' is not known. Choose one of 'fake_torino', 'fake_fez', or an 'ibm_...'"),
    ({"device": None}, "do not go together. Use backend='ibm' and one of 'fake_torino'"),
    ({"backend": "exact"}, "do not go together"),
    ({"shots": None}, "A device measures with a finite number of shots. Set `shots`"),
    ({"gradient": "exact"}, "'exact' is a simulator's privilege; a device has no backward pass"),
    ({"max_jobs": 0}, "`max_jobs`=0 is not allowed"),
    ({"backend": "exact", "device": None, "max_jobs": 5}, "limit what is submitted to a device, and there is none"),
    ({"noise": "fez"}, "`noise`='fez' is not possible with `backend`='ibm'"),
]


@pytest.mark.parametrize(("settings", "message"), BAD, ids=[str(case[0]) for case in BAD])
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        QPAConfig(**(DEVICE | settings))


@pytest.mark.skipif(importlib.util.find_spec("qiskit_ibm_runtime") is not None, reason="the extra is installed")
def test_a_missing_extra_is_named_at_once():
    with pytest.raises(ImportError, match=r"`device`='fake_torino' needs .*qpa-hf\[noise\]"):
        QPAConfig(**DEVICE)


def test_a_checkpoint_needs_no_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    saved = DEVICE | {"peft_type": "QPA", "layout": [["lora_A", [4, 8], None]]}  # as PEFT reads it
    assert QPAConfig(**saved).measured_by == "fake_torino"

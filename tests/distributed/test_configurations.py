"""Every configuration in `examples/accelerate` is one that Accelerate itself loads, and says what its name says."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

FOLDER = Path(__file__).parents[2] / "examples" / "accelerate"
PRECISIONS = {"h100": "bf16", "v100": "fp16"}
KINDS = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
NAMES = [f"{gpu}_1" for gpu in PRECISIONS]
NAMES += [f"{gpu}_{n}_{kind}" for gpu in PRECISIONS for n in (2, 8) for kind in KINDS]


@pytest.mark.parametrize("name", NAMES)
def test_configuration_says_what_its_name_says(name):
    gpu, n_processes, *kind = name.split("_")
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    found = (config.mixed_precision, config.num_processes, str(config.distributed_type.value))
    assert found == (PRECISIONS[gpu], int(n_processes), KINDS[kind[0]] if kind else "NO")


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(("fsdp2", "zero2", "zero3"))])
def test_version_or_stage_is_that_of_the_name(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    key, settings = (
        ("fsdp_version", config.fsdp_config) if name.endswith("fsdp2") else ("zero_stage", config.deepspeed_config)
    )
    assert settings[key] == int(name[-1])


def test_every_configuration_is_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == sorted(NAMES)


def test_example_makes_the_arguments_that_turn_zero_3_on_before_its_model():
    text = (FOLDER.parent / "train.py").read_text(encoding="utf-8")
    assert text.index("= TrainingArguments(") < text.index("AutoModelForCausalLM.from_pretrained(")

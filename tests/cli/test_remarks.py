"""Remarks of others that a command does not pass on."""

import logging
import subprocess
import sys
import warnings

import pytest

from qpa_hf import remarks
from qpa_hf.demo.arms import BASE
from qpa_hf.terminal import guarded

REMARKS = [(name, one) for name, several in (remarks.OF_IMPORTS | remarks.OF_COMMANDS).items() for one in several]


@pytest.mark.parametrize(("name", "words"), REMARKS)
def test_a_remark_is_silent_and_what_else_its_logger_says_is_not(name, words, caplog):
    remarks.silence_commands()
    with caplog.at_level(logging.WARNING, logger=name):
        logging.getLogger(name).addHandler(caplog.handler)  # transformers' loggers pass nothing on
        logging.getLogger(name).warning("%s and so on", words)
        logging.getLogger(name).warning("Something else")
        logging.getLogger(name).removeHandler(caplog.handler)
    assert {record.getMessage() for record in caplog.records} == {"Something else"}


def test_a_training_says_nothing_that_its_user_cannot_act_on(book, tmp_path):
    code = "from qpa_hf_cli import main; main()"
    settings = ("adapter.r=16", "data.block_length=32", "training.max_steps=2", "training.save_steps=1")
    options = ["--model", BASE, "--train", book, *(word for setting in settings for word in ("--set", setting))]
    command = [sys.executable, "-c", code, "train", "--output", tmp_path / "run", *options]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for words in ("Warning", "[transformers]", "findfont", "gemm_4bit", "fan_in_fan_out", "loss_type"):
        assert words not in result.stderr + result.stdout


def test_a_warning_of_ours_is_one_sentence_without_a_line_of_code():
    with guarded():
        shown = warnings.formatwarning(UserWarning("Do this."), UserWarning, "module.py", 1)
        other = warnings.formatwarning(FutureWarning("Gone soon."), FutureWarning, "module.py", 1)
    assert shown == "Warning: Do this.\n"
    assert other.startswith("module.py:1: FutureWarning")

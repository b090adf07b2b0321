"""What `qpa` imports before there is anything to do."""

import subprocess
import sys
from importlib.metadata import version

import pytest

from qpa_hf import __version__
from qpa_hf.training import RECIPES
from qpa_hf_cli import options
from qpa_hf_cli.main import app

HEAVY = ("qpa_hf", "torch", "transformers", "peft", "datasets", "numpy", "bitsandbytes")
COMMANDS = [info.callback.__name__ for info in app.registered_commands]
CODE = f"""
import sys
from importlib.metadata import version
from qpa_hf_cli import main
try:
    main()
finally:
    print("imported:", *(name for name in {HEAVY} if sys.modules.get(name)))
"""


def run(*arguments):
    return subprocess.run([sys.executable, "-c", CODE, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize(
    "command", [(), *((name,) for name in COMMANDS)], ids=lambda words: words[0] if words else "-"
)
def test_help_imports_no_library_of_models(command):
    result = run(*command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1].strip() == "imported:"


def test_a_misspelt_command_imports_no_library_of_models():
    result = run("trian")
    assert (result.returncode, "trian" in result.stderr) == (2, True)
    assert result.stdout.strip() == "imported:"


def test_a_plan_imports_no_library_of_quantised_weights(tmp_path):
    result = run("plan", tmp_path, "--target", "c_attn")
    assert result.returncode == 2
    assert "peft" in result.stdout
    assert "bitsandbytes" not in result.stdout


def test_a_command_says_nothing_of_its_libraries():
    result = run("compare", "--list-arms")
    assert (result.returncode, result.stderr) == (0, "")


def test_help_names_all_recipes():
    assert sorted(options.RECIPES) == sorted(RECIPES)


def test_version_names_the_libraries_too_and_imports_none():
    result = run("--version")
    words, imported = result.stdout.splitlines()
    assert (result.returncode, result.stderr, imported.strip()) == (0, "", "imported:")
    assert words.startswith(f"qpa-hf {__version__} (torch {version('torch')}, transformers ")

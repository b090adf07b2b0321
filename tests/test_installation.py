"""What `make` does before it installs anything: a torch that is there stays, and what is missing is named."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".ci" / "install.py"


@pytest.fixture
def install():
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh virtual environment in which a torch is installed by name only."""
    folder = tmp_path_factory.mktemp("environments") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "torch.py").touch()
    (packages / "torch-2.6.0+rocm6.dist-info").mkdir()
    (packages / "torch-2.6.0+rocm6.dist-info" / "METADATA").write_text("Name: torch\nVersion: 2.6.0+rocm6\n")
    return folder


def test_a_torch_that_is_there_stays(install, environment):
    kept = install.keep_torch(str(environment / "bin" / "python"), str(environment))
    assert Path(kept).read_text() == "torch==2.6.0+rocm6\n"


@pytest.mark.parametrize("name", ["torch", "triton", "sympy"])
def test_what_belongs_to_a_build_of_torch_is_not_pinned(name):
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert not [pin for pin in pins if pin.startswith(f"{name}==")]


@pytest.mark.parametrize(
    ("driver", "index"), [(None, ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]), ("/bin/true", [])]
)
def test_without_a_gpu_torch_comes_as_its_cpu_build(install, monkeypatch, driver, index):
    monkeypatch.setattr(install.shutil, "which", lambda _: driver)
    assert install.torch_line() == [install.TORCH, *index]


def test_without_a_network_one_sentence_says_so(environment):
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}
    nowhere["PIP_INDEX_URL"] = "http://127.0.0.1:9/simple"
    command = [sys.executable, SCRIPT, environment, "demo"]
    result = subprocess.run(command, cwd=ROOT, env=os.environ | nowhere, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("pip finds nothing: connect this machine, or set a mirror")
    assert result.stderr.count("\n") == 1


def test_an_old_python_is_refused(install, monkeypatch, tmp_path):
    monkeypatch.setattr(install.sys, "version_info", (3, 10, 13))
    with pytest.raises(SystemExit, match=r"^Python 3\.11 or newer is needed, but .*: run `make"):
        install.environment(str(tmp_path / "venv"))


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [("venv", "makes no virtual environments: install its venv"), ("pip", "has no pip: remove the folder")],
)
def test_what_a_python_lacks_is_named(install, monkeypatch, tmp_path, missing, sentence):
    monkeypatch.setattr(install, "has", lambda _, module: module not in (missing, "torch"))
    monkeypatch.setattr(install.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0))
    with pytest.raises(SystemExit, match=sentence):
        install.environment(str(tmp_path / "venv"))

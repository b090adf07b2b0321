"""What an installed package has: setup.cfg names its packages and data one by one."""

from pathlib import Path

import yaml
from setuptools import Distribution
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent.parent


def test_an_installed_package_has_every_file_of_the_tree(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files(["setup.cfg"])
    command = build_py(distribution)
    command.build_lib = str(tmp_path)
    command.finalize_options()
    command.run()
    built = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    outside = {f"qpa_hf/{name}": name for name in ("model_cards", "trainer_callbacks")}
    folders = {"qpa_hf": "qpa_hf", "qpa_hf_cli": "qpa_hf_cli"} | outside
    assert built == {
        f"{installed}/{path.relative_to(ROOT / folder).as_posix()}"
        for installed, folder in folders.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_forms_of_issues_have_what_github_asks_of_them():
    forms = [path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
    assert len(forms) == 3
    for path in forms:
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert form.keys() == {"name", "description", "labels", "body"}
        assert len({field["id"] for field in form["body"]}) == len(form["body"])
        assert {field["type"] for field in form["body"]} <= {"textarea", "input"}

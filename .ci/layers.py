"""Check the layers of pyproject.toml: `python .ci/layers.py`.

Two rooms of the package stand at the top of the tree, where import-linter does not look: it is given a copy in which
they are in their places.
"""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Copy the package, and end as import-linter does."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    outside = dict(line.split(" = ") for line in settings["options"]["package_dir"].split("\n") if line)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("qpa_hf", "qpa_hf_cli"):
            shutil.copytree(ROOT / name, Path(folder) / name)
        for name, place in outside.items():
            shutil.copytree(ROOT / place, Path(folder, *name.split(".")))
        shutil.copy(ROOT / "pyproject.toml", folder)
        alone = os.environ | {"PYTHONPATH": folder}
        command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
        sys.exit(subprocess.run(command, cwd=folder, env=alone, check=False).returncode)


if __name__ == "__main__":
    main()

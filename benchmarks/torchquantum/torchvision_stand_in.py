"""Put a stand-in for torchvision into this environment, if it has none.

TorchQuantum's data sets import torchvision; its circuits use nothing of it. Where a torchvision that matches torch can
be installed, install that. Every name of the stand-in raises as soon as it is used.
"""

import importlib.util
import sysconfig
from pathlib import Path

MODULES = (
    "__init__",
    "datasets/__init__",
    "datasets/utils",
    "io",
    "transforms/__init__",
    "transforms/functional",
    "transforms/v2/__init__",
    "transforms/v2/functional",
)
SOURCE = '''"""A stand-in without content: only imports succeed."""


class _Named(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name

    def __call__(cls, *args, **kwargs):
        raise ImportError("This environment has a stand-in for torchvision. Install torchvision to use it.")


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return _Named(name, (), {})
'''


def main() -> None:
    """Write the stand-in, unless torchvision is there."""
    if importlib.util.find_spec("torchvision") is not None:
        print("torchvision is there already.")
        return
    root = Path(sysconfig.get_path("purelib")) / "torchvision"
    for module in MODULES:
        path = root / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SOURCE, encoding="utf-8")
    print(f"Wrote a stand-in for torchvision ({len(MODULES)} files).")


if __name__ == "__main__":
    main()

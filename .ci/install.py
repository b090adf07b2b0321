"""Make a virtual environment and install qpa_hf into it, or say in one sentence why that cannot be done.

    python3 .ci/install.py .venv demo

A torch that the environment has, or that the Python which makes it has, stays as it is, whatever its version. Where
there is none, TORCH is installed: as its CPU build where no NVIDIA driver is found, if PyTorch's own index can be
reached, since the build on PyPI brings gigabytes of CUDA libraries.
"""

import glob
import os
import platform
import shutil
import subprocess
import sys

TORCH = os.environ.get("TORCH", "torch==2.13.0")
CPU_INDEX = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
# For tests alone: Triton's interpreter beside a CPU build of torch. A CUDA build brings the Triton it needs.
TRITON = "triton==3.9.0"
KEPT = "torch.txt"  # in the environment: the version that nothing installed later may replace
PEFT_VERSIONS = "0.18.1 0.19.1 0.20.0 0.21.2"  # what `make contract` runs on
ALL_EXTRAS = "chat,classify,dev,docs,fast,gguf,heads,image,noise,plots,quality,quantised,quantum-train"
# What tests give exported adapters to has no wheels for an older Linux; without it those tests are skipped.
READERS_NEED = ("glibc", (2, 35))

# What each environment gets, a list of pip's arguments for each call; {kept} is the file with torch's version.
PINNED = ["-c", "constraints.txt", "-c", "{kept}"]
SETS = {
    "demo": [PINNED + ["-e", ".[fast,plots]"]],
    "develop": [PINNED + ["-e", ".[{extras}]"]],
    "package": [PINNED + ["{wheel}[plots]"]],
    "torchquantum": [
        ["-c", "{kept}", "-r", "benchmarks/torchquantum/requirements.txt", "-e", ".[fast,plots]"],
        ["--no-deps", "-r", "benchmarks/torchquantum/no_deps.txt"],
    ],
}


def extras():
    """Return all extras that this system has wheels for, as pip takes them."""
    name, version = platform.libc_ver()
    has_readers = name == READERS_NEED[0] and tuple(map(int, version.split(".")[:2])) >= READERS_NEED[1]
    return ALL_EXTRAS + (",readers" if has_readers else "")


def torch_line():
    """Return pip's arguments for torch where there is none."""
    return [TORCH] + ([] if shutil.which("nvidia-smi") else CPU_INDEX)


def ask(python, code):
    """Return what `code` prints in another Python, None where it fails."""
    result = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return result.stdout.decode().strip() if result.returncode == 0 else None


def has(python, module):
    """Tell whether another Python finds a module, without importing it."""
    return ask(python, f"import importlib.util, sys; sys.exit(not importlib.util.find_spec({module!r}))") is not None


def environment(folder):
    """Make the virtual environment if it is not there, and return its Python."""
    if sys.version_info < (3, 11):  # noqa: UP036 - it is an older Python that this line is for
        found = f"{sys.executable} is {sys.version.split()[0]}"
        sys.exit(f"Python 3.11 or newer is needed, but {found}: run `make PYTHON=python3.11`.")
    python = os.path.join(folder, "Scripts" if os.name == "nt" else "bin", "python")
    if not os.path.exists(python):
        if not (has(sys.executable, "venv") and has(sys.executable, "ensurepip")):
            sys.exit(f"{sys.executable} makes no virtual environments: install its venv and pip (python3-venv).")
        shared = ["--system-site-packages"] if has(sys.executable, "torch") else []
        if subprocess.run([sys.executable, "-m", "venv"] + shared + [folder]).returncode:
            sys.exit(f"No virtual environment could be made in {folder}, for the reason above.")
    if not has(python, "pip"):
        sys.exit(f"{python} has no pip: remove the folder {folder}, so that it is made anew.")
    return python


def pip(python, arguments):
    """Install, or end with what pip said and one sentence."""
    print("pip install " + " ".join(arguments), flush=True)
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"] + arguments
    result = subprocess.run(command, stderr=subprocess.PIPE)
    said = result.stderr.decode(errors="replace")
    if result.returncode == 0:
        return
    if any(sign in said for sign in ("new connection", "name resolution", "timed out", "from versions: none")):
        sys.exit("pip finds nothing: connect this machine, or set a mirror with `pip config set global.index-url`.")
    sys.exit(f"{said}pip could not install `{' '.join(arguments)}`, for the reason above.")


def keep_torch(python, folder):
    """Install torch where there is none, and write down the version that stays."""
    if not has(python, "torch"):
        pip(python, torch_line())
    version = ask(python, "import importlib.metadata as m; print('torch==' + m.version('torch'))")
    kept = os.path.join(folder, KEPT)
    with open(kept, "w", encoding="utf-8") as file:
        file.write(version + "\n")
    return kept


def main(folder, name):
    """Install one of SETS."""
    python = environment(folder)
    names = {"kept": keep_torch(python, folder), "extras": extras(), "wheel": (glob.glob("dist/*.whl") or [""])[0]}
    for arguments in SETS[name]:
        pip(python, [argument.format(**names) for argument in arguments])
    if name == "develop" and sys.platform == "linux" and not has(python, "triton"):
        pip(python, [TRITON])


if __name__ == "__main__":
    main(*sys.argv[1:])

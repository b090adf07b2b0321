"""A Hub, a client and adapters: what a test of faults happens in, and what it looks at afterwards."""

import hashlib
import itertools
import json
from pathlib import Path

import torch
from client import Client
from loophub import LoopHub
from loophub.store import git_hash
from safetensors.torch import save_file

OWNER, TOKEN, READER = "alice", "hf_writes", "hf_reads"
SMALL, LARGE = 5_000, 11_000_000  # bytes of weights; above 10 MB, files are cut in parts and chunks
FILES = ("README.md", "adapter_config.json", "adapter_model.safetensors")


class Scene:
    """A Hub and a client on one path.

    Args:
        path: "lfs" or "xet".
        root: directory for everything.
    """

    def __init__(self, path, root):
        self.path, self.root = path, root
        self.hub = LoopHub(root / "hub")
        self.client = Client(path, self.hub.url, root / "client")
        self.numbers = itertools.count()
        self.shared = {}

    def close(self):
        """End both processes."""
        self.client.close()
        self.hub.__exit__()

    def adapter(self, size=SMALL):
        """Write a plain LoRA adapter whose content nobody has seen before, and return its folder."""
        number = next(self.numbers)
        folder = self.root / f"adapter{number}"
        folder.mkdir()
        weights = torch.rand(size // 4, generator=torch.Generator().manual_seed(number))
        save_file({"base_model.model.layer.lora_A.weight": weights}, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": number + 1})
        )
        (folder / "README.md").write_text(f"---\ntags: [lora]\n---\nAdapter {number}\n")
        return folder

    def repo_name(self):
        """Return the name of a repository that does not exist."""
        return f"{OWNER}/repo{next(self.numbers)}"

    def cache(self):
        """Return a new cache directory."""
        return self.root / f"cache{next(self.numbers)}"

    def push(self, folder, repo, **options):
        """Push a folder without faults."""
        self.hub.clear()
        return self.client.call("push", str(folder), repo, **{"token": TOKEN} | options)

    def pushed(self, size=SMALL):
        """Return a folder and the repository it was pushed to, the same for all tests, which only read it."""
        if size not in self.shared:
            self.shared[size] = self.adapter(size), self.repo_name()
            self.push(*self.shared[size])
        return self.shared[size]

    def download(self, repo, cache, **options):
        """Download a repository without faults."""
        self.hub.clear()
        return self.client.call("download", repo, cache_dir=str(cache), **{"token": READER} | options)

    # What is there afterwards.

    def repo(self, name):
        """Return a repository as the Hub keeps it, an empty one if there is none."""
        return self.hub.repo(name) or {"branches": {}, "commits": {}, "tags": {}, "pulls": {}}

    def tip(self, name, branch="main"):
        """Return the commit that a branch is at."""
        return self.repo(name)["branches"].get(branch)

    def commits(self, name):
        """Return the commits that were pushed, without the Hub's first one and other people's."""
        commits = self.repo(name)["commits"]
        return [oid for oid in commits if commits[oid]["author"] == OWNER and commits[oid]["number"] > 0]

    def holds(self, name, commit, folder):
        """Return whether a commit has all files of an adapter, byte for byte."""
        tree = self.repo(name)["commits"][commit]["tree"]
        return all(file in tree and hash_of(tree[file]) == name_of(folder / file) for file in FILES)

    def is_clean(self, name, folder):
        """Return whether the Hub has no damaged file, and each commit all of the adapter's files or none."""
        return not self.hub.problems(name) and all(self.holds(name, oid, folder) for oid in self.commits(name))

    def leaks(self, result):
        """Return where the token went, other than to the Hub itself."""
        told = [key for key in ("message", "log") if TOKEN in result.get(key, "")]
        return told + [entry["line"] for entry in self.hub.log if is_leak(entry)]


def is_leak(entry):
    """Return whether a request took a user's token to the place where only contents lie."""
    return entry["authorization"].startswith("Bearer hf_") and entry["host"].startswith("localhost")


def name_of(path):
    """Return the hash by which the Hub should know a file."""
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest() if path.suffix == ".safetensors" else git_hash(content)


def hash_of(entry):
    """Return the hash by which the Hub knows an entry."""
    return entry.get("lfs") or entry["oid"]


def same_files(folder, other):
    """Return whether two folders have the same adapter."""
    return all((Path(other) / file).read_bytes() == (folder / file).read_bytes() for file in FILES)


def damaged(cache, folder):
    """Return the files in a cache's snapshots that differ from the adapter's."""
    found = [path for file in FILES for path in Path(cache).glob(f"*/snapshots/*/{file}") if path.exists()]
    return [path for path in found if path.read_bytes() != (folder / path.name).read_bytes()]

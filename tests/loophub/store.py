"""Repositories on disk: content-addressed files and one state file, so that a killed Hub loses nothing it took."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LFS_SUFFIXES = ("*.bin", "*.gz", "*.h5", "*.model", "*.msgpack", "*.npz", "*.onnx", "*.pt", "*.pth", "*.safetensors")
ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_SUFFIXES).encode()
SHORTEST_HASH = 7  # characters; git's usual abbreviation

Entry = dict[str, Any]  # {"oid": git hash, "size": bytes, "lfs": sha256 or absent}
Repo = dict[str, Any]  # private, gated, branches, tags, commits, created, pulls


class HubError(Exception):
    """An answer with an error status.

    Args:
        status: HTTP status.
        message: what the client is told.
        code: value of the header `X-Error-Code`.
        headers: further headers.
    """

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


def git_hash(content: bytes) -> str:
    """Return the name that git gives to this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the small text that stands in git for a file kept elsewhere."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def now() -> str:
    """Return the time as the Hub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


class Store:
    """All repositories under one directory.

    Args:
        root: directory; what an earlier store left there is taken up again.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.lock = root, threading.RLock()
        for kind in ("blobs", "lfs", "xorbs", "xfiles"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        state = root / "state.json"
        self.repos: dict[str, Repo] = json.loads(state.read_text()) if state.exists() else {}

    def path(self, kind: str, name: str) -> Path:
        """Return where a content of this kind and name lies."""
        return self.root / kind / name

    def put(self, kind: str, name: str, content: bytes) -> None:
        """Keep content under its name; readers see all of it or nothing."""
        path = self.path(kind, name)
        partial = path.with_name(f"{name}.{threading.get_ident()}.partial")
        partial.write_bytes(content)
        os.replace(partial, path)

    def save(self) -> None:
        """Write the state of all repositories."""
        partial = self.root / "state.partial"
        with partial.open("w") as file:
            json.dump(self.repos, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.root / "state.json")

    def content(self, entry: Entry) -> bytes:
        """Return a file's bytes."""
        name = entry.get("lfs")
        return (self.path("lfs", name) if name else self.path("blobs", entry["oid"])).read_bytes()

    def git_entry(self, content: bytes) -> Entry:
        """Keep a small file in git and return its entry."""
        oid = git_hash(content)
        self.put("blobs", oid, content)
        return {"oid": oid, "size": len(content)}

    def lfs_entry(self, sha256: str) -> Entry:
        """Return the entry of a file that was uploaded before."""
        size = self.path("lfs", sha256).stat().st_size
        return {"oid": git_hash(lfs_pointer(sha256, size)), "size": size, "lfs": sha256}

    def create(self, name: str, private: bool, author: str) -> Repo:
        """Make a repository with the Hub's first commit in it."""
        repo = {"private": private, "gated": False, "branches": {}, "tags": {}, "commits": {}, "created": now()}
        self.repos[name] = repo | {"pulls": {}}
        self.commit(self.repos[name], "main", {".gitattributes": self.git_entry(ATTRIBUTES)}, "initial commit", author)
        return self.repos[name]

    def commit(self, repo: Repo, branch: str, tree: dict[str, Entry], title: str, author: str, text: str = "") -> str:
        """Add a commit to a branch and return its hash."""
        commit = {"parent": repo["branches"].get(branch), "tree": tree, "title": title, "message": text}
        commit |= {"date": now(), "author": author, "number": len(repo["commits"])}
        oid = hashlib.sha1(json.dumps(commit, sort_keys=True).encode()).hexdigest()
        repo["commits"][oid] = commit
        repo["branches"][branch] = oid
        self.save()
        return oid

    def resolve(self, repo: Repo, revision: str) -> str:
        """Return the commit that a branch, a tag or a shortened hash means.

        Raises:
            HubError: 404 if there is none.
        """
        for references in (repo["branches"], repo["tags"]):
            if revision in references:
                return references[revision]
        found = [oid for oid in repo["commits"] if oid.startswith(revision) and len(revision) >= SHORTEST_HASH]
        if len(found) != 1:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found[0]

    def problems(self, name: str) -> list[str]:
        """Return every file of every commit of a repository that is missing or has the wrong hash."""
        commits = self.repos[name]["commits"] if name in self.repos else {}
        trees = [(oid, path, entry) for oid in commits for path, entry in commits[oid]["tree"].items()]
        return [f"{oid} {path}" for oid, path, entry in trees if not self._is_whole(entry)]

    def _is_whole(self, entry: Entry) -> bool:
        try:
            content = self.content(entry)
        except OSError:
            return False
        if "lfs" in entry:
            return hashlib.sha256(content).hexdigest() == entry["lfs"]
        return git_hash(content) == entry["oid"]

"""Endpoints that write: repositories, uploads, commits, branches and tags."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from fnmatch import fnmatch
from typing import Any
from urllib.parse import unquote

import yaml

from loophub.exchange import Exchange
from loophub.reading import MODEL
from loophub.store import Entry, HubError, Repo, now

LARGEST_IN_GIT = 10_000_000  # bytes
PART = 4_000_000  # bytes of a multipart upload


def _create(exchange: Exchange) -> None:
    wanted, user, store = exchange.json(), exchange.user(must_write=True), exchange.server.store
    owner = wanted.get("organization") or user
    name = f"{owner}/{wanted['name']}"
    if owner != user:
        raise HubError(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
    answer = {"url": f"{exchange.address}/{name}", "id": name, "name": name}
    with store.lock:
        if name in store.repos:
            return exchange.reply(409, answer | {"error": "You already created this model repo"})
        store.create(name, wanted.get("visibility") == "private", owner)
    return exchange.reply(200, answer)


def _validate_card(exchange: Exchange) -> None:
    head = re.match(r"^---\r?\n(.*?)\r?\n---", exchange.json().get("content", ""), re.S)
    warnings = [] if head else [{"message": "empty or missing yaml metadata in repo card"}]
    errors = []
    try:
        card = yaml.safe_load(head[1]) if head else {}
        if not isinstance(card, dict) or not isinstance(card.get("tags", []), list):
            errors.append({"message": "metadata should be an object, and its tags an array"})
    except yaml.YAMLError as error:
        errors.append({"message": str(error)})
    exchange.reply(400 if errors else 200, {"warnings": warnings, "errors": errors})


def _is_large(exchange: Exchange, repo: Repo, revision: str, path: str, size: int) -> bool:
    store = exchange.server.store
    tree = repo["commits"][store.resolve(repo, revision)]["tree"]
    attributes = store.content(tree[".gitattributes"]).decode() if ".gitattributes" in tree else ""
    patterns = [line.split()[0] for line in attributes.splitlines() if "filter=lfs" in line]
    return size > LARGEST_IN_GIT or any(fnmatch(path.rsplit("/", 1)[-1], pattern) for pattern in patterns)


def _preupload(exchange: Exchange, name: str, revision: str) -> None:
    repo, store = exchange.repo(name, write="create_pr" not in exchange.query), exchange.server.store
    revision = unquote(revision)
    tree = repo["commits"][store.resolve(repo, revision)]["tree"]
    answer = []
    for file in exchange.json()["files"]:
        path, entry = file["path"], tree.get(file["path"])
        mode = "lfs" if _is_large(exchange, repo, revision, path, file["size"]) else "regular"
        known = {"oid": entry.get("lfs") or entry["oid"]} if entry else {}
        answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False} | known)
    exchange.reply(200, {"files": answer})


def _lfs_batch(exchange: Exchange, name: str) -> None:
    exchange.user(must_write=True)
    wanted, server = exchange.json(), exchange.server
    answer = []
    for content in wanted["objects"]:
        address = f"{server.storage_address}/_lfs/{content['oid']}"
        known: dict[str, Any] = {"oid": content["oid"], "size": content["size"]}
        if not server.store.path("lfs", content["oid"]).exists():
            header = {}
            if content["size"] > PART:
                parts = range(1, -(-content["size"] // PART) + 1)
                header = {"chunk_size": str(PART)} | {str(part): f"{address}/{part}" for part in parts}
            verify = {"href": f"{exchange.address}/_lfs/{content['oid']}/verify", "header": {}}
            known["actions"] = {"upload": {"href": address, "header": header}, "verify": verify}
        answer.append(known)
    exchange.reply(200, {"transfer": "multipart", "objects": answer})


def _lfs_put(exchange: Exchange, oid: str) -> None:
    _keep_large(exchange, oid, exchange.body())
    exchange.reply(200, {})


def _lfs_put_part(exchange: Exchange, oid: str, part: str) -> None:
    exchange.server.parts[oid, int(part)] = exchange.body()
    exchange.reply(200, b"", {"ETag": f'"{part}"'})


def _lfs_join(exchange: Exchange, oid: str) -> None:
    parts = exchange.server.parts
    wanted = [(oid, part["partNumber"]) for part in exchange.json()["parts"]]
    if any(key not in parts for key in wanted):
        raise HubError(400, "Some parts are not there")
    _keep_large(exchange, oid, b"".join(parts.pop(key) for key in wanted))
    exchange.reply(200, {})


def _keep_large(exchange: Exchange, oid: str, content: bytes) -> None:
    if hashlib.sha256(content).hexdigest() != oid:
        raise HubError(400, "sha256 mismatch")
    exchange.server.store.put("lfs", oid, content)


def _lfs_verify(exchange: Exchange, oid: str) -> None:
    exchange.user(must_write=True)
    path = exchange.server.store.path("lfs", oid)
    if not path.exists() or path.stat().st_size != exchange.json()["size"]:
        raise HubError(404, "LFS object not found after upload")
    exchange.reply(200, {})


def _commit(exchange: Exchange, name: str, revision: str) -> None:
    is_pull = "create_pr" in exchange.query
    repo, store = exchange.repo(name, write=not is_pull), exchange.server.store
    lines = [json.loads(line) for line in exchange.body().splitlines() if line.strip()]
    header, author = lines[0]["value"], exchange.user() or ""
    answer: dict[str, Any] = {"success": True, "hookOutput": "", "pullRequestUrl": None}
    with store.lock:
        branch = _open_pull(exchange, repo, header, author) if is_pull else unquote(revision)
        if branch not in repo["branches"]:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        tip, parent = repo["branches"][branch], header.get("parentCommit")
        if parent and not is_pull and not tip.startswith(parent):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(repo["commits"][tip]["tree"])
        for operation in lines[1:]:
            value = operation["value"]
            if operation["key"] == "deletedFile":
                del tree[value["path"]]
                continue
            tree[value["path"]] = _entry(exchange, repo, branch, operation["key"], value)
        oid = store.commit(repo, branch, tree, header["summary"], author, header.get("description", ""))
    if is_pull:
        answer["pullRequestUrl"] = f"{exchange.address}/{name}/discussions/{branch.rsplit('/', 1)[-1]}"
    exchange.reply(200, answer | {"commitOid": oid, "commitUrl": f"{exchange.address}/{name}/commit/{oid}"})


def _open_pull(exchange: Exchange, repo: Repo, header: dict[str, Any], author: str) -> str:
    number = str(len(repo["pulls"]) + 1)
    repo["pulls"][number] = {"title": header["summary"], "author": author, "date": now()}
    branch = f"refs/pr/{number}"
    repo["branches"][branch] = exchange.server.store.resolve(repo, header.get("parentCommit") or "main")
    return branch


def _entry(exchange: Exchange, repo: Repo, branch: str, kind: str, value: dict[str, Any]) -> Entry:
    store, path = exchange.server.store, value["path"]
    if kind == "lfsFile":
        if not store.path("lfs", value["oid"]).exists():
            raise HubError(400, f"LFS pointer points to an object that does not exist: {path}")
        return store.lfs_entry(value["oid"])
    if kind != "file":
        raise HubError(400, f"unknown operation {kind}")
    content = base64.b64decode(value["content"])
    if content and _is_large(exchange, repo, branch, path, len(content)):
        raise HubError(400, f"{path}: binary files must be uploaded through LFS or Xet")
    return store.git_entry(content)


def _branch(exchange: Exchange, name: str, branch: str) -> None:
    repo, store = exchange.repo(name, write=True), exchange.server.store
    branch = unquote(branch)
    with store.lock:
        if branch in repo["branches"]:
            raise HubError(409, f"Reference already exists: refs/heads/{branch}")
        repo["branches"][branch] = store.resolve(repo, exchange.json().get("startingPoint") or "main")
        store.save()
    exchange.reply(200, {})


def _tag(exchange: Exchange, name: str, revision: str) -> None:
    repo, store = exchange.repo(name, write=True), exchange.server.store
    tag = exchange.json()["tag"]
    with store.lock:
        if tag in repo["tags"]:
            raise HubError(409, f"Tag already exists: {tag}")
        repo["tags"][tag] = store.resolve(repo, unquote(revision))
        store.save()
    exchange.reply(200, {})


ENDPOINTS = [
    ("POST", "/api/repos/create", _create),
    ("POST", "/api/validate-yaml", _validate_card),
    ("POST", f"{MODEL}/preupload/([^/]+)", _preupload),
    ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", _lfs_batch),
    ("PUT", "/_lfs/([0-9a-f]{64})", _lfs_put),
    ("POST", "/_lfs/([0-9a-f]{64})", _lfs_join),
    ("PUT", r"/_lfs/([0-9a-f]{64})/(\d+)", _lfs_put_part),
    ("POST", "/_lfs/([0-9a-f]{64})/verify", _lfs_verify),
    ("POST", f"{MODEL}/commit/([^/]+)", _commit),
    ("POST", f"{MODEL}/branch/([^/]+)", _branch),
    ("POST", f"{MODEL}/tag/([^/]+)", _tag),
]

"""Endpoints that read: what a repository is, its commits and files."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlencode

import yaml

from loophub.exchange import Exchange
from loophub.store import Entry, HubError, Repo, Store, lfs_pointer
from loophub.xet import hash_of

PAGE = 1000  # entries of a listing in one answer


def _card(store: Store, tree: dict[str, Entry]) -> dict[str, Any]:
    if "README.md" not in tree:
        return {}
    text = store.content(tree["README.md"]).decode("utf8", "replace")
    head = re.match(r"^---\r?\n(.*?)\r?\n---", text, re.S)
    try:
        card = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError:
        card = {}
    return json.loads(json.dumps(card or {}, default=str))


def _info(exchange: Exchange, name: str, revision: str = "main") -> None:
    repo, store = exchange.repo(name), exchange.server.store
    oid = store.resolve(repo, unquote(revision))
    commit = repo["commits"][oid]
    card = _card(store, commit["tree"])
    answer = {"id": name, "modelId": name, "author": name.partition("/")[0], "sha": oid, "cardData": card}
    answer |= {"lastModified": commit["date"], "createdAt": repo["created"], "private": repo["private"]}
    answer |= {"gated": repo["gated"], "disabled": False, "downloads": 0, "likes": 0, "tags": card.get("tags") or []}
    answer["siblings"] = [{"rfilename": path} for path in sorted(commit["tree"])]
    exchange.reply(200, answer)


def _listed(store: Store, path: str, entry: Entry) -> dict[str, Any]:
    listed: dict[str, Any] = {"type": "file", "oid": entry["oid"], "size": entry["size"], "path": path}
    if "lfs" in entry:
        pointer = len(lfs_pointer(entry["lfs"], entry["size"]))
        listed["lfs"] = {"oid": entry["lfs"], "size": entry["size"], "pointerSize": pointer}
        xet_hash = hash_of(store, entry["lfs"])
        if xet_hash:
            listed["xetHash"] = xet_hash
    return listed


def _folders(path: str) -> list[str]:
    return [str(folder) for folder in PurePosixPath(path).parents if str(folder) != "."]


def _tree(exchange: Exchange, name: str, revision: str) -> None:
    repo, store = exchange.repo(name), exchange.server.store
    tree = repo["commits"][store.resolve(repo, unquote(revision))]["tree"]
    found = [_listed(store, path, entry) for path, entry in sorted(tree.items())]
    for folder in sorted({folder for path in tree for folder in _folders(path)}):
        oid = hashlib.sha1(folder.encode()).hexdigest()
        found.append({"type": "directory", "oid": oid, "size": 0, "path": folder})
    first = int(exchange.parameter("cursor") or 0)
    headers = {}
    if first + PAGE < len(found):
        query = urlencode({key: values[0] for key, values in exchange.query.items()} | {"cursor": first + PAGE})
        headers["Link"] = f'<{exchange.address}{exchange.route}?{query}>; rel="next"'
    exchange.reply(200, found[first : first + PAGE], headers)


def _refs(exchange: Exchange, name: str) -> None:
    repo = exchange.repo(name)

    def listed(references: dict[str, str], kind: str) -> list[dict[str, str]]:
        return [
            {"name": ref, "ref": f"refs/{kind}/{ref}", "targetCommit": oid}
            for ref, oid in references.items()
            if not ref.startswith("refs/pr/")
        ]

    answer = {"branches": listed(repo["branches"], "heads"), "tags": listed(repo["tags"], "tags"), "converts": []}
    exchange.reply(200, answer | {"pullRequests": []})


def _commits(exchange: Exchange, name: str, revision: str) -> None:
    repo = exchange.repo(name)
    oid: str | None = exchange.server.store.resolve(repo, unquote(revision))
    found = []
    while oid:
        commit = repo["commits"][oid]
        entry = {"id": oid, "title": commit["title"], "message": commit["message"], "date": commit["date"]}
        found.append(entry | {"authors": [{"user": commit["author"]}]})
        oid = commit["parent"]
    exchange.reply(200, found)


def _discussions(exchange: Exchange, name: str) -> None:
    repo = exchange.repo(name)
    listed = [_pull_request(name, number, repo) for number in repo["pulls"]]
    exchange.reply(200, {"discussions": listed, "count": len(listed), "start": 0})


def _pull_request(name: str, number: str, repo: Repo) -> dict[str, Any]:
    pull = repo["pulls"][number]
    about = {"title": pull["title"], "num": int(number), "status": "open", "createdAt": pull["date"]}
    about |= {"author": {"name": pull["author"]}, "isPullRequest": True}
    return about | {"repo": {"name": name, "type": "model"}}


def _resolve(exchange: Exchange, name: str, revision: str, path: str) -> None:
    repo, store = exchange.repo(name, files=True), exchange.server.store
    oid = store.resolve(repo, unquote(revision))
    entry = repo["commits"][oid]["tree"].get(unquote(path))
    headers = {"X-Repo-Commit": oid}
    if entry is None:
        raise HubError(404, "Entry not found", "EntryNotFound", headers)
    if "lfs" not in entry:
        return exchange.send_file(store.path("blobs", entry["oid"]), entry["oid"], headers)
    sha256 = entry["lfs"]
    headers |= {"Location": f"{exchange.server.storage_address}/_storage/{sha256}", "ETag": f'"{sha256}"'}
    headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(entry["size"])}
    xet_hash = hash_of(store, sha256)
    if xet_hash:
        renewal = f"{exchange.address}/api/models/{name}/xet-read-token/{oid}"
        headers |= {"X-Xet-Hash": xet_hash, "Link": f'<{renewal}>; rel="xet-auth"'}
    return exchange.reply(302, b"", headers)


def _harnesses(exchange: Exchange) -> None:
    exchange.reply(200, {"standardEnvVars": [], "harnesses": {}})  # the client asks once a day


def _storage(exchange: Exchange, sha256: str) -> None:
    exchange.send_file(exchange.server.store.path("lfs", sha256), sha256)


MODEL = "/api/models/([^/]+/[^/]+)"
ENDPOINTS = [
    ("GET", "/api/agent-harnesses", _harnesses),
    ("GET", MODEL, _info),
    ("GET", f"{MODEL}/revision/([^/]+)", _info),
    ("GET", f"{MODEL}/tree/([^/]+)", _tree),
    ("GET", f"{MODEL}/refs", _refs),
    ("GET", f"{MODEL}/commits/([^/]+)", _commits),
    ("GET", f"{MODEL}/discussions", _discussions),
    ("GET HEAD", "/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _resolve),
    ("GET HEAD", "/_storage/([0-9a-f]{64})", _storage),
]

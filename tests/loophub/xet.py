"""The Xet content store: files in chunks, chunks in compressed blocks (xorbs), as the hf_xet client speaks of them."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import time
from typing import Any, NamedTuple

import lz4.frame

from loophub.exchange import Exchange
from loophub.store import HubError, Store

LZ4, GROUPED = 1, 2  # compression schemes; GROUPED is LZ4 over the bytes sorted by their index modulo 4
FOOTER, HEADER_SIZE = b"XETBLOB", 8
SHARD_HEADER, RECORD, SHARD_END = 48, 48, b"\xff" * 32
HAS_VERIFICATION, HAS_SHA256 = 1 << 31, 1 << 30
LIFETIME = 3600  # seconds a token is good for


class Chunk(NamedTuple):
    """One chunk in a serialized xorb: its place, its compression and its size when unpacked, in bytes."""

    start: int
    end: int
    scheme: int
    size: int


def chunks_of(xorb: bytes) -> list[Chunk]:
    """Return the chunks of a serialized xorb."""
    found, at = [], 0
    while at + HEADER_SIZE <= len(xorb) and xorb[at : at + len(FOOTER)] != FOOTER:
        packed, scheme = int.from_bytes(xorb[at + 1 : at + 4], "little"), xorb[at + 4]
        found.append(Chunk(at, at + HEADER_SIZE + packed, scheme, int.from_bytes(xorb[at + 5 : at + 8], "little")))
        at += HEADER_SIZE + packed
    return found


def unpack(xorb: bytes, chunk: Chunk) -> bytes:
    """Return a chunk's bytes."""
    data = xorb[chunk.start + HEADER_SIZE : chunk.end]
    if chunk.scheme:
        data = lz4.frame.decompress(data)
    if chunk.scheme == GROUPED:
        joined, at = bytearray(len(data)), 0
        for group in range(4):
            size = (len(data) - group + 3) // 4
            joined[group::4] = data[at : at + size]
            at += size
        data = bytes(joined)
    if len(data) != chunk.size:
        raise HubError(400, "bad chunk length")
    return data


def _hexadecimal(digest: bytes) -> str:
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", digest))


def hash_of(store: Store, sha256: str) -> str | None:
    """Return the Xet hash of a file's content, or None if it did not come through Xet."""
    path = store.path("xfiles", sha256)
    return path.read_text() if path.exists() else None


def _token(exchange: Exchange, name: str, scope: str, revision: str) -> None:
    exchange.repo(name, write=scope == "write" and "create_pr" not in exchange.query)
    address, end = f"{exchange.server.storage_address}/_cas", int(time.time()) + LIFETIME
    headers = {"X-Xet-Cas-Url": address, "X-Xet-Access-Token": f"xet-{scope}", "X-Xet-Token-Expiration": str(end)}
    exchange.reply(200, {"accessToken": f"xet-{scope}", "exp": end, "casUrl": address}, headers)


def _check(exchange: Exchange, scope: str) -> None:
    token = exchange.headers.get("Authorization", "")
    if token not in ("Bearer xet-write", f"Bearer xet-{scope}"):
        raise HubError(401, "no Xet token for this")


def _put_xorb(exchange: Exchange, name: str) -> None:
    _check(exchange, "write")
    store = exchange.server.store
    known = store.path("xorbs", name).exists()
    store.put("xorbs", name, exchange.body())
    exchange.reply(200, {"was_inserted": not known})


def _get_xorb(exchange: Exchange, name: str) -> None:
    exchange.send_file(exchange.server.store.path("xorbs", name), name)  # a signed address: no token


def _put_shard(exchange: Exchange) -> None:
    _check(exchange, "write")
    data, at, store = exchange.body(), SHARD_HEADER, exchange.server.store
    while data[at : at + len(SHARD_END)] != SHARD_END:
        name = _hexadecimal(data[at : at + 32])
        flags, count = struct.unpack("<II", data[at + 32 : at + 40])
        terms = [_term(data, at + RECORD * (1 + index)) for index in range(count)]
        at += RECORD * (1 + count)
        if flags & HAS_VERIFICATION:
            at += RECORD * count
        content = b"".join(_content(store, term) for term in terms)
        sha256 = hashlib.sha256(content).hexdigest()
        if flags & HAS_SHA256:
            if _hexadecimal(data[at : at + 32]) != sha256:
                raise HubError(400, "shard sha256 mismatch")
            at += RECORD
        store.put("lfs", sha256, content)
        store.put("xorbs", f"{name}.json", json.dumps(terms).encode())
        store.put("xfiles", sha256, name.encode())
    exchange.reply(200, {"result": 1})


def _term(data: bytes, at: int) -> dict[str, Any]:
    _, size, first, end = struct.unpack("<IIII", data[at + 32 : at + 48])
    return {"xorb": _hexadecimal(data[at : at + 32]), "size": size, "first": first, "end": end}


def _content(store: Store, term: dict[str, Any]) -> bytes:
    xorb = store.path("xorbs", term["xorb"]).read_bytes()
    return b"".join(unpack(xorb, chunk) for chunk in chunks_of(xorb)[term["first"] : term["end"]])


def _reconstruction(exchange: Exchange, name: str) -> None:
    _check(exchange, "read")
    store = exchange.server.store
    path = store.path("xorbs", f"{name}.json")
    if not path.exists():
        raise HubError(404, "file not found")
    terms = json.loads(path.read_text())
    size = sum(term["size"] for term in terms)
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", exchange.headers.get("Range") or "")
    first = int(wanted[1]) if wanted else 0
    last = min(int(wanted[2]), size - 1) if wanted and wanted[2] else size - 1
    if first >= size:
        return exchange.reply(416)
    used, at, offset = [], 0, 0
    for term in terms:
        if at + term["size"] > first and at <= last:
            offset = first - at if not used else offset
            used.append(term)
        at += term["size"]
    return exchange.reply(200, _plan(exchange, used, offset))


def _plan(exchange: Exchange, terms: list[dict[str, Any]], offset: int) -> dict[str, Any]:
    places: dict[str, list[dict[str, Any]]] = {}
    answer = []
    for term in terms:
        chunks = chunks_of(exchange.server.store.path("xorbs", term["xorb"]).read_bytes())
        part = {"start": term["first"], "end": term["end"]}
        answer.append({"hash": term["xorb"], "unpacked_length": term["size"], "range": part})
        place = {"start": chunks[term["first"]].start, "end": chunks[term["end"] - 1].end - 1}
        address = f"{exchange.server.storage_address}/_cas/xorb/{term['xorb']}"
        places.setdefault(term["xorb"], []).append({"range": part, "url": address, "url_range": place})
    return {"offset_into_first_range": offset, "terms": answer, "fetch_info": places}


def _ignore(exchange: Exchange) -> None:
    exchange.reply(200, {})


ENDPOINTS = [
    ("GET", "/api/models/([^/]+/[^/]+)/xet-(read|write)-token/([^/]+)", _token),
    ("POST", "/_cas/v1/xorbs/[^/]+/([0-9a-f]{64})", _put_xorb),
    ("GET HEAD", "/_cas/xorb/([0-9a-f]{64})", _get_xorb),
    ("POST", "/_cas/v1/shards", _put_shard),
    ("GET", "/_cas/v1/reconstructions/([0-9a-f]{64})", _reconstruction),
    ("POST", "/_cas/.*telemetry", _ignore),
]

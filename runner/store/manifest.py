"""`manifest.json`: what an artifact is, what made it, and what it was made from. Written strictly, read leniently."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class File:
    """One file of an artifact; ``path`` is relative to the version's folder, with ``/``."""

    path: str
    size: int  # bytes
    sha256: str
    media_type: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of ``manifest.json``."""

    schema_version: int = SCHEMA_VERSION
    name: str
    version: str  # "v3"
    kind: str
    fingerprint: str
    spec: dict[str, Any]
    inputs: tuple[dict[str, Any], ...]  # {field, ref, digest, files, size}
    files: tuple[File, ...]  # under files/
    digest: str  # of ``files``: see ``digest_of``
    records: tuple[File, ...]  # under records/, report.html, report.json: outside the digest
    metrics: dict[str, Any]
    gates: tuple[dict[str, Any], ...]  # {name, limit, value, passed}
    ledger: tuple[dict[str, Any], ...]
    environment: dict[str, Any]  # python, packages, platform, devices
    code: dict[str, Any]  # version, commit, dirty
    run: dict[str, Any]  # id, attempts, started, ended, host, executor
    linked_from: str | None = None  # "NAME@vN" where the same fingerprint was made under another name
    extra: dict[str, Any] = field(default_factory=dict)  # keys of a newer writer, kept

    def to_json(self) -> dict[str, Any]:
        """JSON types only."""
        data = asdict(self)
        return {**data.pop("extra"), **data}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Manifest:
        """Rebuild a manifest; keys that this version does not know go to ``extra``."""
        known = {f.name for f in fields(Manifest)} - {"extra"}
        listed: dict[str, Any] = {k: tuple(File(**f) for f in data[k]) for k in ("files", "records")}
        plain = {k: v for k, v in data.items() if k in known and k not in listed}
        plain |= {k: tuple(plain[k]) for k in ("inputs", "gates", "ledger")}
        return Manifest(**plain, **listed, extra={k: v for k, v in data.items() if k not in known})


def digest_of(files: tuple[File, ...]) -> str:
    """sha256 over the sorted (path, size, sha256) of ``files``: the artifact's identity, free of clock and host."""
    rows = sorted((f.path, f.size, f.sha256) for f in files)
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()

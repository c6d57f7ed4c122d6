"""The fingerprint: sha256 of what decides a step's result, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

HASH_VERSION = 1  # raised when the same step would get another fingerprint: every artifact is then made anew


def of(*, kind: str, code_version: int, result: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Fingerprint of a step, 64 hex digits.

    ``result`` maps the paths of the fields marked RESULT to their values, defaults included; ``inputs`` the names of
    the inputs to their digests. The order of neither matters.
    """
    content = {"hash": HASH_VERSION, "kind": kind, "code": code_version, "result": result, "inputs": inputs}
    return hashlib.sha256(canonical(content)).hexdigest()


def of_listing(files: Iterable[tuple[str, str]]) -> str:
    """Digest of files in order, each as (relative path, digest of its content), as ``sha256:...``."""
    return "sha256:" + hashlib.sha256(canonical([list(pair) for pair in files])).hexdigest()


def canonical(value: Any) -> bytes:
    """JSON with sorted keys, no white space, ASCII only and floats as ``repr`` writes them."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")

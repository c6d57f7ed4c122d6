"""What differs between two artifacts, key by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.store.manifest import Manifest

Differences = dict[str, dict[str, tuple[Any, Any]]]  # section -> key -> (before, after); None: not there


def differences(before: Manifest, after: Manifest) -> Differences:
    """Sections ``spec, inputs, metrics, files, environment`` with the keys that differ; all five are always there."""
    pairs = {
        "spec": (flat(before.spec), flat(after.spec)),
        "inputs": (_inputs(before), _inputs(after)),
        "metrics": (flat(before.metrics), flat(after.metrics)),
        "files": (_files(before), _files(after)),
        "environment": (flat(before.environment), flat(after.environment)),
    }
    return {section: _differences(*pair) for section, pair in pairs.items()}


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys; lists stay whole."""
    return dict(_flat(value, path))


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif path:
        yield path, value


def _inputs(manifest: Manifest) -> dict[str, Any]:
    return {str(i.get("field")): f"{i.get('ref')} ({i.get('digest')})" for i in manifest.inputs}


def _files(manifest: Manifest) -> dict[str, Any]:
    return {f.path: f"{f.size:,} bytes, sha256 {f.sha256[:12]}" for f in manifest.files}


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    keys = sorted({*before, *after})
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}

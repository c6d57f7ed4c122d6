"""A store in a fresh folder, and artifacts to put into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.store.leases import Lease
from runner.store.local import Store, open_store
from runner.store.manifest import Manifest
from runner.store.publish import Draft

FINGERPRINT = "ab" * 32
FILES = {"texts.jsonl": b'{"text": "ol\xc3\xa1"}\n', "sub folder/p\u00e3o.txt": b"p\xc3\xa3o\n"}

MakeDraft = Callable[..., Draft]
Publish = Callable[..., Manifest]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "a store"))


@pytest.fixture
def make_draft(store: Store) -> MakeDraft:
    def make(
        lease: Lease, *, fingerprint: str = FINGERPRINT, files: dict[str, bytes] | None = None, **changes: Any
    ) -> Draft:
        name = lease.name
        run = store.start_run(name, kind="asr-transcribe", fingerprint=fingerprint, executor="inline", lease=lease)
        folder = store.run_folder(run.id)
        for path, content in (FILES if files is None else files).items():
            (folder / "out" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "out" / path).write_bytes(content)
        (folder / "records" / "timing.jsonl").write_bytes(f'{{"attempt": {run.attempts}}}\n'.encode())
        (folder / "report.html").write_text("<p>report</p>")
        values: dict[str, Any] = {
            "name": name,
            "kind": "asr-transcribe",
            "fingerprint": fingerprint,
            "spec": {"kind": "asr-transcribe", "name": name, "decode": {"beam_size": 1}},
            "inputs": [{"field": "model", "ref": "./model", "digest": "sha256:00", "files": 1, "size": 3}],
            "metrics": {"wer": 0.125},
            "gates": [],
            "ledger": [],
            "environment": {"python": "3.11"},
            "code": {"version": "0"},
            "run": {"id": run.id, "attempts": run.attempts},
            "out": folder / "out",
            "records": folder / "records",
            "reports": {"report.html": folder / "report.html"},
        }
        return Draft(**{**values, **changes})

    return make


@pytest.fixture
def publish(store: Store, make_draft: MakeDraft) -> Publish:
    """Publish an artifact: ``publish(name, fingerprint=..., files=...)``."""

    def run(name: str, **changes: Any) -> Manifest:
        with store.lease(name) as lease:
            return store.publish(make_draft(lease, **changes), lease=lease)

    return run

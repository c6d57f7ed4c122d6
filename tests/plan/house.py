"""A tiny real model folder, clips, specs, and artifacts published as execution does."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.plan import listing
from runner.plan.build import build
from runner.plan.reasons import Listing
from runner.plan.step import Plan, Step
from runner.schema.load import load
from runner.store.leases import Lease
from runner.store.local import Store, open_store
from runner.store.manifest import Manifest
from runner.store.publish import Draft


def write_model(folder: Path, *, model_type: str = "wav2vec2", seed: int = 0) -> None:
    """A model as far as a plan looks: configuration, and weights whose header is true."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": model_type,
        "architectures": ["Wav2Vec2ForCTC"],
        "vocab_size": 4,
        "hidden_size": 8,
        "pad_token_id": 0,
        "num_hidden_layers": 1,
        "conv_kernel": [10, 3],
        "conv_stride": [5, 2],
        "feat_extract_norm": "group",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.json").write_text(json.dumps({"<pad>": 0, "|": 1, "a": 2, "b": 3}))
    header = {
        "lm_head.weight": {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]},
        "lm_head.bias": {"dtype": "F32", "shape": [4], "data_offsets": [128, 144]},
    }
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes([seed]) * 144)


class House:
    """A folder of specs beside a store."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "specs"
        self.store: Store = open_store(str(root / "store"))
        write_model(self.folder / "model")
        for name in "ab":
            self.clip(name)

    def clip(self, name: str, content: bytes = b"") -> None:
        """Write a clip."""
        path = self.folder / "clips" / f"{name}.wav"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content or name.encode())

    def spec(self, name: str = "a", **fields: Any) -> dict[str, Any]:
        """A small spec."""
        return {
            "kind": "asr-transcribe",
            "name": name,
            "model": {"id": "./model"},
            "data": {"audio": ["clips/*.wav"]},
        } | fields

    def plan(self, *specs: Mapping[str, Any], folder: Path | None = None) -> Plan:
        """Plan specs that are written to one file."""
        file = (folder or self.folder) / "set.yaml"
        file.write_text("\n---\n".join(json.dumps(spec) for spec in specs))
        return build(load([str(file)]), self.store)

    def step(self, **fields: Any) -> Step:
        """Plan one spec."""
        (step,) = self.plan(self.spec(**fields)).steps
        return step

    def publish(
        self,
        step: Step,
        *,
        files: Mapping[str, bytes] | None = None,
        listings: Mapping[str, Listing] | None = None,
        **metrics: float,
    ) -> Manifest:
        """Publish what a step made, as execution does; ``listings`` are of its input files, left out: the clips."""
        with self.store.lease(step.name) as lease:
            draft = self._draft(step, lease, files, metrics)
            listing.write(draft.records, {"data.audio": self._clips()} if listings is None else listings)
            return self.store.publish(draft, lease=lease)

    def quarantine(self, step: Step, **metrics: float) -> None:
        """Keep what a step made and missed a gate with."""
        with self.store.lease(step.name) as lease:
            self.store.quarantine(self._draft(step, lease, None, metrics), lease=lease)

    def _draft(
        self, step: Step, lease: Lease, files: Mapping[str, bytes] | None, metrics: Mapping[str, float]
    ) -> Draft:
        run = self.store.start_run(
            step.name, kind=step.kind, fingerprint=step.fingerprint, executor="inline", lease=lease
        )
        out, records = (self.store.run_folder(run.id) / part for part in ("out", "records"))
        for name, content in (files or {"transcripts.jsonl": self.transcripts(step)}).items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(content)
        records.mkdir(exist_ok=True)
        return Draft(
            name=step.name,
            kind=step.kind,
            fingerprint=step.fingerprint,
            spec=step.spec,
            inputs=[{k: getattr(i, k) for k in ("field", "ref", "digest", "files", "size")} for i in step.inputs],
            metrics=dict(metrics),
            gates=[],
            ledger=[],
            environment={},
            code={"version": "0", "code_version": step.code_version},
            run={"id": run.id},
            out=out,
            records=records,
            reports={},
        )

    def transcripts(self, step: Step) -> bytes:
        """A table of the clips, as a job would write it."""
        return b"".join(json.dumps({"path": p, "text": step.fingerprint}).encode() + b"\n" for p, _ in self._clips())

    def _clips(self) -> list[tuple[str, str]]:
        clips = sorted((self.folder / "clips").glob("*.wav"))
        return [(f"clips/{path.name}", hashlib.sha256(path.read_bytes()).hexdigest()) for path in clips]

"""The real job through the executor of this process: torch is loaded once for all of a test file's applies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.execution.carry import carry_out
from runner.execution.failures import Stop
from runner.execution.inline import Inline
from runner.execution.order import JobFunction
from runner.execution.results import StepResult
from runner.plan.build import build
from runner.schema.load import load
from runner.store.local import Store, open_store
from runner.ui.progress import Silence

QUICKSTART = Path(__file__).parents[2] / "specs" / "quickstart"
CLIPS = QUICKSTART / "clips"
Fields = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What became of one step, and where its files are."""

    result: StepResult
    files: Path  # files/ of the artifact, or of the run that kept them
    records: Path
    manifest: Mapping[str, Any]  # the artifact's; empty when nothing was published

    @property
    def transcripts(self) -> bytes:
        return (self.files / "transcripts.jsonl").read_bytes()

    @property
    def rows(self) -> list[Fields]:
        return [json.loads(line) for line in self.transcripts.splitlines()]

    @property
    def texts(self) -> dict[str, str]:
        """By name: the row's id, or its path."""
        return {row.get("id") or row["path"]: row["text"] for row in self.rows}


def spec(name: str = "job", **fields: Any) -> Fields:
    """A transcription by the quickstart's model, on one thread."""
    base = {"kind": "asr-transcribe", "name": name, "model": {"id": str(QUICKSTART / "model")}}
    return {**base, "compute": {"cpus": 1}, **fields}


def manifest(folder: Path, rows: Iterable[Mapping[str, Any]], name: str = "clips.jsonl") -> str:
    """Write a manifest into ``folder``; its name."""
    (folder / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return name


def clips(*names: str, **more: Any) -> list[Fields]:
    """Rows of the quickstart's manifest by file name, all without names; their audio as absolute paths."""
    rows = [json.loads(line) for line in (QUICKSTART / "clips.jsonl").read_text("utf-8").splitlines()]
    picked = [row for row in rows if not names or Path(row["audio"]).name in names]
    return [{**row, "audio": str(QUICKSTART / row["audio"]), **more} for row in picked]


def apply(
    folder: Path, *specs: Fields, store: str = "store", job: JobFunction | None = None
) -> tuple[list[StepResult], Store]:
    """Carry ``specs`` out as one file of ``folder``."""
    path = folder / "spec.yaml"
    path.write_text("\n---\n".join(json.dumps(s) for s in specs), "utf-8")
    kept = open_store(str(folder / store))
    plan = build(load([str(path)]), kept)
    results = carry_out(
        plan, kept, make_executor=lambda _: Inline(hard=_no_last_resort), here=True, progress=Silence(), job=job
    )
    return list(results), kept


def transcribe(folder: Path, *, store: str = "store", job: JobFunction | None = None, **fields: Any) -> Ran:
    """Carry one spec out."""
    (result,), kept = apply(folder, spec(**fields), store=store, job=job)
    return ran(result, kept)


def ran(result: StepResult, store: Store) -> Ran:
    """Where the files of ``result`` are."""
    published = store.get(result.name) if result.artifact else None
    if published is not None:
        root = store.folder(published)
        data = json.loads((root / "manifest.json").read_text("utf-8"))
        return Ran(result=result, files=root / "files", records=root / "records", manifest=data)
    root = Path(result.folder) if result.folder else store.run_folder(result.run or "")
    files = root / "files" if result.folder else root / "out"
    return Ran(result=result, files=files, records=root / "records", manifest={})


def _no_last_resort(reason: Stop) -> None:
    raise AssertionError(f"the last resort was needed: {reason}")

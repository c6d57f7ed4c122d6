"""A job that reads the table of another job: applied together, alone, and with recordings that change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runner.context import Context, Result
from runner.execution.results import StepResult
from runner.plan.build import build
from runner.schema import manifest
from runner.schema.load import load
from runner.store.local import open_store
from tests.execution.helpers import applied, folder_with, spec

UP = spec("up")
DOWN = spec("down", data={"manifest": "artifact:up#transcripts.jsonl"})


def _lists(given: Any, ctx: Context) -> Result:
    """Writes a table with the name and the size of each clip."""
    (source,) = [entry for name, entry in ctx.inputs.items() if name != "model"]
    named = manifest.read(source.path, root=ctx.folder) if source.field == "data.manifest" else ()
    files = source.files or [str(row.audio.relative_to(ctx.folder)) for row in named]
    rows = ({"path": file, "text": str((ctx.folder / file).stat().st_size)} for file in files)
    (ctx.out / "transcripts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Result(metrics={})


def _lists_and_changes(given: Any, ctx: Context) -> Result:
    result = _lists(given, ctx)
    if ctx.run.startswith("down."):
        (ctx.folder / "clip.wav").write_bytes(b"changed while it ran")
    return result


def _apply(tmp_path: Path, *specs: dict[str, Any], clip: bytes = b"RIFF", job: Any = _lists) -> list[StepResult]:
    file = folder_with(tmp_path, *specs)
    (tmp_path / "clip.wav").write_bytes(clip)
    store = open_store(str(tmp_path / "store"))
    return list(applied(build(load([str(file)]), store), store, job))


def test_together_then_together_then_alone(tmp_path: Path) -> None:
    assert [r.artifact for r in _apply(tmp_path, UP, DOWN)] == ["up@v1", "down@v1"]
    assert [r.action for r in _apply(tmp_path, UP, DOWN)] == ["reused", "reused"]
    assert [r.action for r in _apply(tmp_path, DOWN)] == ["reused"]


def test_other_recordings_below_the_same_names(tmp_path: Path) -> None:
    _apply(tmp_path, UP, DOWN)
    (made,) = _apply(tmp_path, DOWN, clip=b"another clip")
    assert made.artifact == "down@v2"
    assert '"text": "12"' in (Path(str(made.folder)) / "files" / "transcripts.jsonl").read_text()
    (again,) = _apply(tmp_path, DOWN, clip=b"another clip")
    assert again.action == "reused"


def test_recordings_that_change_meanwhile_are_not_published(tmp_path: Path) -> None:
    up, down = _apply(tmp_path, UP, DOWN, job=_lists_and_changes)
    assert (up.action, down.action, down.exit_code) == ("created", "failed", 5)
    assert "data.manifest: the files behind 'artifact:up#transcripts.jsonl' are not what the plan saw" in down.message

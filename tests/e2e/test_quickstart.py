"""A newcomer's first minutes: the quickstart, twice, with the default executor."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.helpers import environment, manifest, quickstart, runner

pytestmark = pytest.mark.slow


def test_quickstart_then_nothing_to_do(tmp_path: Path) -> None:
    spec = quickstart(tmp_path)
    store = tmp_path / "store"
    first = runner("apply", str(spec), "--store", str(store), cwd=tmp_path)
    version = store / "quickstart-asr" / "v1"
    rows = [json.loads(line) for line in (version / "files" / "transcripts.jsonl").read_text().splitlines()]
    clips = [json.loads(line) for line in (spec.parent / "clips.jsonl").read_text().splitlines()]
    assert {Path(r["path"]).name for r in rows} == {Path(c["audio"]).name for c in clips}
    failed = {Path(r["path"]).name: (r["status"], r["error"]["class"]) for r in rows if r["error"]}
    assert failed == {"corrupt.flac": ("decode_error", "corrupt"), "too-short.wav": ("too_short", "too_short")}
    assert first.returncode == 0, "a recording that fails does not fail the job"
    assert "corrupt.flac" in (version / "report.html").read_text(), "and it is reported"
    metrics = manifest(store, "quickstart-asr")["metrics"]
    assert 0 < metrics["wer"] <= 0.15
    assert re.search(r"wer", first.stdout, re.IGNORECASE)
    assert "<html" in (version / "report.html").read_text().lower()

    # a second time nothing runs: under a second, and ray is not even imported
    walls = []
    for _ in range(3):
        started = time.perf_counter()
        again = runner("apply", str(spec), "--store", str(store), cwd=tmp_path)
        walls.append(time.perf_counter() - started)
        assert "nothing to do" in again.stdout
    assert min(walls) < 1.0
    code = "import sys; from runner.cli.main import main; main(sys.argv[1:]); print('ray' in sys.modules)"
    words = ["apply", str(spec), "--store", str(store)]
    loaded = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.splitlines()[-1] == "False"

    # the report and the store stay readable
    shown = runner("artifacts", "show", "quickstart-asr", "--store", str(store), cwd=tmp_path).stdout
    assert "wer" in shown.lower()
    runner("artifacts", "verify", "--all", "--store", str(store), cwd=tmp_path)


def test_both_executors_and_any_number_of_workers_give_the_same_bytes(tmp_path: Path) -> None:
    spec = quickstart(tmp_path)
    text = spec.read_text()
    digests = []
    for name, workers, words in (("inline", 1, ["--local"]), ("one", 1, []), ("two", 2, [])):
        spec.write_text(f"{text}\ncompute: {{cpus: 1, workers: {workers}}}\n")
        store = tmp_path / name
        runner("apply", str(spec), "--store", str(store), *words, cwd=tmp_path)
        digests.append(manifest(store, "quickstart-asr")["digest"])
    assert len(set(digests)) == 1

"""The review list: who is on it, in which order, and why."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from runner.asr import route
from runner.asr.recordings import Clip, Recording
from runner.asr.spool import Spool
from runner.schema import manifest

CONFIDENCES = [0.9, 0.4, None, 0.65, 0.7, 0.4]


def recording(at: int) -> Recording:
    clip = Clip(path=f"/x/{at}.wav", shown=f"{at}.wav", id=f"n{at}" if at == 3 else None, text="said")
    return Recording(clip=clip, channel=None, named=False, header=None, first=0, samples=0)


def record(at: int, confidence: float | None) -> dict[str, Any]:
    words = [{"word": f"w{i}", "start": i, "end": i + 0.5, "confidence": i / 10} for i in range(8, 0, -1)]
    status = "decode_error" if confidence is None else "ok"
    return {
        "path": f"{at}.wav",
        "status": status,
        "text": f"heard {at}",
        "confidence": confidence,
        "words": words if at == 1 else [],
        "duration_s": 2.0,
    }


def test_uncertain_recordings_worst_first(tmp_path: Path) -> None:
    found = [recording(at) for at in range(len(CONFIDENCES))]
    with closing(Spool(tmp_path, items=len(found), plan="a")) as spool:
        for at, confidence in enumerate(CONFIDENCES):
            spool.finish(at, record(at, confidence), {})
        routed = route.write(tmp_path / "review.jsonl", spool, found, below=0.7)
    rows = [json.loads(line) for line in (tmp_path / "review.jsonl").read_text("utf-8").splitlines()]
    assert [row["path"] for row in rows] == ["1.wav", "5.wav", "3.wav"]
    assert routed.count == 3
    assert [row["confidence"] for row in rows] == [0.4, 0.4, 0.65]
    assert rows[0]["reason"] == (
        "confidence 0.4 is below 0.7; least sure: 'w1' 0.1 at 1 s, 'w2' 0.2 at 2 s, 'w3' 0.3 at 3 s, "
        "'w4' 0.4 at 4 s, 'w5' 0.5 at 5 s"
    )
    assert rows[1]["reason"] == "confidence 0.4 is below 0.7"
    assert [word["word"] for word in rows[0]["words"]] == ["w6", "w5", "w4", "w3", "w2", "w1"]
    assert (rows[2]["id"], rows[2]["heard"]) == ("n3", "heard 3")


def test_the_list_is_a_manifest_without_references(tmp_path: Path) -> None:
    with closing(Spool(tmp_path, items=1, plan="a")) as spool:
        spool.finish(0, record(0, 0.1), {})
        route.write(tmp_path / "review.jsonl", spool, [recording(0)], below=0.7)
    (row,) = manifest.read(tmp_path / "review.jsonl", root=Path("/sound"))
    assert (row.audio, row.text) == (Path("/sound/0.wav"), None)

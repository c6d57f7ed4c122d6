from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.llm.data import skipped as module
from runner.llm.data.skipped import Skipped
from runner.schema.errors import JobError


def test_the_first_broken_row_stops_the_job_with_what_to_do() -> None:
    with pytest.raises(
        JobError, match=r"a.jsonl:3: empty text: 'text'; mend the row, or .* data.on_error: skip"
    ) as caught:
        Skipped("stop").add("a.jsonl:3", "empty text: 'text'")
    assert caught.value.failure == "DataInvalid"


def test_rows_are_counted_by_reason_and_listed(tmp_path: Path) -> None:
    skipped = Skipped("skip")
    for line in range(5):
        skipped.add(f"a.jsonl:{line}", f"not JSON: at character {line}")
    skipped.add("b.jsonl:1", "empty text: 'text'")
    assert skipped.counts == {"not JSON": 5, "empty text": 1}
    assert skipped.examples["not JSON"] == [f"a.jsonl:{n}: not JSON: at character {n}" for n in range(3)]
    skipped.write(tmp_path / "skipped.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    assert rows[-1] == {"place": "b.jsonl:1", "reason": "empty text: 'text'"}


def test_what_processes_skipped_is_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LISTED", 3)
    one, two = Skipped("skip"), Skipped("skip")
    for line in range(2):
        one.add(f"a:{line}", "empty text: 'text'")
        two.add(f"b:{line}", "not JSON: x")
    one.merge(json.loads(json.dumps(two.to_json())))
    assert one.total == 4
    assert one.counts == {"empty text": 2, "not JSON": 2}
    one.write(tmp_path / "skipped.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [row.get("place") for row in rows] == ["a:0", "a:1", "b:0", None]
    assert rows[-1] == {"more": 1}


def test_a_place_counts_once_whoever_tells_of_it() -> None:
    one, two = Skipped("skip"), Skipped("skip")
    one.add("a:1", "not JSON: x")
    for place in ("a:1", "a:2"):
        two.add(place, "not JSON: x")
    assert one.merge(two.to_json()) == {"counts": {"not JSON": 1}, "listed": [["a:2", "not JSON: x"]]}
    assert one.merge(two.taken()) == {"counts": {}, "listed": []} == two.to_json()
    one.add("a:2", "not JSON: x")
    assert one.counts == {"not JSON": 2}

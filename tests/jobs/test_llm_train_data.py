"""`llm-train`, the real job: corpora of every format at once, and corpora that are broken."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from tests.jobs.helpers import Fields, apply, ran

CHAT = {"messages": [{"role": "user", "content": "diga casa"}, {"role": "assistant", "content": "casa casa"}]}
FIRST, SECOND = CHAT["messages"]
BROKEN = {
    "chat.jsonl:3": ('{"messages": [', "not JSON: Expecting value at character 15"),
    "chat.jsonl:5": ('{"texts": "casa"}', "missing field: 'messages'"),
    "chat.jsonl:7": (json.dumps({"messages": [SECOND, FIRST]}), "wrong role order: message 1 is of 'assistant'"),
    "chat.jsonl:9": ('{"messages": []}', "empty conversation: it has no message"),
    "chat.jsonl:11": (json.dumps(CHAT).replace("casa casa", "x" * 10_000_000), "line too long: more than 8 MiB"),
}


def spec(*train: Any, **data: Any) -> Fields:
    """Two steps of a model of one small layer."""
    return {
        "kind": "llm-train",
        "name": "base",
        "method": "sft",
        "architecture": {"type": "llama", "hidden": 16, "layers": 1, "heads": 2, "kv_heads": 1, "feed_forward": 24}
        | {"vocabulary": 300, "positions": 64},
        "data": {"train": list(train)} | data,
        "batch": {"seq_len": 64, "rows": 2, "accumulate": 1},
        "train": {"max_steps": 2, "learning_rate": 0.01},
        "precision": "fp32",
        "optimize": {"probe": False},
        "compute": {"cpus": 1},
        "track": [],
    }


def broken(path: Path) -> None:
    """Whole rows, and a broken one after every second of them."""
    rows = [json.dumps(CHAT)] * (2 * len(BROKEN) + 2)
    for place, (row, _) in BROKEN.items():
        rows[int(place.partition(":")[2]) - 1] = row
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def test_a_broken_row_stops_the_job_with_its_place_and_reason(tmp_path: Path) -> None:
    broken(tmp_path / "chat.jsonl")
    (result,), _ = apply(tmp_path, spec("chat.jsonl"))
    assert result.action == "failed"
    assert result.failure == "DataInvalid"
    assert "chat.jsonl:3: not JSON: Expecting value at character 15; mend the row, or leave such rows out with" in str(
        result.message
    )


def test_broken_rows_are_left_out_counted_and_listed(tmp_path: Path) -> None:
    broken(tmp_path / "chat.jsonl")
    results, store = apply(tmp_path, spec("chat.jsonl", on_error="skip"))
    made = ran(results[0], store)
    assert made.result.action == "created", made.result.message
    listed = [json.loads(line) for line in (made.files / "skipped.jsonl").read_text("utf-8").splitlines()]
    assert [row["place"] for row in listed] == list(BROKEN)
    for row in listed:
        assert row["reason"].startswith(BROKEN[row["place"]][1])
    assert made.manifest["metrics"]["documents_skipped"] == len(BROKEN)


def test_corpora_of_every_format_and_type_are_mixed(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(CHAT) + "\n")
    turns = [{"from": "human", "value": "diga rio"}, {"from": "gpt", "value": "rio rio"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"conversations": turns}] * 2), tmp_path / "b.parquet")
    (tmp_path / "c.json").write_text(json.dumps([{"instruction": "diga", "input": "sol", "output": "sol"}] * 2))
    with (tmp_path / "d.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "question", "completion"), ("1", "diga mar ", "mar")])
    (tmp_path / "e.txt").write_text("um texto\n\noutro texto\n")
    corpora = [
        "a.jsonl",
        "b.parquet",
        {"source": "c.json", "weight": 0.5},
        {"source": "d.csv", "columns": {"question": "prompt"}},
        {"source": "e.txt", "weight": 2},
    ]
    results, store = apply(tmp_path, spec(*corpora, loss_on="all"))
    made = ran(results[0], store)
    assert made.result.action == "created", made.result.message
    assert made.manifest["metrics"]["documents_train"] == 1 + 2 + 2 + 1 + 2
    log = (store.run_folder(made.result.run or "") / "log.txt").read_text("utf-8")
    for line in (
        "a.jsonl: read as messages (columns messages)",
        "b.parquet: read as sharegpt (columns conversations)",
        "c.json: read as alpaca (columns instruction, input, output)",
        "d.csv: read as prompt_completion (columns prompt, completion; not read: id)",
        "e.txt: read as text (columns text)",
    ):
        assert line in log


def test_a_stream_leaves_out_what_is_broken_and_comes_by_again(tmp_path: Path) -> None:
    broken(tmp_path / "chat.jsonl")
    (tmp_path / "more.jsonl").write_text(f"{json.dumps(CHAT)}\n" * 3)
    fields = spec({"source": "chat.jsonl", "weight": 2}, "more.jsonl", on_error="skip", streaming=True)
    results, store = apply(tmp_path, fields | {"packing": {"look_ahead": 20}})
    made = ran(results[0], store)
    assert made.result.action == "created", made.result.message
    listed = [json.loads(line)["place"] for line in (made.files / "skipped.jsonl").read_text("utf-8").splitlines()]
    assert listed == list(BROKEN)


def test_a_chat_whose_reply_is_cut_away_stops_the_job_or_is_told(tmp_path: Path) -> None:
    long = {"messages": [FIRST | {"content": "diga " + "xyzw9876" * 30}, SECOND]}
    for name, count in (("chat.jsonl", 15), ("held.jsonl", 1)):
        (tmp_path / name).write_text("\n".join([json.dumps(CHAT)] * 5 + [json.dumps(long)] * count))
    stopped = spec("chat.jsonl", validation="held.jsonl")
    (result,), _ = apply(tmp_path, stopped)
    assert result.failure == "DataInvalid"
    assert "chat.jsonl:6: nothing to learn: packing.long: truncate ends it after 64 tokens" in str(result.message)
    results, store = apply(tmp_path, spec("chat.jsonl", validation="held.jsonl", on_error="skip"))
    made = ran(results[0], store)
    assert made.result.action == "created", made.result.message
    listed = [json.loads(line)["place"] for line in (made.files / "skipped.jsonl").read_text("utf-8").splitlines()]
    assert listed == [f"chat.jsonl:{line}" for line in range(6, 21)] + ["held.jsonl:6"]
    assert made.manifest["metrics"]["documents_skipped"] == 16
    log = (store.run_folder(made.result.run or "") / "log.txt").read_text("utf-8")
    notes = json.loads((made.files.parent / "report.json").read_text("utf-8"))["notes"]
    for line in (
        "training data: 15 of 20 documents are longer than 64 tokens: ",
        "validation data: 1 of 6 documents are longer than 64 tokens: ",
    ):
        (note,) = [note for note in notes if note.startswith(line)]
        assert log.count(note) == 1


def test_a_stream_tells_what_it_cut_away(tmp_path: Path) -> None:
    long = {"messages": [FIRST | {"content": "diga " + "xyzw9876" * 30}, SECOND]}
    (tmp_path / "chat.jsonl").write_text("\n".join([json.dumps(CHAT)] * 5 + [json.dumps(long)] * 3))
    fields = spec("chat.jsonl", on_error="skip", streaming=True) | {"packing": {"look_ahead": 8}}
    results, store = apply(tmp_path, fields)
    made = ran(results[0], store)
    assert made.result.action == "created", made.result.message
    listed = [json.loads(line)["place"] for line in (made.files / "skipped.jsonl").read_text("utf-8").splitlines()]
    assert sorted(listed) == ["chat.jsonl:6", "chat.jsonl:7", "chat.jsonl:8"]
    notes = json.loads((made.files.parent / "report.json").read_text("utf-8"))["notes"]
    line = "training data: 6 of 16 documents are longer than 64 tokens: "  # of two blocks
    (note,) = [note for note in notes if note.startswith(line)]
    assert note in (store.run_folder(made.result.run or "") / "log.txt").read_text("utf-8")

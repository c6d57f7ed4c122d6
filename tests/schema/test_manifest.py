"""Manifests: what is read, and that every problem has its line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from runner.schema import manifest
from runner.schema.errors import SpecError


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _problems(path: Path) -> list[tuple[int, str]]:
    with pytest.raises(SpecError) as caught:
        list(manifest.read(path))
    return [(p.line, p.message) for p in caught.value.problems]


def test_jsonl_rows_carry_everything(tmp_path: Path) -> None:
    rows = [{"audio": "a.wav", "text": "olá", "id": 7, "start": 1, "end": 2.5, "speaker": "x"}, {"audio": "/abs/b.wav"}]
    path = _write(tmp_path / "m.jsonl", "\ufeff" + "\n\n".join(json.dumps(r) for r in rows) + "\n")
    first, second = manifest.read(path)
    assert (first.audio, first.text, first.id, first.start, first.end) == (tmp_path / "a.wav", "olá", "7", 1.0, 2.5)
    assert (second.audio, second.text, second.id, second.line) == (Path("/abs/b.wav"), None, None, 3)


def test_root_moves_relative_paths_only(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.jsonl", '{"audio": "a.wav"}\n{"audio": "/abs/b.wav"}\n')
    rows = list(manifest.read(path, root=tmp_path / "clips"))
    assert [r.audio for r in rows] == [tmp_path / "clips" / "a.wav", Path("/abs/b.wav")]


def test_csv_quotes_and_empty_cells(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.csv", 'audio,text,start\r\n"a, b.wav","ele disse ""olá""",0.5\r\n\r\nc.wav,,\r\n')
    first, second = manifest.read(path)
    assert (first.audio.name, first.text, first.start) == ("a, b.wav", 'ele disse "olá"', 0.5)
    assert (second.audio.name, second.text, second.start, second.line) == ("c.wav", None, None, 4)


def test_common_voice_table_reads_as_it_is(tmp_path: Path) -> None:
    path = _write(tmp_path / "test.tsv", 'client_id\tpath\tsentence\nx\tc.mp3\t"Sim", disse ela.\n')
    (row,) = manifest.read(path, root=tmp_path / "clips")
    assert (row.audio, row.text) == (tmp_path / "clips" / "c.mp3", '"Sim", disse ela.')


def test_audiofolder_and_transcripts_of_another_job(tmp_path: Path) -> None:
    _write(tmp_path / "metadata.csv", "file_name,transcription\na.wav,olá\n")
    (row,) = manifest.read(tmp_path)
    assert (row.audio, row.text) == (tmp_path / "a.wav", "olá")
    path = _write(tmp_path / "transcripts.jsonl", '{"path": "b.wav", "status": "ok", "text": "bom dia"}\n')
    (row,) = manifest.read(path)
    assert (row.audio, row.text) == (tmp_path / "b.wav", "bom dia")


def test_every_bad_row_is_reported_with_its_line(tmp_path: Path) -> None:
    lines = ['{"text": "x"}', '{"audio": "a.wav"}', "[1]", '{"audio": 3}', '{"audio": "a", "start": true}']
    lines += [
        '{"audio": "a", "start": 2, "end": 1}',
        '{"audio": "a", "end": NaN}',
        '{"audio": "a\\u0000b"}',
        '{"audio": "a", "id": [1]}',
    ]
    found = _problems(_write(tmp_path / "m.jsonl", "\n".join(lines)))
    assert [line for line, _ in found] == [1, 3, 4, 5, 6, 7, 8, 9]
    texts = "\n".join(message for _, message in found)
    assert (
        "audio: required" in texts
        and "got list" in texts
        and "must be after start (2 s), got 1" in texts
        and "NUL" in texts
    )


@pytest.mark.parametrize("name", ["id", "text", "sentence", "audio"])
def test_half_a_character_is_named(tmp_path: Path, name: str) -> None:
    record = json.dumps({"audio": "a.wav", name: "x\ud800"})
    path = _write(tmp_path / "m.jsonl", f'{{"audio": "a.wav", "text": "\\ud83d\\ude00"}}\n{record}\n')
    ((line, message),) = _problems(path)
    assert line == 2
    assert message.startswith("text: " if name == "sentence" else f"{name}: ")
    assert "'\\ud800'" in message


def test_a_path_need_not_be_utf8(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.jsonl", json.dumps({"audio": "ma\udce7\udce3.wav"}))
    (row,) = manifest.read(path)
    assert os.fsencode(row.audio.name) == b"ma\xe7\xe3.wav"


@pytest.mark.parametrize("name", ["start", "end"])
@pytest.mark.parametrize("value", ["1e308", "1e400", "-1", "1000000000.5", "Infinity", "NaN", '"1e308"', "9" * 400])
def test_times_are_bounded(tmp_path: Path, name: str, value: str) -> None:
    path = _write(tmp_path / "m.jsonl", f'{{"audio": "a.wav"}}\n{{"audio": "a.wav", "{name}": {value}}}\n')
    ((line, message),) = _problems(path)
    assert line == 2
    assert message.startswith(f"{name}: must be seconds from 0 to 1000000000, got ")
    (row,) = manifest.read(_write(path, f'{{"audio": "a.wav", "{name}": 1000000000}}\n'))
    assert getattr(row, name) == 1e9


@pytest.mark.parametrize(
    ("name", "content", "line", "words"),
    [
        ("m.jsonl", b'{"audio": "a"}\n{"audio": \n', 2, "not JSON"),
        ("m.jsonl", b"[" * 100_000, 1, "not JSON"),
        ("m.jsonl", b"RIFF" + b"\0" * (2 << 20), 1, "longer than 1 MiB"),
        ("m.jsonl", b'{"audio": "a"}\n{"audio": "\xff"}\n', 2, "not UTF-8"),
        ("m.csv", b"", 1, "no column 'audio'"),
        ("m.csv", b"file,text\na,b\n", 1, "no column 'audio' among 'file', 'text'"),
        ("m.csv", b"audio,text,text\na,b,c\n", 1, "'text' is there twice"),
        ("m.csv", b"audio,text\na,b,c\n", 2, "3 cells, but the first line names 2 columns"),
        ("m.csv", b'audio,text\na,"b\n', 2, "not a table"),
        ("m.wav", b"RIFF", 1, "unknown manifest type '.wav'"),
    ],
)
def test_broken_tables_name_the_place(tmp_path: Path, name: str, content: bytes, line: int, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    ((at, message),) = _problems(path)
    assert at == line
    assert words in message


def test_missing_table_and_odd_folders(tmp_path: Path) -> None:
    assert "cannot be read" in _problems(tmp_path / "none.csv")[0][1]
    assert "holds no table" in _problems(tmp_path)[0][1]
    _write(tmp_path / "state.json", "{}")
    assert manifest.is_arrow(tmp_path)
    assert "datasets package" in _problems(tmp_path)[0][1]


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    for name in ("m.jsonl", "metadata.csv"):
        os.mkfifo(tmp_path / name)
        ((line, message),) = _problems(tmp_path / name)
        assert (line, message[:16]) == (1, "is no plain file")
    assert "holds no table" in _problems(tmp_path)[0][1]


def test_problems_stop_at_twenty(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.jsonl", '{"text": "x"}\n' * 100)
    assert len(_problems(path)) == manifest.MAX_PROBLEMS


def test_a_hundred_thousand_rows_take_seconds_not_minutes(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "m.jsonl", "".join(f'{{"audio": "clips/{i}.wav", "text": "texto"}}\n' for i in range(100_000))
    )
    begun = time.process_time()
    assert sum(1 for _ in manifest.read(path)) == 100_000
    assert time.process_time() - begun < 5  # measured about 1

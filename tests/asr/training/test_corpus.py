"""Tables of training and validation clips: texts, groups, and what is refused before the first step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner.asr import recordings
from runner.asr.training import corpus
from runner.asr.training.corpus import Corpus
from runner.schema.errors import JobError
from tests.asr.training import tones


def read(table: Path) -> Corpus:
    clips = list(
        recordings.from_manifest(table, name=table.name, root=None, folder=table.parent, unpacked=table.parent)
    )
    return corpus.read(
        clips,
        corpus.columns(table, rows=len(clips)),
        field="data.train",
        normalise=str.upper,
        channels="mix",
        rate=tones.RATE,
        receptive=400,
        threads=1,
    )


def rows(folder: Path, *changes: dict[str, Any]) -> Path:
    """A table of as many tones as ``changes``, each row with its changes; None takes a key away."""
    table = folder / tones.table(folder, "train", ["ab ra"] * len(changes))
    made = [json.loads(line) | change for line, change in zip(table.read_text().splitlines(), changes, strict=True)]
    kept = [{key: value for key, value in row.items() if value is not None} for row in made]
    table.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return table


def test_texts_are_normalised_and_further_columns_are_groups(tmp_path: Path) -> None:
    found = read(rows(tmp_path, {"voice": "m1", "snr": 20, "clean": True, "more": {}}, {"id": "x", "voice": ""}))
    assert [one.text for one in found.utterances] == ["AB RA", "AB RA"]
    assert [one.groups for one in found.utterances] == [{"voice": "m1", "snr": "20", "clean": "true"}, {}]
    assert found.seconds == pytest.approx(2 * len(tones.say("ab ra")) / tones.RATE)


def test_groups_can_be_written_whatever_json_names(tmp_path: Path) -> None:
    """json.dumps of the helper writes half of a surrogate pair as an escape, as other tools do."""
    found = read(rows(tmp_path, {"voice": "caf\ud83d", "no\udc80te": "x"}))
    assert [one.groups for one in found.utterances] == [{"voice": "caf\\ud83d", "no\\udc80te": "x"}]


@pytest.mark.parametrize("name", ["TRAIN.JSONL", "t.Jsonl"])
def test_a_suffix_in_capitals_is_no_other_format(tmp_path: Path, name: str) -> None:
    table = rows(tmp_path, {"voice": "m1"}, {}).rename(tmp_path / name)
    assert [one.groups for one in read(table).utterances] == [{"voice": "m1"}, {}]


@pytest.mark.parametrize(("name", "sign"), [("t.csv", ","), ("t.tsv", "\t")])
def test_groups_of_csv_and_tsv(tmp_path: Path, name: str, sign: str) -> None:
    tones.table(tmp_path, "train", ["ab", "ra"])
    lines = [("audio", "text", "voice"), ("train-0.wav", "ab", "m1"), ("train-1.wav", "ra", "")]
    (tmp_path / name).write_text("".join(sign.join(line) + "\n" for line in lines))
    assert [one.groups for one in read(tmp_path / name).utterances] == [{"voice": "m1"}, {}]


def test_sound_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    found = read(rows(tmp_path, {}, {"start": 0.1, "end": 0.3}))
    whole = tones.say("ab ra", seed=1)
    assert np.allclose(found.samples(1), whole[1600:4800], atol=1e-6)
    assert list(found.lengths) == [len(whole), 3200]
    (tmp_path / "train-0.wav").unlink()
    with pytest.raises(JobError, match=r"train-0.wav: ") as caught:
        found.samples(0)
    assert caught.value.failure == "Preempted"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text": None}, r"data.train: 1 of 2 recordings have no text: train-1.wav$"),
    ],
)
def test_rows_that_cannot_be_trained_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said) as caught:
        read(rows(tmp_path, {}, change))
    assert caught.value.failure == "DataInvalid"


def test_many_of_them_are_counted(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"7 of 7 recordings have no text: .* and 2 more$"):
        read(rows(tmp_path, *[{"text": None}] * 7))


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text("\n")
    with pytest.raises(JobError, match=r"data.train has no rows"):
        read(tmp_path / "t.jsonl")

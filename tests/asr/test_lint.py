"""The data lint on real files: every class that it knows, what it leaves alone, and the same bytes each time."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile

from runner.asr import lint, sound
from runner.asr.findings import EXAMPLES, Report
from runner.asr.recordings import Clip, Recording, recordings
from runner.asr.training.spelling import Spelling, built

RATE = 16_000
LETTERS = built(["abcdefghijklmnopqrstuvwxyzãçé'-"], why="the alphabet")


@dataclass(frozen=True, kw_only=True)
class Row:
    recording: Recording
    text: str
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Said:
    """A file to write and what its table says of it."""

    name: str
    text: str
    samples: np.ndarray
    rate: int = RATE
    groups: Mapping[str, str] = field(default_factory=dict)
    start: float | None = None
    end: float | None = None


def speech(seed: int, *, seconds: float = 1.0, rate: int = RATE, level: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=round(seconds * rate)) * level).clip(-0.9, 0.9).astype(np.float32)


def rows(folder: Path, said: Sequence[Said]) -> list[Row]:
    for one in said:
        whole = np.round(one.samples * 32767).astype(np.int16)  # formats round floats differently
        soundfile.write(folder / one.name, whole, one.rate, subtype="PCM_16")
    clips = [Clip(path=str(folder / one.name), shown=one.name, start=one.start, end=one.end) for one in said]
    found = recordings(clips, channels="mix", rate=RATE, receptive=400, threads=2)
    return [Row(recording=a, text=b.text, groups=b.groups) for a, b in zip(found, said, strict=True)]


def frames(samples: int) -> int:
    return max(0, (samples - 400) // 320 + 1)


def check(
    train: Sequence[Row], validation: Sequence[Row] = (), *, spelling: Spelling = LETTERS, allow: Sequence[str] = ()
) -> Report:
    return lint.check(
        train=train, validation=validation, spelling=spelling, frames=frames, rate=RATE, threads=2, allow=allow
    )


def named(report: Report) -> dict[tuple[str, str], int]:
    return {(one.name, one.split): one.count for one in report.findings}


def test_good_data_has_no_findings(tmp_path: Path) -> None:
    train = rows(tmp_path, [Said(name=f"{n}.wav", text="o cão comeu", samples=speech(n)) for n in range(3)])
    validation = rows(tmp_path, [Said(name="v.flac", text="a gata bebeu", samples=speech(9, seconds=2.5))])
    report = check(train, validation)
    assert report.findings == ()
    assert report.failure() is None
    assert report.unusable == {"train": frozenset(), "validation": frozenset()}
    assert report.table().rows == []
    assert report.splits["train"].durations == (0, 0, 3, 0, 0, 0, 0, 0)
    assert report.splits["validation"].durations == (0, 0, 0, 1, 0, 0, 0, 0)
    assert report.splits["train"].words == 9
    assert report.splits["validation"].audio_s == 2.5
    assert [sum(plot.y) for plot in report.plots()] == [3, 1]


def test_sound_that_nobody_can_learn_from(tmp_path: Path) -> None:
    clipped = (speech(5) * 40).clip(-1, 1)
    said = [
        Said(name="quiet.wav", text="nada", samples=speech(1, level=1e-4)),
        Said(name="zeros.wav", text="nada", samples=np.zeros(RATE, np.float32)),
        Said(name="pause.wav", text="", samples=np.zeros(RATE, np.float32)),
        Said(name="none.wav", text="nada", samples=np.zeros(0, np.float32)),
        Said(name="short.wav", text="a", samples=speech(2, seconds=0.01)),
        Said(name="loud.wav", text="alto", samples=clipped),
        Said(name="telephone.wav", text="longe", samples=speech(3, rate=8000), rate=8000),
        Said(name="bare.wav", text="", samples=speech(4)),
        Said(name="good.wav", text="bom", samples=speech(6)),
    ]
    table = rows(tmp_path, said)
    (tmp_path / "good.wav").write_bytes(b"RIFF, and then nothing")
    table[-1] = rows(tmp_path, said[-1:])[0]
    (tmp_path / "good.wav").write_bytes(b"RIFF, and then nothing")  # broken after its header was read
    gone = Row(
        recording=next(
            recordings(
                [Clip(path="/no/such.wav", shown="such.wav")], channels="mix", rate=RATE, receptive=400, threads=1
            )
        ),
        text="nada",
    )
    report = check([*table, gone])
    assert named(report) == {
        ("unreadable", "train"): 2,
        ("empty_audio", "train"): 1,
        ("too_short", "train"): 1,
        ("silent", "train"): 2,
        ("empty_text", "train"): 1,
        ("clipped", "train"): 1,
        ("sample_rate", "train"): 1,
    }
    assert report.unusable["train"] == {0, 1, 3, 4, 7, 8, 9}
    by_name = {one.name: one for one in report.findings}
    assert by_name["silent"].examples[0] == "quiet.wav: -79 dB at its loudest, 'nada'"
    assert by_name["sample_rate"].examples == ("telephone.wav: 8000 Hz, the model hears 16000 Hz",)
    assert not [example for one in report.findings for example in one.examples if str(tmp_path) in example]
    assert by_name["unreadable"].examples[1] == "such.wav: no such file"
    assert [one.severity for one in report.findings] == ["error"] * 5 + ["warning"] * 2


def test_clips_that_would_take_all_memory_are_refused_or_kept_when_allowed(tmp_path: Path) -> None:
    """By what is heard of a file, not by the file: rows that cut it are fine."""
    long = speech(1, seconds=61, level=0.05)
    said = [
        Said(name="whole.wav", text="a", samples=long),
        Said(name="first.wav", text="b", samples=long, end=60.0),
        Said(name="rest.wav", text="c", samples=speech(2, seconds=61, level=0.05), start=0.5),
    ]
    report = check(rows(tmp_path, said))
    assert named(report) == {("too_long", "train"): 2}
    (found,) = report.findings
    assert found.severity == "error"
    assert [one.partition(";")[0] for one in found.examples] == ["whole.wav: 61.0 s", "rest.wav start=0.5: 60.5 s"]
    assert "cut it by start and end" in (report.failure() or "")
    allowed = check(rows(tmp_path, said), allow=["too_long"])
    assert allowed.failure() is None
    assert allowed.unusable["train"] == frozenset()


def test_one_peak_at_full_scale_is_no_clipping(tmp_path: Path) -> None:
    samples = speech(1)
    samples[::100] = 1.0
    assert check(rows(tmp_path, [Said(name="peaks.wav", text="a", samples=samples)])).findings == ()


@pytest.mark.parametrize(
    ("text", "fits"),
    [("a" * 25, True), ("a" * 26, False), ("ab" * 24 + "a", True), ("ab" * 25, False), ("a" * 25 + "9", True)],
)
def test_letters_need_frames_and_repeats_one_more(text: str, fits: bool, tmp_path: Path) -> None:
    """A second gives 49 frames. Letters that the model cannot write need none."""
    report = check(rows(tmp_path, [Said(name="a.wav", text=text, samples=speech(1))]))
    assert ("text_too_long" not in {one.name for one in report.findings}) == fits
    assert (0 in report.unusable["train"]) != fits


def test_characters_without_an_output(tmp_path: Path) -> None:
    said = [
        Said(name="a.wav", text="1 dia", samples=speech(1)),
        Said(name="b.wav", text="11 ñ", samples=speech(2)),
    ]
    report = check(rows(tmp_path, said), rows(tmp_path, [Said(name="v.wav", text="w ü", samples=speech(3))]))
    assert named(report) == {("outside_vocabulary", "train"): 4, ("unwritable", "validation"): 1}
    learned, measured = report.findings
    assert learned.unit == "characters"
    assert learned.examples == (
        "'1' (U+0031 digit one) 3 times, first in a.wav",
        "'ñ' (U+00F1 latin small letter n with tilde) 1 times, first in b.wav",
    )
    assert (learned.severity, measured.severity) == ("error", "warning")


def test_validation_data_that_was_learned(tmp_path: Path) -> None:
    train = [
        Said(name="a.wav", text="o cão comeu", samples=speech(1), groups={"speaker": "ana"}),
        Said(name="b.wav", text="sim", samples=speech(2), groups={"speaker": "rui", "noise": "low"}),
        Said(name="c.wav", text="vou embora", samples=speech(1), groups={"speaker": ""}),
    ]
    validation = [
        Said(name="d.flac", text="o gato comeu", samples=speech(1), groups={"speaker": "eva"}),
        Said(name="e.wav", text="o cão comeu", samples=speech(4), groups={"speaker": "ana"}),
        Said(name="f.wav", text="sim", samples=speech(5), groups={"speaker": "ana", "noise": "low"}),
        Said(name="g.wav", text="não", samples=speech(6), groups={"speaker": ""}),
    ]
    report = check(rows(tmp_path, train), rows(tmp_path, validation))
    assert named(report) == {
        ("leaked_audio", "validation"): 1,
        ("leaked_text", "validation"): 1,
        ("leaked_speaker", "validation"): 1,
        ("duplicate_audio", "train"): 1,
    }
    by_name = {one.name: one for one in report.findings}
    assert by_name["leaked_audio"].examples == ("d.flac: as a.wav",)
    assert by_name["leaked_text"].examples == ("e.wav: 'o cão comeu', as a.wav",)
    assert by_name["leaked_speaker"].examples == ("speaker ana: 2 of validation, 1 of train",)
    assert by_name["duplicate_audio"].examples == ("c.wav: as a.wav",)
    assert report.failure() == (
        "the data would not train well: leaked_audio in validation: 1 recording, e.g. d.flac: as a.wav; "
        "leaked_text in validation: 1 recording, e.g. e.wav: 'o cão comeu', as a.wav; "
        "leaked_speaker in validation: 1 speaker, e.g. speaker ana: 2 of validation, 1 of train"
    )


@pytest.mark.parametrize("column", ["speaker", "speaker_id", "client_id", "voice"])
def test_every_column_that_names_a_speaker_counts(tmp_path: Path, column: str) -> None:
    tables = [
        [Said(name=name, text="sim", samples=speech(seed), groups={column: "ana"})]
        for seed, name in enumerate(("a.wav", "b.wav"))
    ]
    train, validation = (rows(tmp_path, table) for table in tables)
    assert named(check(train, validation)) == {("leaked_speaker", "validation"): 1}
    allowed = check(train, validation, allow=["leaked_speaker"])
    assert (named(allowed), allowed.failure()) == ({("leaked_speaker", "validation"): 1}, None)


def test_the_same_row_twice_is_a_duplicate_and_stretches_of_one_file_are_not(tmp_path: Path) -> None:
    whole = speech(1, seconds=3)
    said = [
        Said(name="long.wav", text="um", samples=whole, start=0.0, end=1.0),
        Said(name="long.wav", text="dois", samples=whole, start=1.0, end=2.0),
        Said(name="long.wav", text="três", samples=whole, start=2.0),
    ]
    table = rows(tmp_path, said)
    assert check(table, spelling=built(["umdoistrês"], why="these words")).findings == ()
    assert named(check([*table, table[1]])) == {("duplicate_audio", "train"): 1, ("outside_vocabulary", "train"): 1}


def test_what_the_user_allows_only_warns(tmp_path: Path) -> None:
    table = rows(tmp_path, [Said(name="a.wav", text="", samples=speech(1))])
    report = check(table, allow=["empty_text"])
    (finding,) = report.findings
    assert (finding.severity, finding.allowed) == ("warning", True)
    assert report.failure() is None
    assert report.unusable["train"] == {0}
    assert report.table().rows[0][0] == "allowed"


def test_the_json_is_the_same_however_many_threads(tmp_path: Path) -> None:
    said = [Said(name=f"{n:02}.wav", text="", samples=speech(n, seconds=0.1)) for n in range(30)]
    table = rows(tmp_path, said)
    texts = {
        lint.check(train=table, validation=[], spelling=LETTERS, frames=frames, rate=RATE, threads=threads).to_json()
        for threads in (1, 3, 8)
    }
    assert len(texts) == 1
    content = json.loads(texts.pop())
    (finding,) = content["findings"]
    assert finding["count"] == 30
    assert len(finding["examples"]) == EXAMPLES
    assert finding["examples"][0].startswith("00.wav: ")
    assert content["splits"]["train"]["unusable"] == 30
    assert content["splits"]["train"]["sample_rates"] == {"16000": 30}
    assert content["splits"]["train"]["durations"][0] == {"from_s": 0.0, "to_s": 0.5, "recordings": 30}
    assert content["splits"]["train"]["durations"][-1]["to_s"] is None


def test_words_for_the_terminal(tmp_path: Path) -> None:
    report = check(rows(tmp_path, [Said(name="a.wav", text="", samples=speech(1))]))
    assert str(report).splitlines() == [
        "train: 1 recording, 1.0 s (1-2 s: 1)",
        "validation: 0 recordings, 0.0 s (none)",
        "error   empty_text in train: 1 recording: something is heard, but there is no text",
        "        a.wav: 1.0 s of sound",
    ]


def test_progress_is_told_and_may_stop_it(tmp_path: Path) -> None:
    table = rows(tmp_path, [Said(name=f"{n}.wav", text="a", samples=speech(n)) for n in range(4)])
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lint.check(
            train=table[:2],
            validation=table[2:],
            spelling=LETTERS,
            frames=frames,
            rate=RATE,
            threads=2,
            progress=progress,
        )
    assert told == [(1, 4), (2, 4), (3, 4)]


def test_every_class_says_what_it_means_and_those_without_use_are_errors() -> None:
    assert all(severity in ("error", "warning") and what for severity, what in lint.CLASSES.values())
    assert {lint.CLASSES[name][0] for name in lint.UNUSABLE} == {"error"}


def test_the_same_sound_in_another_lossless_format_has_one_digest(tmp_path: Path) -> None:
    said = [Said(name=name, text="a", samples=speech(1)) for name in ("a.wav", "a.flac")]
    said.append(Said(name="b.wav", text="a", samples=speech(1), rate=8000))
    digests = [sound.measure(row.recording).digest for row in rows(tmp_path, said)]  # type: ignore[union-attr]
    assert digests[0] == digests[1] != digests[2]


def test_a_long_recording_takes_the_memory_of_a_block(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, [Said(name="long.wav", text="a", samples=np.tile(speech(1), 600))])
    tracemalloc.start()
    found = sound.measure(row.recording)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.samples == 600 * RATE
    assert peak < 25e6  # the whole is 38 MB in fp32, and its squares twice that
    assert found.loudest_db == pytest.approx(-20, abs=3)

"""What is wrong with training data, said before the first step: sound, texts, and validation data that was learned."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

from runner.asr import sound
from runner.asr.findings import EDGES_S, Findings, Report, Severity, Split, bin_of
from runner.asr.recordings import Recording, printable
from runner.asr.sound import Sound
from runner.asr.trouble import RecordingError

TRAIN, VALIDATION = "train", "validation"
SPEAKER = ("speaker", "speaker_id", "client_id", "voice")  # columns that say who speaks; the first one present counts
SILENCE_DB = -60.0  # the loudest 20 ms (RMS, below full scale) of a recording that says nothing
CLIPPED_SHARE = 0.001  # of the samples; some speech at full scale is harmless
LONGEST_S = 60  # of one clip
LEAK_WORDS = 3  # shorter texts are commands and greetings, which recur by nature
SHOWN = 80  # characters of a text in an example

CLASSES: Mapping[str, tuple[Severity, str]] = {
    "unreadable": ("error", "the sound cannot be had"),
    "empty_audio": ("error", "there is no sound in it"),
    "too_short": ("error", "too short for one frame of the model"),
    "too_long": ("error", f"longer than {LONGEST_S} s: heard whole, memory and time grow with its square"),
    "silent": ("error", "there is a text, but nothing is heard"),
    "empty_text": ("error", "something is heard, but there is no text"),
    "text_too_long": ("error", "more letters than frames to write them in: no alignment exists, the loss is infinite"),
    "outside_vocabulary": ("error", "characters that the model cannot write: they are left out of what it learns"),
    "unwritable": ("warning", "characters that the model cannot write: their words are always counted as wrong"),
    "leaked_audio": ("error", "the same sound is in the training data: error rates say nothing"),
    "leaked_text": ("error", f"the same text, of {LEAK_WORDS} words or more, is in the training data"),
    "leaked_speaker": ("error", "speakers who are in the training data: error rates do not hold for others"),
    "duplicate_audio": ("warning", "the same sound as an earlier recording"),
    "clipped": ("warning", "cut off at full scale: recorded too loud"),
    "sample_rate": ("warning", "a lower sample rate than the model hears: high frequencies are missing"),
}
UNUSABLE = frozenset({"unreadable", "empty_audio", "too_short", "silent", "empty_text", "text_too_long"})


class Row(Protocol):
    """One row of a table, such as ``runner.asr.training.corpus.Utterance``."""

    @property
    def recording(self) -> Recording: ...
    @property
    def text(self) -> str: ...  # as the model is to write it: normalised
    @property
    def groups(self) -> Mapping[str, str]: ...  # further columns


class Spells(Protocol):
    """The model's vocabulary, such as ``runner.asr.training.spelling.Spelling``."""

    def ids(self, text: str) -> Sequence[int]: ...
    def unknown(self, texts: Iterable[str]) -> Mapping[str, int]: ...


def check(
    *,
    train: Sequence[Row],
    validation: Sequence[Row],
    spelling: Spells,
    frames: Callable[[int], int],
    rate: int,
    threads: int,
    allow: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Listen to every recording once and compare the two tables.

    ``rate`` is the model's in Hz, ``frames`` its frames for a number of samples at that rate, before any speeding up.
    ``spelling`` gives the labels of a text and the characters without one; build it from the training texts first
    where the vocabulary is made of them.
    ``allow`` names classes whose errors the user accepts (see ``CLASSES``): they become warnings, and the rows in
    ``report.unusable`` must then be left out. ``progress`` is called with (done, all) and may raise to stop.

    Raises nothing about the data: ``report.failure()`` is the message to stop with, ``report.table()`` goes into the
    report, ``str(report)`` into the log, ``report.to_json()`` is `lint.json`, whose bytes depend on the data alone.

        report = lint.check(train=train.utterances, validation=validation.utterances, ...)
        (ctx.out / "lint.json").write_text(report.to_json(), encoding="utf-8")
        if (message := report.failure()) is not None:
            raise JobError(message, failure="DataInvalid")

    Reads 60 s at a time in ``threads`` threads; memory is some 200 bytes a row.
    """
    assert set(allow) <= set(CLASSES), "a class that does not exist cannot be allowed"
    found = Findings(CLASSES, allow=allow)
    linter = _Linter(found, spelling=spelling, frames=frames, rate=rate)
    rows = {TRAIN: train, VALIDATION: validation}
    total, done = len(train) + len(validation), 0
    for split, table in rows.items():
        heard = sound.measure_all((row.recording for row in table), threads=threads)
        for position, (row, one) in enumerate(zip(table, heard, strict=True)):
            linter.row(row, one, split=split, position=position)
            done += 1
            if progress is not None:
                progress(done, total)
        linter.characters(table, split=split)
    linter.leaks(train, validation)
    return Report(
        splits={split: _split(table, rate=rate) for split, table in rows.items()},
        findings=found.result(),
        unusable={split: frozenset(positions) for split, positions in linter.unusable.items()},
    )


class _Linter:
    """Looks at rows one by one and remembers what the second table is compared with."""

    def __init__(self, found: Findings, *, spelling: Spells, frames: Callable[[int], int], rate: int) -> None:
        self._found = found
        self._spelling = spelling
        self._frames = frames
        self._rate = rate
        self._heard: dict[bytes, tuple[str, str]] = {}  # digest -> split and name of the first
        self.unusable: dict[str, set[int]] = {TRAIN: set(), VALIDATION: set()}

    def row(self, row: Row, heard: Sound | RecordingError, *, split: str, position: int) -> None:
        """Everything that one row says by itself, and whether its sound was there before."""
        for name, example in self._faults(row, heard):
            self._found.add(name, split, f"{row.recording.key}: {example}")
            if name in UNUSABLE:
                self.unusable[split].add(position)
        if isinstance(heard, Sound) and heard.loudest_db >= SILENCE_DB:
            self._repeated(row, heard.digest, split=split)

    def _faults(self, row: Row, heard: Sound | RecordingError) -> Iterable[tuple[str, str]]:
        if isinstance(heard, RecordingError):
            clip = row.recording.clip
            yield _why(row.recording, heard), heard.message.replace(clip.path, printable(clip.shown))
            return
        header = row.recording.header
        assert header is not None, "sound without a header"
        if heard.samples == 0:
            yield "empty_audio", "0 samples"
            return
        if header.rate < self._rate:
            yield "sample_rate", f"{header.rate} Hz, the model hears {self._rate} Hz"
        if heard.clipped_share > CLIPPED_SHARE:
            yield "clipped", f"{heard.clipped_share:.1%} of the samples"
        if row.recording.samples > LONGEST_S * self._rate:
            yield "too_long", f"{row.recording.samples / self._rate:.1f} s; cut it by start and end"
        silent = heard.loudest_db < SILENCE_DB
        if silent and row.text:
            yield "silent", f"{heard.loudest_db:.0f} dB at its loudest, {_short(row.text)!r}"
        elif not silent and not row.text:
            yield "empty_text", f"{row.recording.samples / self._rate:.1f} s of sound"
        needed, there = _needed(self._spelling.ids(row.text)), self._frames(row.recording.samples)
        if needed > there:
            yield "text_too_long", f"{there} frames, {needed} needed for {_short(row.text)!r}"

    def _repeated(self, row: Row, digest: bytes, *, split: str) -> None:
        if digest not in self._heard:
            self._heard[digest] = split, row.recording.key
            return
        where, first = self._heard[digest]
        name = "duplicate_audio" if where == split else "leaked_audio"
        self._found.add(name, split, f"{row.recording.key}: as {first}")

    def characters(self, table: Sequence[Row], *, split: str) -> None:
        """Characters that the model has no output for, the most frequent first."""
        counts, first = Counter[str](), dict[str, str]()
        for row in table:
            for character, count in self._spelling.unknown([row.text]).items():
                counts[character] += count
                first.setdefault(character, row.recording.key)
        for character, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])):
            named = f"{character!r} (U+{ord(character):04X} {unicodedata.name(character, 'unnamed').lower()})"
            example = f"{named} {count} times, first in {first[character]}"
            name = "outside_vocabulary" if split == TRAIN else "unwritable"
            self._found.add(name, split, example, count=count, unit="characters")

    def leaks(self, train: Sequence[Row], validation: Sequence[Row]) -> None:
        """Texts and speakers of the validation data that are in the training data."""
        learned = {row.text: row.recording.key for row in reversed(train) if len(row.text.split()) >= LEAK_WORDS}
        for row in validation:
            if row.text in learned:
                example = f"{row.recording.key}: {_short(row.text)!r}, as {learned[row.text]}"
                self._found.add("leaked_text", VALIDATION, example)
        known, measured = (Counter(map(_speaker, table)) for table in (train, validation))
        for speaker in sorted(known.keys() & measured.keys() - {""}):
            example = f"{speaker}: {measured[speaker]} of validation, {known[speaker]} of train"
            self._found.add("leaked_speaker", VALIDATION, example, unit="speakers")


def _split(table: Sequence[Row], *, rate: int) -> Split:
    durations = [0] * len(EDGES_S)
    for row in table:
        if row.recording.samples:
            durations[bin_of(row.recording.samples / rate)] += 1
    headers = (row.recording.header for row in table)
    return Split(
        recordings=len(table),
        audio_s=sum(row.recording.samples for row in table) / rate,
        words=sum(len(row.text.split()) for row in table),
        rates=Counter(header.rate for header in headers if header is not None),
        durations=tuple(durations),
    )


def _why(recording: Recording, trouble: RecordingError) -> str:
    empty = trouble.name == "zero_bytes" or (recording.header is not None and recording.header.frames == 0)
    return "empty_audio" if empty else "too_short" if trouble.status == "too_short" else "unreadable"


def _needed(labels: Sequence[int]) -> int:
    """Frames that CTC needs: one a label, and a blank between two equal ones."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def _speaker(row: Row) -> str:
    return next((f"{column} {row.groups[column]}" for column in SPEAKER if row.groups.get(column)), "")


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"

"""Words with times as SubRip (.srt), WebVTT (.vtt), NIST time marks (.ctm), TextGrid and plain text (.txt).

Words are put together to captions that a person can read: two lines of 42 characters, seven seconds, never across a
pause of more than half a second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from runner.asr import textgrid
from runner.asr.words import Word
from runner.schema.errors import UsageError

Format = Literal["srt", "vtt", "txt", "ctm", "textgrid"]
TIMED = ("srt", "vtt", "ctm", "textgrid")  # formats that need the times of words

LINE = 42  # characters
LINES = 2
LONGEST_MS = 7000
PAUSE_MS = 500
SHORTEST_MS = 1000  # a caption stays this long when nothing follows: CTC says when a word began, hardly when it ended


@dataclass(frozen=True, kw_only=True)
class Caption:
    """What is shown at once. Milliseconds from the start of the recording."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def check(formats: Collection[str], *, timestamps: str) -> None:
    """Raise UsageError when a format needs times that were not asked for; call it before any work is done."""
    timed = [name for name in TIMED if name in formats]
    if timed and timestamps == "none":
        raise UsageError(f"outputs {', '.join(timed)} need decode.timestamps 'word' or 'char', got 'none'")


def render(
    name: Format,
    *,
    text: str,
    words: Sequence[Word],
    recording: str,
    channel: str = "1",
    duration_s: float | None = None,
) -> str:
    """The content of one file. ``recording`` and ``channel`` name the signal in a .ctm.

    Captions never overlap and never end after ``duration_s``. Without words every format is empty but valid.
    """
    assert words or not text or name not in TIMED, f"{name} needs the times of the words"
    if name == "txt":
        return f"{text}\n" if text else ""
    if name == "textgrid":
        return textgrid.render(words, end_s=duration_s)
    if name == "ctm":
        return "".join(_marks(words, recording=recording, channel=channel))
    shown = captions(words, duration_s=duration_s)
    return _srt(shown) if name == "srt" else _vtt(shown)


def captions(words: Sequence[Word], *, duration_s: float | None = None) -> list[Caption]:
    """Captions in order. A word that lasts longer than a caption may stands alone."""
    groups: list[list[_Timed]] = []
    for word in _timed(words):
        if groups and _fits(groups[-1], word):
            groups[-1].append(word)
        else:
            groups.append([word])
    if not groups:
        return []
    end_ms = groups[-1][-1].end_ms if duration_s is None else round(duration_s * 1000)
    limits = [*(group[0].start_ms for group in groups[1:]), end_ms]
    return [
        Caption(
            start_ms=group[0].start_ms,
            end_ms=max(group[-1].end_ms, min(group[0].start_ms + SHORTEST_MS, limit)),
            lines=tuple(_lines([word.text for word in group])),
        )
        for group, limit in zip(groups, limits, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class _Timed:
    text: str  # at most one line long
    start_ms: int
    end_ms: int


def _timed(words: Sequence[Word]) -> Iterator[_Timed]:
    """Words in whole milliseconds that never overlap nor go back; one longer than a line becomes several."""
    clock = 0
    for word in words:
        text = " ".join(word.word.split()).replace("-->", "→")  # the sign between two times
        start = max(round(word.start * 1000), clock)
        end = max(round(word.end * 1000), start + 1)
        for at in range(0, len(text), LINE):
            piece = text[at : at + LINE]
            clock = start + (end - start) * (at + len(piece)) // len(text)
            yield _Timed(text=piece, start_ms=start + (end - start) * at // len(text), end_ms=clock)


def _fits(group: Sequence[_Timed], word: _Timed) -> bool:
    if word.start_ms - group[-1].end_ms > PAUSE_MS or word.end_ms - group[0].start_ms > LONGEST_MS:
        return False
    return len(_lines([*(each.text for each in group), word.text])) <= LINES


def _lines(texts: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for text in texts:
        if lines and len(lines[-1]) + 1 + len(text) <= LINE:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return lines


def _srt(shown: Sequence[Caption]) -> str:
    blocks = []
    for number, caption in enumerate(shown, start=1):
        times = f"{_time(caption.start_ms, ',')} --> {_time(caption.end_ms, ',')}"
        blocks.append("\n".join((str(number), times, *caption.lines, "")))
    return "\n".join(blocks)


def _vtt(shown: Sequence[Caption]) -> str:
    blocks = ["WEBVTT\n"]
    for caption in shown:
        times = f"{_time(caption.start_ms, '.')} --> {_time(caption.end_ms, '.')}"
        blocks.append("\n".join((times, *(escape(line, quote=False) for line in caption.lines), "")))
    return "\n".join(blocks)


def _time(ms: int, mark: str) -> str:
    """`HH:MM:SS,mmm`; more than 99 hours take more digits."""
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{mark}{ms:03d}"


def _marks(words: Sequence[Word], *, recording: str, channel: str) -> Iterator[str]:
    """One line a word: recording, channel, start, duration, word, confidence; fields hold no space."""
    signal = f"{'_'.join(recording.split())} {channel}"
    for word in words:
        duration = max(round(word.end * 1000) - round(word.start * 1000), 0) / 1000
        yield f"{signal} {word.start:.3f} {duration:.3f} {'_'.join(word.word.split())} {word.confidence:.4f}\n"

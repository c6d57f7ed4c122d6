"""From what the user named to what is transcribed: one signal each, with its place and length on the model's clock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from runner.asr import dataset_folder
from runner.asr import header as headers
from runner.asr.header import Header
from runner.asr.trouble import RecordingError
from runner.schema import manifest

Channels = Literal["mix", "left", "right", "each"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """A recording, or a stretch of one, as the user named it."""

    path: str  # absolute
    shown: str  # as in fingerprints: relative to the spec's folder, absolute only where the user wrote that
    id: str | None = None
    text: str | None = None  # reference
    start: float | None = None  # seconds
    end: float | None = None  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One signal. ``first`` and ``samples`` are counted at the model's rate."""

    clip: Clip
    channel: int | None  # None mixes
    named: bool  # whether the channel is part of the name: policy `each`
    header: Header | None
    first: int
    samples: int
    trouble: RecordingError | None = None  # known from the header; nothing is computed

    def fields(self) -> dict[str, Any]:
        """What names it in results: the path and whatever else tells it from others."""
        clip = self.clip
        extra = {"id": clip.id, "start": clip.start, "end": clip.end, "channel": self.channel if self.named else None}
        return {"path": printable(clip.shown), **{k: v for k, v in extra.items() if v is not None}}

    @property
    def key(self) -> str:
        """The name as one text."""
        fields = self.fields()
        return "".join([fields.pop("path"), *(f" {name}={value}" for name, value in fields.items())])


def from_files(files: Iterable[str], *, folder: Path) -> Iterator[Clip]:
    """Clips of the spec's own files; paths are relative to its folder, absolute when outside."""
    for file in files:
        yield Clip(path=os.path.join(folder, file), shown=file)  # noqa: PTH118 (Path costs 10 times as much)


def from_manifest(path: Path, *, name: str | None, root: str | None, folder: Path, unpacked: Path) -> Iterator[Clip]:
    """Clips of the table, audiofolder or datasets folder at ``path``.

    Paths are shown as the plan's fingerprint shows them; what a datasets folder holds is told by its rows.

    ``name`` is the table as the spec has it, None for one out of an artifact: nobody needs to see where that lies.
    ``root`` is the spec's own, relative to its ``folder``; without it a table's own folder counts, but ``folder``
    itself for one out of an artifact, whose paths are those of a spec. What has no file of its own is put into
    ``unpacked``.
    Raises SpecError with every bad row, JobError for a datasets folder.
    """
    if manifest.is_arrow(path):
        beside = None if root is None else folder / root
        found = dataset_folder.rows(path, name=name or path.name, root=beside, unpacked=unpacked)
        yield from (Clip(path=row.path, shown=row.shown, text=row.text) for row in found)
        return
    if root is None and name is not None:
        base = os.path.abspath(manifest.table_of(path).parent)  # noqa: PTH100 (resolve would follow links)
        root = name if path.is_dir() else os.path.dirname(name)  # noqa: PTH120 (a text, like root)
    else:
        base = os.path.abspath(folder / (root or "."))  # noqa: PTH100 (as above)
    for row in manifest.read(path, root=Path(base)):
        shown = manifest.shown(row.audio, base=base, name=root or ".")
        yield Clip(path=str(row.audio), shown=shown, id=row.id, text=row.text, start=row.start, end=row.end)


def said(clips: Iterable[Clip], say: Callable[[str], str] | None) -> list[Clip]:
    """``clips`` with their texts as ``say`` writes them, for example `3` as `três`; None leaves them as they are."""
    return [clip if say is None or clip.text is None else replace(clip, text=say(clip.text)) for clip in clips]


def recordings(
    clips: Sequence[Clip], *, channels: Channels, rate: int, receptive: int, threads: int
) -> Iterator[Recording]:
    """The signals of each clip in order, from the headers alone. ``rate`` in Hz; ``receptive`` in samples."""
    for clip, found in zip(clips, headers.probe((clip.path for clip in clips), threads=threads), strict=True):
        if isinstance(found, RecordingError):
            yield Recording(clip=clip, channel=None, named=False, header=None, first=0, samples=0, trouble=found)
            continue
        each = channels == "each" and found.channels > 1
        picked = range(found.channels) if each else [{"left": 0, "right": 1}.get(channels)]
        for channel in picked:
            yield _placed(clip, found, channel=channel, named=each, rate=rate, receptive=receptive)


def _placed(clip: Clip, header: Header, *, channel: int | None, named: bool, rate: int, receptive: int) -> Recording:
    whole = round(header.frames * rate / header.rate)
    first = round((clip.start or 0.0) * rate)
    last = whole if clip.end is None else min(whole, round(clip.end * rate))
    trouble = None
    if clip.start and first >= whole:
        message = f"starts at {clip.start:g} s, after the recording's end at {header.duration_s:.3f} s"
        trouble = RecordingError("too_short", "after_end", message)
    elif last - first < receptive:
        message = f"{max(0, last - first)} samples; the model needs {1000 * receptive / rate:.0f} ms"
        trouble = RecordingError("too_short", "too_short", message)
    return Recording(
        clip=clip,
        channel=channel,
        named=named,
        header=header,
        first=first,
        samples=0 if trouble else last - first,
        trouble=trouble,
    )


def printable(path: str) -> str:
    """``path`` as text that can be written: file names need not be UTF-8."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")

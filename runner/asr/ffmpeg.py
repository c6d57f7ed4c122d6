"""Formats that libsndfile does not read (m4a, webm, video), through the `ffmpeg` and `ffprobe` programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from tempfile import TemporaryFile
from threading import Event, Timer
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from runner.asr.trouble import unreadable

PROBE_LIMIT_S = 60
READ_LIMIT_S = 600  # one window; nobody waits for ever for a program that hangs
# Demuxers that open further files: a digest covers only the list, and what it names may lie anywhere.
LISTS = frozenset({"hls", "concat", "dash", "sdp"})
# Samples on the clock of an mp4 or matroska: a late start and gaps (a muted browser recording) become silence. Without
# it a read from the start closes the gaps and one that seeks does not: one second, two places (ffmpeg 5.1).
ON_THE_CLOCK = "aresample=async=1:first_pts=0"
# What ffmpeg says of a file that stops within a packet: mp4 and matroska
CUT = re.compile(rb"partial file|File ended prematurely")
# It looks at the pictures of a film too; a capture that begins between two whole ones has all of its sound.
NOT_OF_SOUND = re.compile(
    rb"\s*$|    Last message repeated|\[(h26\d|hevc|mpeg\w*video|mpeg4|vp[689]|av1|libdav1d|vc1) @ "
)
SAID_BYTES = 1 << 20  # read of it: some 10,000 lines
SHORTER = "convert it to flac, or cut it into shorter recordings"


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The first audio stream."""

    format: str  # ffmpeg's name of the container
    frames: int  # to its end on the container's clock
    rate: int  # Hz
    channels: int
    exact: bool  # whether the length is the stream's own, or that of the file, which a film may outlast


@cache
def installed() -> bool:
    """Whether both programs are on the PATH."""
    return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None


def probe(path: str) -> Shape:
    """The shape of the first audio stream of ``path``. Raises RecordingError.

    What does not state its length is decoded once to count it, in some 0.1% of its duration: ffprobe would guess
    from the bitrate (97 s for an mp3 of 40 s that begins with silence), or take the last part of a chained ogg for all.
    """
    ask = "stream=sample_rate,channels,start_time,duration:stream_tags=DURATION:format=format_name,start_time,duration"
    command = ["ffprobe", *_QUIET, "-select_streams", "a:0", "-show_entries", ask, "-of", "json", "-i", f"file:{path}"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise unreadable("timeout", f"ffprobe took more than {PROBE_LIMIT_S} s to look at it; {SHORTER}") from None
    if done.returncode != 0:
        raise unreadable("unsupported_format", f"neither soundfile nor ffmpeg reads it ({_reason(done.stderr, path)})")
    try:
        answer = json.loads(done.stdout)
        form = answer["format"]
        name = str(form.get("format_name", ""))
        _check_alone(name)
        stream = answer["streams"][0]
        rate, channels = int(stream["sample_rate"]), int(stream["channels"])
        stated = _stated(stream, form) if _indexed(path) else None
    except (ValueError, KeyError, IndexError, TypeError):
        raise unreadable("no_audio", "ffmpeg finds no audio stream in it") from None
    if stated is None:
        frames = sum(map(len, blocks(path, start_s=0, rate=rate, channels=channels)))
        return Shape(format=name, frames=frames, rate=rate, channels=channels, exact=True)
    seconds, exact = stated
    return Shape(format=name, frames=round(seconds * rate), rate=rate, channels=channels, exact=exact)


def blocks(path: str, *, start_s: int, rate: int, channels: int) -> Generator[NDArray[np.float32]]:
    """Blocks of at most a second, [frames, channels] in [-1, 1], from ``start_s`` on. Raises RecordingError.

    Only mp4 and matroska are entered at ``start_s``, to within a millisecond of where a read from the start is then.
    Anything else is decoded from its start: by its own clock avi lands up to 11 ms off, wma 93, a raw stream anywhere.
    """
    indexed = _indexed(path)
    seek, clock = (["-ss", str(start_s)], ["-af", ON_THE_CLOCK]) if indexed else ([], [])
    before = 0 if indexed else start_s * rate  # frames to drop
    source = [*seek, "-i", f"file:{path}", "-map", "0:a:0", *clock]
    shape = ["-ac", str(channels), "-ar", str(rate)]
    command = ["ffmpeg", *_QUIET, "-nostdin", *source, *shape, "-f", "f32le", "pipe:1"]
    with (
        TemporaryFile() as said,  # not a pipe, which fills up and then stops ffmpeg
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as process,
    ):
        late = Event()
        timer = Timer(READ_LIMIT_S, _stop, (process, late))
        timer.start()
        try:
            assert process.stdout is not None
            while data := process.stdout.read(rate * channels * 4):
                whole = len(data) // (4 * channels) * 4 * channels
                block = np.frombuffer(data[:whole], dtype="<f4").reshape(-1, channels)
                if len(block) > before:
                    yield block[before:]
                before = max(0, before - len(block))
            status = process.wait()  # not for ever: the timer runs
            if late.is_set():
                raise unreadable("timeout", f"ffmpeg took more than {READ_LIMIT_S} s to read a part of it; {SHORTER}")
            _check_said(said, path)
            if status != 0:
                raise unreadable("corrupt", "ffmpeg could not decode it to its end")
        except GeneratorExit:  # the stretch ends before the file does; another may begin behind the damage
            _check_said(said, path)
            raise
        finally:
            timer.cancel()
            process.kill()  # nothing happens when it has ended


def _stop(process: subprocess.Popen[bytes], late: Event) -> None:
    if process.poll() is None:
        late.set()
        process.kill()


def _check_said(said: IO[bytes], path: str) -> None:
    """It exits with 0 over damage, and fills holes with silence: up to a third of a recording, unnoticed.

    Of a whole file it says nothing, from any second on; but of a chained ogg, that the heads of all but the first
    recording are no sound: there only what the container says counts (a page that does not match its checksum).
    """
    lines = [line for line in os.pread(said.fileno(), SAID_BYTES, 0).splitlines() if not NOT_OF_SOUND.match(line)]
    if _head(path).startswith(b"OggS"):
        lines = [line for line in lines if line.startswith(b"[ogg @ ")]
    if any(map(CUT.search, lines)):
        raise unreadable("truncated", "ends in the middle of a packet; encode it again to keep what is there")
    if lines:
        raise unreadable("corrupt", "damaged: a part of its sound cannot be decoded; encode it again to keep the rest")


# local files only: a playlist must not make ffmpeg fetch addresses
_QUIET = ("-v", "error", "-protocol_whitelist", "file,pipe")


def _indexed(path: str) -> bool:
    """Whether it is mp4 or matroska, which state the length of each stream and can be entered anywhere."""
    head = _head(path)
    return head[4:] == b"ftyp" or head.startswith(b"\x1a\x45\xdf\xa3")


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (a path that need not be UTF-8)
            return file.read(8)
    except OSError:
        return b""  # ffmpeg says what is wrong with it


def _check_alone(format_name: str) -> None:
    if format_name in LISTS:
        what = f"is a playlist ({format_name}); name the recordings that it lists"
        raise unreadable("unsupported_format", what)


def _stated(stream: dict[str, Any], form: dict[str, Any]) -> tuple[float, bool] | None:
    """Seconds from the file's start to the stream's end, and whether they are the stream's own; None when unsaid."""
    begins = float(form.get("start_time") or 0)
    if stream.get("duration"):  # mp4
        return max(0.0, float(stream.get("start_time") or 0) - begins) + float(stream["duration"]), True
    if clock := stream.get("tags", {}).get("DURATION"):  # matroska: the end of its last packet, as 00:01:40.008000000
        hours, minutes, seconds = clock.split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds) - max(0.0, begins), True
    return (float(form["duration"]), False) if form.get("duration") else None


def _reason(stderr: bytes, path: str) -> str:
    """The first thing that was said, without addresses in memory and folders: results hold no such things."""
    lines = stderr.decode(errors="replace").strip().splitlines()
    first = re.sub(r"^\[[^]]* @ 0x[0-9a-f]+\] ", "", lines[0]) if lines else "no reason given"
    return first.replace(f"file:{path}: ", "")[:200]

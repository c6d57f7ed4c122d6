"""What a recording's header says, without decoding it: a few hundred microseconds a file, in parallel threads."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import soundfile

from runner.asr import ffmpeg
from runner.asr.trouble import RecordingError, unreadable

RATES = range(1_000, 1_000_001)  # Hz; beyond it a header is broken, and resampling would take for ever
MAX_CHANNELS = 1024  # libsndfile's own limit
VERIFIED_ABOVE_S = 60.0  # a longer claim is checked by reading the last frame: a broken header can claim years
UNKNOWN_FORMAT = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
CHUNK = 4096  # files in flight: bounds memory for manifests of any length


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """The shape of a recording."""

    frames: int  # samples per channel at ``rate``
    rate: int  # Hz
    channels: int
    reader: Literal["soundfile", "ffmpeg"]
    exact: bool  # whether ``frames`` is a promise or an estimate

    @property
    def duration_s(self) -> float:
        return self.frames / self.rate

    @property
    def slack_s(self) -> float:
        """How much of the claim may be missing before the file counts as truncated."""
        return 0.1 if self.exact else max(1.0, 0.1 * self.duration_s)


def probe(paths: Iterable[str], *, threads: int) -> Iterator[Header | RecordingError]:
    """The header of each path, in order; what is wrong with it where there is none."""
    left = iter(paths)
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        while some := list(islice(left, CHUNK)):
            yield from pool.map(_header_or_trouble, some, chunksize=64)


def _header_or_trouble(path: str) -> Header | RecordingError:
    try:
        return read_header(path)
    except RecordingError as trouble:
        return trouble


def read_header(path: str) -> Header:
    """The header of one file. Raises RecordingError."""
    _check_file(path)
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            exact = file.format != "MP3"  # without a Xing header the length of an mp3 is an estimate
            header = Header(
                frames=file.frames, rate=file.samplerate, channels=file.channels, reader="soundfile", exact=exact
            )
            _check_shape(header)
            if header.duration_s > VERIFIED_ABOVE_S:
                _check_last_frame(file)
    except soundfile.LibsndfileError as error:
        return _from_ffmpeg(path, error)
    return header


def _check_file(path: str) -> None:
    """Say what is wrong with the path itself; a named pipe would block for ever."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (Path() costs as much as the call; 100,000 files)
    except FileNotFoundError:
        raise unreadable("not_found", "no such file") from None
    except OSError as error:
        name = "link_loop" if error.errno == errno.ELOOP else "unreadable"
        raise unreadable(name, f"cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise unreadable("not_a_file", "is a folder" if stat.S_ISDIR(mode) else "is a device, socket or pipe")
    if not os.access(path, os.R_OK):
        raise unreadable("unreadable", "cannot be opened: Permission denied")


def _check_shape(header: Header) -> None:
    if header.rate not in RATES or not 1 <= header.channels <= MAX_CHANNELS or header.frames < 0:
        claim = f"{header.frames} frames, {header.channels} channels, {header.rate} Hz"
        raise unreadable("corrupt", f"the header claims {claim}")


def _check_last_frame(file: soundfile.SoundFile) -> None:
    try:
        file.seek(file.frames - 1)
        last = len(file.read(1))
    except (soundfile.LibsndfileError, RuntimeError):
        last = 0
    if last != 1:
        raise unreadable("truncated", f"ends before the {file.frames / file.samplerate:.1f} s that its header claims")


def _from_ffmpeg(path: str, error: soundfile.LibsndfileError) -> Header:
    """Formats that libsndfile does not know, through ffmpeg where it is installed."""
    if os.path.getsize(path) == 0:  # noqa: PTH202
        raise unreadable("zero_bytes", "the file has no bytes")
    if not ffmpeg.installed():
        if error.code != UNKNOWN_FORMAT:
            raise unreadable("corrupt", f"damaged: {error.error_string.removeprefix('Error : ').strip(' .')}")
        raise unreadable(
            "unsupported_format",
            "not wav, flac, ogg, opus or mp3; install ffmpeg for m4a, webm, video and the like, or convert it",
        )
    shape = ffmpeg.probe(path)
    frames = shape.frames + shape.rate // 4  # containers round durations; what is not there is not read
    header = Header(frames=frames, rate=shape.rate, channels=shape.channels, reader="ffmpeg", exact=False)
    _check_shape(header)
    return header

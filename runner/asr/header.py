"""What a recording's header says, without decoding it: a few hundred microseconds a file, in parallel threads."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import BinaryIO, Literal

import soundfile

from runner.asr import extent, ffmpeg
from runner.asr.trouble import RecordingError, unreadable

RATES = range(1_000, 1_000_001)  # Hz; beyond it a header is broken, and resampling would take for ever
MAX_CHANNELS = 1024  # libsndfile's own limit
VERIFIED_ABOVE_S = 60.0  # a longer claim is checked by reading the last frame: a broken header can claim years
UNKNOWN_FRAMES = 1 << 62  # of a flac that was written to a pipe, libsndfile says (1 << 63) - 1
SLACK_S = 0.1
FFMPEG_SLACK_S = 1.0  # of a stream that states its length: the last packet may be shorter than it says
MP3_MORE_S = 0.25  # its frames hold the encoder's run-up and padding too: some 0.1 s
UNKNOWN_FORMAT = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
SOUNDFILES = frozenset({"wav", "flac", "ogg"})  # ffmpeg finds pieces of them where a head is broken, and joins those
CHUNK = 4096  # files in flight: bounds memory for manifests of any length


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """The shape of a recording."""

    frames: int  # samples per channel at ``rate``
    rate: int  # Hz
    channels: int
    reader: Literal["soundfile", "ffmpeg"]
    slack_s: float  # how much of the claim may be missing before the file counts as truncated

    @property
    def duration_s(self) -> float:
        return self.frames / self.rate


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
        return _from_soundfile(path)
    except soundfile.LibsndfileError as error:
        if error.code != UNKNOWN_FORMAT:  # ffmpeg would leave the damage out, and move all times behind it
            raise damaged(error) from None
        reason = unreadable(
            "unsupported_format",
            "not wav, flac, ogg, opus or mp3; install ffmpeg for m4a, webm, video and the like, or convert it",
        )
    except RecordingError as trouble:
        if trouble.name not in {"unknown_length", "chained"}:  # sound, but beyond libsndfile
            raise
        reason = trouble
    if ffmpeg.installed():
        return _from_ffmpeg(path, reason)
    raise reason


def _from_soundfile(path: str) -> Header:
    with soundfile.SoundFile(os.fsencode(path)) as file:
        header = Header(
            frames=file.frames, rate=file.samplerate, channels=file.channels, reader="soundfile", slack_s=SLACK_S
        )
        _check_shape(header)
        header = _checked(path, file.format, header)
        if header.duration_s > VERIFIED_ABOVE_S:
            _check_last_frame(file)
    return header


def _check_file(path: str) -> None:
    """Say what is wrong with the path itself; a named pipe would block for ever."""
    try:
        found = os.stat(path)  # noqa: PTH116 (Path() costs as much as the call; 100,000 files)
    except FileNotFoundError:
        raise unreadable("not_found", "no such file") from None
    except OSError as error:
        name = "link_loop" if error.errno == errno.ELOOP else "unreadable"
        raise unreadable(name, f"cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise unreadable("not_a_file", "is a folder" if stat.S_ISDIR(found.st_mode) else "is a device, socket or pipe")
    if not os.access(path, os.R_OK):
        raise unreadable("unreadable", "cannot be opened: Permission denied")
    if found.st_size == 0:
        raise unreadable("zero_bytes", "the file has no bytes")


def _check_shape(header: Header) -> None:
    if header.rate not in RATES or not 1 <= header.channels <= MAX_CHANNELS or header.frames < 0:
        claim = f"{header.frames} frames, {header.channels} channels, {header.rate} Hz"
        raise unreadable("corrupt", f"the header claims {claim}")


def _checked(path: str, format_: str, header: Header) -> Header:
    """``header``, unless libsndfile would read only a part of the recording as if it were all."""
    if header.frames >= UNKNOWN_FRAMES:
        raise unreadable("unknown_length", "does not say how long it is; install ffmpeg, or encode it again")
    if format_ not in {"WAV", "WAVEX", "OGG", "MP3"}:
        return header
    with open(path, "rb") as file:  # noqa: PTH123
        if format_ == "MP3":
            return _checked_mp3(file, header)
        if format_ == "OGG":
            _check_ogg(file)
        elif (missing_s := extent.wav_missing_s(file)) > header.slack_s:
            raise truncated(header.duration_s, header.duration_s + missing_s)
    return header


def _check_ogg(file: BinaryIO) -> None:
    fault = extent.ogg_fault(file)
    if fault == "cut":
        raise unreadable("truncated", "ends in the middle of a page; encode it again to keep what is there")
    if fault == "damaged":
        raise unreadable("corrupt", "damaged: a page does not match its checksum; encode it again to keep the others")
    if fault == "chained":
        raise unreadable("chained", "holds several recordings one behind the other; install ffmpeg, or encode it again")


def _checked_mp3(file: BinaryIO, header: Header) -> Header:
    samples, tells = extent.mp3_samples(file)
    found_s = samples / header.rate
    if found_s > header.duration_s + MP3_MORE_S:
        told = f"holds {found_s:.1f} s, of which {header.duration_s:.1f} s could be read"
        raise unreadable("unknown_length", f"{told}; install ffmpeg, or encode it again")
    if tells and found_s < header.duration_s - header.slack_s:
        raise truncated(found_s, header.duration_s)
    return header if tells else replace(header, slack_s=_estimate_slack_s(header.duration_s))


def truncated(found_s: float, claimed_s: float) -> RecordingError:
    """A recording that ends before its end."""
    return unreadable("truncated", f"ends after {found_s:.1f} s of the {claimed_s:.1f} s that its header claims")


def _estimate_slack_s(seconds: float) -> float:
    """What may be missing of a length that was only estimated."""
    return max(1.0, 0.1 * seconds)


def _check_last_frame(file: soundfile.SoundFile) -> None:
    try:
        file.seek(file.frames - 1)
        last = len(file.read(1))
    except (soundfile.LibsndfileError, RuntimeError):
        last = 0
    if last != 1:
        raise unreadable("truncated", f"ends before the {file.frames / file.samplerate:.1f} s that its header claims")


def damaged(error: soundfile.LibsndfileError) -> RecordingError:
    """A recording that libsndfile gave up on."""
    reason = error.error_string.removeprefix("Error : ").strip(" .")
    if "regular file" in reason:  # what it says of an mp3 without a single whole frame
        reason = "no sound can be found in it"
    return unreadable("corrupt", f"damaged: {reason}")


def _from_ffmpeg(path: str, reason: RecordingError) -> Header:
    """What libsndfile does not read, for ``reason``."""
    shape = ffmpeg.probe(path)
    if reason.name == "unsupported_format" and shape.format in SOUNDFILES:
        raise unreadable("corrupt", f"damaged: its head is not that of a {shape.format} file; encode it again")
    frames = shape.frames + shape.rate // 4  # containers round durations; what is not there is not read
    slack_s = FFMPEG_SLACK_S if shape.exact else _estimate_slack_s(frames / max(1, shape.rate))
    header = Header(frames=frames, rate=shape.rate, channels=shape.channels, reader="ffmpeg", slack_s=slack_s)
    _check_shape(header)
    return header

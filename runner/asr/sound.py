"""How loud, how clipped and how like others a recording is: one pass over its sound, in blocks, in threads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from runner.asr import audio
from runner.asr.recordings import Recording
from runner.asr.trouble import RecordingError

BLOCK_S = 60  # read at once: memory does not grow with a recording
FRAMES_PER_S = 50  # loudness is that of 20 ms
FULL_SCALE = 0.999
NOTHING_DB = -200.0  # what digital silence counts as
CHUNK = 256  # recordings in flight


@dataclass(frozen=True, kw_only=True, slots=True)
class Sound:
    """What a recording sounds like, at its own sample rate: resampling would round off what was clipped."""

    samples: int
    loudest_db: float  # RMS of the loudest 20 ms; full scale is 0
    clipped_share: float  # of samples at full scale whose neighbour is, too: one peak alone is no clipping
    digest: bytes  # of samples and rate: the same for the same sound in another lossless format


def measure_all(recordings: Iterable[Recording], *, threads: int) -> Iterator[Sound | RecordingError]:
    """The sound of each recording, in order; what is wrong with it where it cannot be had."""
    left = iter(recordings)
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        while some := list(islice(left, CHUNK)):
            yield from pool.map(_sound_or_trouble, some)


def _sound_or_trouble(recording: Recording) -> Sound | RecordingError:
    try:
        return measure(recording)
    except RecordingError as trouble:
        return trouble


def measure(recording: Recording) -> Sound:
    """The sound of one recording. Raises RecordingError."""
    if recording.trouble is not None:
        raise recording.trouble
    header, clip = recording.header, recording.clip
    assert header is not None, "a recording without a header and without trouble"
    first = round((clip.start or 0.0) * header.rate)
    last = header.frames if clip.end is None else min(header.frames, round(clip.end * header.rate))
    digest = hashlib.blake2b(header.rate.to_bytes(4, "little"), digest_size=16)
    count = clipped = 0
    loudest = 0.0
    for start in range(first, last, BLOCK_S * header.rate):
        end = min(last, start + BLOCK_S * header.rate)
        heard = audio.read(
            clip.path, header=header, first=start, last=end, rate=header.rate, channel=recording.channel
        ).samples
        if not len(heard):  # the header was an estimate
            break
        digest.update(heard.tobytes())
        full = np.abs(heard) >= FULL_SCALE
        count, clipped = count + len(heard), clipped + int(np.count_nonzero(full[1:] & full[:-1]))
        loudest = max(loudest, _loudest(heard, max(1, header.rate // FRAMES_PER_S)))
    return Sound(
        samples=count,
        loudest_db=10 * float(np.log10(loudest)) if loudest > 10 ** (NOTHING_DB / 10) else NOTHING_DB,
        clipped_share=clipped / max(1, count),
        digest=digest.digest(),
    )


def _loudest(samples: audio.Samples, frame: int) -> float:
    """Mean square of the loudest frame."""
    starts = np.arange(0, len(samples), frame)
    energy = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
    return float((energy / np.diff(np.append(starts, len(samples)))).max())

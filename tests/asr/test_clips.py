"""The quickstart's clips, channel policies, parts, and windows of every codec."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from runner.asr import audio, recordings
from runner.asr.header import read_header
from runner.asr.recordings import Channels, Clip, Recording
from tests.asr import tiny

CLIPS = Path(__file__).parents[2] / "specs" / "quickstart" / "clips"
RATE = 16_000
RECEPTIVE = 400
Samples = NDArray[np.float32]


def whole(path: Path, *, channel: int | None = None, rate: int = RATE) -> Samples:
    header = read_header(str(path))
    last = round(header.frames * rate / header.rate)
    return audio.read(str(path), header=header, first=0, last=last, rate=rate, channel=channel).samples


def stretch(path: Path, first: int, last: int) -> Samples:
    header = read_header(str(path))
    return audio.read(str(path), header=header, first=first, last=last, rate=RATE, channel=None).samples


def listed(path: Path, channels: Channels = "mix", **part: float) -> list[Recording]:
    clip = Clip(path=str(path), shown=path.name, **part)  # type: ignore[arg-type]
    return list(recordings.recordings([clip], channels=channels, rate=RATE, receptive=RECEPTIVE, threads=1))


@dataclass(frozen=True)
class Format:
    name: str
    rate: int
    channels: int = 1


FORMATS = [
    Format("wav-8k-telephone.wav", 8_000),
    Format("wav-16k.wav", 16_000),
    Format("wav-22k.wav", 22_050),
    Format("wav-24bit-44k.wav", 44_100),
    Format("wav-48k.wav", 48_000),
    Format("flac-16k.flac", 16_000),
    Format("flac-22k.flac", 22_050),
    Format("flac-24bit-48k.flac", 48_000),
    Format("vorbis-22k.ogg", 22_050),
    Format("vorbis-44k.ogg", 44_100),
    Format("opus-16k.opus", 16_000),
    Format("opus-48k.opus", 48_000),
    Format("mp3-16k.mp3", 16_000),
    Format("mp3-44k.mp3", 44_100),
    Format("três maçãs à noite.flac", 16_000),
    Format("stereo-dialogue.wav", 16_000, channels=2),
    Format("long-90s.opus", 16_000),
]


@pytest.mark.parametrize("given", FORMATS, ids=lambda given: given.name)
def test_every_format_comes_at_the_model_s_rate(given: Format) -> None:
    header = read_header(str(CLIPS / given.name))
    assert (header.rate, header.channels, header.reader) == (given.rate, given.channels, "soundfile")
    samples = whole(CLIPS / given.name)
    assert samples.dtype == np.float32
    assert abs(len(samples) / RATE - header.duration_s) <= 2 / RATE
    plain, hertz = soundfile.read(CLIPS / given.name, dtype="float32", always_2d=True)
    reference = soxr.resample(plain.mean(axis=1), hertz, RATE, quality="VHQ")
    both = min(len(samples), len(reference))
    np.testing.assert_allclose(samples[:both], reference[:both], atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 44_100, 48_000, 96_000, 192_000])
def test_a_tone_keeps_its_pitch_and_level_at_any_rate(rate: int, tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * rate) / rate)
    soundfile.write(tmp_path / "tone.wav", tone, rate, subtype="FLOAT")
    samples = whole(tmp_path / "tone.wav")
    assert len(samples) == 2 * RATE
    expected = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE)
    middle = slice(RATE // 4, -RATE // 4)
    np.testing.assert_allclose(samples[middle], expected[middle], atol=1e-3)


def test_channels_are_mixed_or_taken() -> None:
    both, _ = soundfile.read(CLIPS / "stereo-dialogue.wav", dtype="float32")
    for channel, expected in ((None, both.mean(axis=1)), (0, both[:, 0]), (1, both[:, 1])):
        np.testing.assert_array_equal(whole(CLIPS / "stereo-dialogue.wav", channel=channel), expected)
    mono, _ = soundfile.read(CLIPS / "wav-16k.wav", dtype="float32")
    np.testing.assert_array_equal(whole(CLIPS / "wav-16k.wav", channel=1), mono)


@pytest.mark.parametrize(
    ("policy", "stereo", "mono"),
    [
        ("mix", [(None, False)], [(None, False)]),
        ("left", [(0, False)], [(0, False)]),
        ("right", [(1, False)], [(1, False)]),
        ("each", [(0, True), (1, True)], [(None, False)]),
    ],
)
def test_a_channel_policy_says_which_signals_a_recording_has(
    policy: Channels, stereo: list[tuple[int | None, bool]], mono: list[tuple[int | None, bool]]
) -> None:
    assert [(r.channel, r.named) for r in listed(CLIPS / "stereo-dialogue.wav", policy)] == stereo
    assert [(r.channel, r.named) for r in listed(CLIPS / "wav-16k.wav", policy)] == mono


@pytest.mark.parametrize("policy", ["mix", "left", "right", "each"])
def test_more_than_two_channels_are_read(policy: Channels, tmp_path: Path) -> None:
    sounds = np.stack([tiny.sound(0.5, seed=i) for i in range(6)], axis=1)
    soundfile.write(tmp_path / "six.wav", sounds, RATE, subtype="FLOAT")
    found = listed(tmp_path / "six.wav", policy)
    assert len(found) == (6 if policy == "each" else 1)
    for recording in found:
        expected = sounds.mean(axis=1) if recording.channel is None else sounds[:, recording.channel]
        np.testing.assert_allclose(whole(tmp_path / "six.wav", channel=recording.channel), expected, atol=1e-6)


def test_a_part_lies_between_its_start_and_end() -> None:
    path = CLIPS / "wav-24bit-44k.wav"
    (recording,) = listed(path, start=0.5, end=1.25)
    assert (recording.first, recording.samples) == (8_000, 12_000)
    (open_end,) = listed(path, start=0.5)
    (beyond,) = listed(path, start=0.5, end=99.0)
    assert open_end.samples == beyond.samples == len(whole(path)) - 8_000
    np.testing.assert_allclose(stretch(path, 8_000, 20_000), whole(path)[8_000:20_000], atol=1e-6)


@pytest.mark.parametrize(
    ("part", "name"),
    [({"start": 60.0}, "after_end"), ({"start": 0.5, "end": 0.51}, "too_short"), ({"end": 0.024}, "too_short")],
)
def test_a_part_without_sound_is_too_short(part: dict[str, float], name: str) -> None:
    (recording,) = listed(CLIPS / "wav-16k.wav", **part)
    assert recording.trouble is not None
    assert (recording.trouble.status, recording.trouble.name, recording.samples) == ("too_short", name, 0)


def test_one_sample_more_or_less_than_the_model_sees(tmp_path: Path) -> None:
    for samples, short in ((RECEPTIVE - 1, True), (RECEPTIVE, False)):
        soundfile.write(tmp_path / "a.wav", np.zeros(samples), RATE)
        (recording,) = listed(tmp_path / "a.wav")
        assert (recording.trouble is not None) == short


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """12 s of loud and quiet stretches in every format: their codecs' bitrates change all the time."""
    folder = tmp_path_factory.mktemp("changing")
    made = {}
    for name, rate, subtype in (
        ("a.wav", 44_100, "PCM_24"),
        ("a.flac", 48_000, None),
        ("a.ogg", 22_050, "VORBIS"),
        ("a.opus", 48_000, "OPUS"),
        ("a.mp3", 44_100, None),
    ):
        parts = [tiny.sound(3, seed=i, rate=rate) * np.float32(0.01 if i % 2 else 1) for i in range(4)]
        made[name] = folder / name
        container = {".opus": "OGG", ".mp3": "MP3"}.get(made[name].suffix)
        soundfile.write(made[name], np.concatenate(parts), rate, subtype, format=container)
    return made


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3"])
def test_a_window_read_alone_is_that_stretch_of_the_whole(name: str, changing: dict[str, Path]) -> None:
    path = changing[name]
    all_of_it = whole(path)
    assert len(all_of_it) == 12 * RATE
    random = np.random.default_rng(1)
    for _ in range(12):
        first = int(random.integers(0, 11 * RATE))
        last = min(len(all_of_it), first + int(random.integers(400, 5 * RATE)))
        np.testing.assert_allclose(stretch(path, first, last), all_of_it[first:last], atol=1e-4)


def test_the_long_recording_in_windows_is_the_whole() -> None:
    path = CLIPS / "long-90s.opus"
    windows = [stretch(path, first, first + 80_000) for first in range(0, 90 * RATE, 80_000)]
    # opus remembers a little of what came before: 1 s of run-up leaves 0.07% of full scale
    np.testing.assert_allclose(np.concatenate(windows), whole(path), atol=2e-3)


def test_no_samples_are_too_short(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0), RATE)
    (recording,) = listed(tmp_path / "a.wav")
    assert recording.trouble is not None
    assert recording.trouble.status == "too_short"


@pytest.mark.parametrize("name", ["flac-16k.flac", "vorbis-22k.ogg", "opus-16k.opus", "mp3-16k.mp3", "wav-16k.wav"])
@pytest.mark.parametrize("ending", ["", ".wav", ".mp3", ".txt"])
def test_the_ending_of_a_name_does_not_matter(name: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"renamed{ending}"
    path.write_bytes((CLIPS / name).read_bytes())
    np.testing.assert_array_equal(whole(path), whole(CLIPS / name))

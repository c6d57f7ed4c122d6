"""Sound in: every format, rate, width and channel policy; and everything that can be wrong with a file."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from runner.asr import audio, ffmpeg, header
from runner.asr.trouble import RecordingError
from tests.asr.tiny import sound

RATE = 16000
# container, encoding, suffix, largest error against the sound that went in (lossy ones are checked by correlation)
FORMATS = [
    ("WAV", "PCM_16", "wav", 1e-4),
    ("WAV", "PCM_24", "wav", 1e-6),
    ("WAV", "PCM_32", "wav", 1e-6),
    ("WAV", "FLOAT", "wav", 1e-6),
    ("WAV", "PCM_U8", "wav", 2e-2),
    ("WAV", "ULAW", "wav", 2e-2),
    ("FLAC", "PCM_16", "flac", 1e-4),
    ("FLAC", "PCM_24", "flac", 1e-6),
    ("OGG", "VORBIS", "ogg", None),
    ("OGG", "OPUS", "opus", None),
    ("MP3", "MPEG_LAYER_III", "mp3", None),
]


def write(folder: Path, samples: np.ndarray, rate: int, *, how: Sequence[str] = ("WAV", "FLOAT", "wav")) -> Path:
    path = folder / f"{how[1]}-{rate}.{how[2]}"
    soundfile.write(path, samples, rate, format=how[0], subtype=how[1])
    return path


def read(path: Path, *, first: int = 0, last: int | None = None, channel: int | None = None) -> np.ndarray:
    found = header.read_header(str(path))
    whole = round(found.frames * RATE / found.rate) if last is None else last
    return audio.read(str(path), header=found, first=first, last=whole, rate=RATE, channel=channel).samples


def alike(a: np.ndarray, b: np.ndarray) -> float:
    size = min(len(a), len(b))
    return float(np.corrcoef(a[:size], b[:size])[0, 1])


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form[1])
@pytest.mark.parametrize("rate", [8000, 16000, 24000, 48000])
def test_a_format_gives_the_sound_that_went_in(
    form: tuple[str, str, str, float | None], rate: int, tmp_path: Path
) -> None:
    *how, error = form
    samples = sound(1.5, rate=rate)
    found = read(write(tmp_path, samples, rate, how=how))
    expected = soxr.resample(samples, rate, RATE, quality="VHQ")
    assert abs(len(found) - len(expected)) <= 1
    if error is None:
        assert alike(found, expected) > 0.98
    else:
        size = min(len(found), len(expected))
        assert abs(found[:size] - expected[:size]).max() < error


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 12345])
def test_any_stretch_is_the_same_stretch_of_the_whole(rate: int, tmp_path: Path) -> None:
    path = write(tmp_path, sound(9.0, rate=rate), rate)
    whole = read(path)
    assert abs(len(whole) - 9 * RATE) <= 1
    for first, last in ((0, 100), (1, RATE), (31_999, 48_123), (80_000, 9 * RATE), (143_000, 143_400)):
        part = read(path, first=first, last=min(last, len(whole)))
        assert len(part) == min(last, len(whole)) - first
        np.testing.assert_allclose(part, whole[first:last], atol=1e-5)


@pytest.mark.parametrize("container, encoding, suffix", [f[:3] for f in FORMATS if f[3] is None])
def test_a_stretch_of_a_lossy_file_is_at_its_place(container: str, encoding: str, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path, sound(8.0, rate=48000), 48000, how=(container, encoding, suffix))
    whole = read(path)
    part = read(path, first=50_000, last=90_000)
    assert alike(part, whole[50_000:90_000]) > 0.999


def test_channels_are_mixed_or_picked(tmp_path: Path) -> None:
    left, right = sound(1.0, seed=1), sound(1.0, seed=2)
    path = write(tmp_path, np.stack([left, right], axis=1), RATE)
    np.testing.assert_allclose(read(path), (left + right) / 2, atol=1e-6)
    np.testing.assert_allclose(read(path, channel=0), left, atol=1e-6)
    np.testing.assert_allclose(read(path, channel=1), right, atol=1e-6)
    mono = write(tmp_path, left, 24000)
    assert alike(read(mono, channel=1), read(mono)) > 0.9999  # what has no right channel has one channel


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """A minute of six channels at 96 kHz is 138 MB; a stretch of a second must not hold it."""
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 96000, 6, subtype="PCM_16") as file:
        for seed in range(60):
            file.write(np.stack([sound(1.0, seed=seed, rate=96000)] * 6, axis=1))
    tracemalloc.start()
    assert len(read(path, first=30 * RATE, last=31 * RATE)) == RATE
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


# ---- what can be wrong ----


def trouble(path: Path) -> tuple[str, str]:
    with pytest.raises(RecordingError) as caught:
        read(path)
    assert caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.status, caught.value.name


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "dangling.wav").symlink_to(tmp_path / "nothing.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "file.wav").write_bytes(b"")
    assert trouble(tmp_path / "missing.wav") == ("decode_error", "not_found")
    assert trouble(tmp_path / "dangling.wav") == ("decode_error", "not_found")
    assert trouble(tmp_path) == ("decode_error", "not_a_file")
    assert trouble(tmp_path / "pipe.wav") == ("decode_error", "not_a_file")
    assert trouble(tmp_path / "loop.wav") == ("decode_error", "link_loop")
    assert trouble(tmp_path / "file.wav" / "below.wav") == ("decode_error", "unreadable")
    assert trouble(tmp_path / ("x" * 300)) == ("decode_error", "unreadable")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write(tmp_path, sound(0.5), RATE)
    path.chmod(0)
    assert trouble(path) == ("decode_error", "unreadable")


def test_files_that_are_no_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.asr.ffmpeg.installed", lambda: False)
    for name, content in {
        "zero.wav": b"",
        "text.wav": b"not audio at all, only words\n" * 100,
        "random.flac": np.random.default_rng(0).bytes(5000),
    }.items():
        (tmp_path / name).write_bytes(content)
    assert trouble(tmp_path / "zero.wav") == ("decode_error", "zero_bytes")
    assert trouble(tmp_path / "text.wav") == ("decode_error", "unsupported_format")
    assert trouble(tmp_path / "random.flac") == ("decode_error", "unsupported_format")


def test_the_content_counts_not_the_name(tmp_path: Path) -> None:
    real = write(tmp_path, sound(1.0), RATE, how=("FLAC", "PCM_16", "flac"))
    wrong = real.rename(tmp_path / "really-flac.mp3")
    assert len(read(wrong)) == RATE


def test_a_name_need_not_be_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"gr\xfc\xdfe.wav")
    path = write(tmp_path, sound(0.5), RATE).rename(tmp_path / name)
    assert len(read(path)) == RATE // 2


def test_samples_that_are_no_numbers(tmp_path: Path) -> None:
    for value in (np.nan, np.inf):
        samples = sound(0.5)
        samples[4000] = value
        assert trouble(write(tmp_path, samples, RATE)) == ("decode_error", "not_finite")


@pytest.mark.parametrize("how", [("FLAC", "PCM_16", "flac"), ("MP3", "MPEG_LAYER_III", "mp3")], ids=str)
def test_a_file_cut_short_is_truncated_or_corrupt(how: tuple[str, str, str], tmp_path: Path) -> None:
    path = write(tmp_path, sound(20.0), RATE, how=how)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    status, name = trouble(path)
    assert status == "decode_error"
    assert name in {"truncated", "corrupt"}


def test_a_header_that_claims_years_costs_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, sound(2.0), RATE, how=("FLAC", "PCM_16", "flac"))
    content = bytearray(path.read_bytes())
    assert content[:4] == b"fLaC"
    at = 4 + 4 + 13  # STREAMINFO: the low 4 bits of byte 13 and bytes 14 to 17 are the number of samples
    content[at] |= 0x0F
    content[at + 1 : at + 5] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert trouble(path)[1] in {"truncated", "corrupt"}


def test_an_absurd_rate_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, sound(0.5), RATE, how=("WAV", "PCM_16", "wav"))
    content = bytearray(path.read_bytes())
    for rate in (1, 2**31 - 1):
        content[24:28] = struct.pack("<I", rate)
        path.write_bytes(content)
        assert trouble(path)[0] == "decode_error"


def test_a_file_that_changes_during_the_job(tmp_path: Path) -> None:
    path = write(tmp_path, sound(2.0), RATE)
    before = header.read_header(str(path))
    soundfile.write(path, sound(1.0, rate=8000), 8000)
    with pytest.raises(RecordingError) as caught:
        audio.read(str(path), header=before, first=0, last=2 * RATE, rate=RATE, channel=None)
    assert caught.value.name == "changed"


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """One way of many to break a file."""
    data = bytearray(content)
    kind = random.integers(6)
    if kind == 0:  # cut off
        return bytes(data[: random.integers(0, len(data))])
    if kind == 1:  # bytes changed anywhere
        for at in random.integers(0, len(data), random.integers(1, 200)):
            data[at] = random.integers(256)
    elif kind == 2:  # bytes changed in the header
        for at in random.integers(0, min(64, len(data)), random.integers(1, 8)):
            data[at] = random.integers(256)
    elif kind == 3:  # a stretch lost
        at = random.integers(0, len(data))
        del data[at : at + random.integers(1, 2000)]
    elif kind == 4:  # a stretch of zeros
        at, size = random.integers(0, len(data)), random.integers(1, 3000)
        data[at : at + size] = bytes(len(data[at : at + size]))
    else:  # rubbish put in
        at = random.integers(0, len(data))
        data[at:at] = random.bytes(int(random.integers(1, 2000)))
    return bytes(data)


def broken_files(folder: Path, count: int) -> list[Path]:
    """Seeded mutations of good files, all formats in turn."""
    random = np.random.default_rng(2026)
    paths = []
    for number in range(count):
        container, encoding, suffix, _ = FORMATS[number % len(FORMATS)]
        rate = [8000, 16000, 48000][number % 3]
        good = write(folder, sound(1.0, seed=number, rate=rate), rate, how=(container, encoding, suffix))
        path = folder / f"broken-{number:03}.{suffix}"
        path.write_bytes(mutated(good.read_bytes(), random))
        paths.append(path)
    return paths


def test_a_broken_file_is_read_or_has_a_status_and_a_class(tmp_path: Path) -> None:
    read_at_all = 0
    for path in broken_files(tmp_path, 150):
        try:
            samples = read(path)
        except RecordingError as error:
            assert error.status == "decode_error", path
            assert error.name
            assert error.message
        else:
            read_at_all += 1
            assert np.isfinite(samples).all()
    assert 10 < read_at_all < 140, "the corpus is too tame or too wild"


def test_probing_keeps_the_order(tmp_path: Path) -> None:
    paths = [str(write(tmp_path, sound(0.1 + i / 100), 8000 + i)) for i in range(20)]
    paths.insert(7, str(tmp_path / "missing.wav"))
    found = list(header.probe(paths, threads=4))
    assert [getattr(f, "rate", None) for f in found] == [*range(8000, 8007), None, *range(8007, 8020)]


# ---- ffmpeg, played by a script that keeps to its command line ----

FFPROBE = """#!/usr/bin/env python3
import json, sys
path = sys.argv[-1]
assert path.startswith("file:/") and "-protocol_whitelist" in sys.argv, sys.argv
if "bad" in path:
    sys.exit("moov atom not found")
streams = [] if "silent" in path else [{"sample_rate": "24000", "channels": 2}]
print(json.dumps({"streams": streams, "format": {"duration": "3.000000"}}))
"""
FFMPEG = """#!/usr/bin/env python3
import struct, sys
options = dict(zip(sys.argv[1:], sys.argv[2:]))
assert options["-ac"] == "2" and options["-ar"] == "24000" and options["-f"] == "f32le", sys.argv
start = int(options["-ss"])
frames = [(i / 72000, -i / 72000) for i in range(start * 24000, 72000)]
sys.stdout.buffer.write(b"".join(struct.pack("<ff", *f) for f in frames))
sys.exit(1 if "broken" in options["-i"] else 0)
"""


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in (("ffmpeg", FFMPEG), ("ffprobe", FFPROBE)):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(text)
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    ffmpeg.installed.cache_clear()
    yield tmp_path
    ffmpeg.installed.cache_clear()


def test_other_formats_go_through_ffmpeg(scripted: Path) -> None:
    path = scripted / "film.mp4"
    path.write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    assert header.read_header(str(path)).reader == "ffmpeg"
    left = read(path, channel=0)
    assert abs(len(left) - 3 * RATE) <= 1
    np.testing.assert_allclose(left[100:-100], np.arange(3 * RATE)[100 : len(left) - 100] / (3 * RATE), atol=1e-3)
    part = read(path, first=40_000, last=41_000, channel=0)
    np.testing.assert_allclose(part, left[40_000:41_000], atol=1e-4)
    assert abs(read(path)[100:-100]).max() < 1e-4  # the mix of opposite channels


def test_what_ffmpeg_cannot_read_has_a_class(scripted: Path) -> None:
    for name, expected in (("bad", "unsupported_format"), ("silent", "no_audio"), ("broken", "corrupt")):
        path = scripted / f"{name}.mp4"
        path.write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
        assert trouble(path) == ("decode_error", expected)

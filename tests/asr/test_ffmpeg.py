"""The real ffmpeg: what it reads, on which clock, and what it must not do. Skipped where it is not installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from runner.asr import audio, ffmpeg
from runner.asr.header import Header, probe, read_header
from runner.asr.trouble import RecordingError
from tests.asr.test_broken_audio import broken, quiet_then_loud
from tests.asr.tiny import sound
from tests.jobs.helpers import CLIPS, transcribe

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="ffmpeg and ffprobe are not installed"
    ),
    # transformers leaves the JSON files it reads to the collector
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]
RATE = 16000
QUICK = ("a.m4a", "a.webm", "a.wma")  # the others are slow together: 40 s
LENGTH_S = 8
BLUE = ("-f", "lavfi", "-i", f"color=c=blue:s=64x48:r=10:d={LENGTH_S + 1}")
# file -> how it is made; by how many ms all of it may lie late, for not every format says how much run-up its encoder
# put in front; by how many ms a stretch may lie elsewhere than in a read of the whole file
FORMATS: dict[str, tuple[tuple[str, ...], float, float]] = {
    "a.m4a": (("-c:a", "aac"), 0.1, 0),
    "a.webm": (("-c:a", "libopus"), 8, 1),
    "a.mka": (("-c:a", "libvorbis"), 4, 1),
    "film.mp4": (("-c:v", "mpeg4", "-c:a", "aac"), 0.1, 0),
    "film.mkv": (("-c:v", "mpeg4", "-c:a", "libmp3lame"), 30, 1),
    "film.ts": (("-c:v", "mpeg2video", "-c:a", "aac"), 50, 0),
    "film.avi": (("-c:v", "mpeg4", "-c:a", "libmp3lame"), 50, 0),
    "a.wma": (("-c:a", "wmav2"), 50, 0),
    "a.aac": (("-c:a", "aac"), 50, 0),
}
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FORMATS]
Samples = NDArray[np.float32]
Made = Callable[..., Path]


def run(*words: str | Path, **more: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *words], check=True, **more)  # type: ignore[call-overload]


@cache
def voices(channels: int) -> Samples:
    """Other sounds in each channel, at 44,100 Hz. [samples, channels]."""
    return np.stack([sound(LENGTH_S, seed=seed, rate=44_100) for seed in range(channels)], axis=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A maker of files with ``voices``: (name, options, channels=..., late_s=...)."""
    folder = tmp_path_factory.mktemp("ffmpeg")
    for channels in (1, 2):
        soundfile.write(folder / f"{channels}.wav", voices(channels), 44_100)

    def make(name: str, *options: str, channels: int = 1, late_s: float = 0) -> Path:
        path = folder / f"{channels}-{late_s}-{name}"
        if not path.exists():
            film = BLUE if "-c:v" in options else ()
            maps = ("-map", "0:v", "-map", "1:a") if film else ()
            run(*film, "-itsoffset", str(late_s), "-i", folder / f"{channels}.wav", *maps, *options, path)
        return path

    ffmpeg.installed.cache_clear()
    yield make
    ffmpeg.installed.cache_clear()


def read(path: Path, first: int = 0, last: int = 1 << 40, channel: int | None = None) -> Samples:
    found = read_header(str(path))
    whole = round(found.frames * RATE / found.rate)
    return audio.read(str(path), header=found, first=first, last=min(last, whole), rate=RATE, channel=channel).samples


def trouble(path: Path) -> RecordingError:
    with pytest.raises(RecordingError) as caught:
        read(path)
    return caught.value


def lag(part: Samples, whole: Samples, at: int, *, within: int) -> int:
    """How many samples behind ``at`` the sound of ``part`` lies in ``whole``."""
    begin = max(0, at - within)
    around = whole[begin : at + len(part) + within].astype(np.float64)
    size = 1 << (len(around) + len(part)).bit_length()
    scores = np.fft.irfft(np.fft.rfft(around, size) * np.fft.rfft(part, size).conj())[: len(around) - len(part) + 1]
    energy = np.concatenate(([0.0], np.cumsum(around**2)))
    loudness = np.sqrt(energy[len(part) :] - energy[: len(scores)])
    return int((scores / (loudness + 1e-3)).argmax()) + begin - at


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_format_gives_the_sound_that_went_in(name: str, channels: int, made: Made) -> None:
    path = made(name, *FORMATS[name][0], channels=channels)
    header = read_header(str(path))
    assert (header.reader, header.channels) == ("ffmpeg", channels)
    assert header.duration_s == pytest.approx(LENGTH_S, abs=0.5)
    for channel in (None, *range(channels)):
        expected = voices(channels)[:, channel] if channel is not None else voices(channels).mean(axis=1)
        expected = soxr.resample(expected, 44_100, RATE)[4 * RATE : 5 * RATE]
        found = read(path, channel=channel)
        assert len(found) / RATE == pytest.approx(LENGTH_S, abs=0.1)
        late = lag(expected, found, 4 * RATE, within=RATE // 10)
        assert abs(late) <= FORMATS[name][1] * RATE / 1000
        same = found[4 * RATE + late : 5 * RATE + late]
        assert np.corrcoef(same, expected)[0, 1] > 0.95


@pytest.mark.parametrize("name", NAMES)
def test_any_stretch_is_the_same_stretch_of_the_whole(name: str, made: Made) -> None:
    options, _, off_ms = FORMATS[name]
    path = made(name, *options)
    whole = read(path)
    for first, last in ((1, RATE), (48_003, 64_123), (6 * RATE, 1 << 40)):
        part = read(path, first=first, last=last)
        assert abs(len(part) - (min(last, len(whole)) - first)) <= off_ms * RATE / 1000
        at = lag(part, whole, first, within=RATE // 5)
        assert abs(at) <= off_ms * RATE / 1000, first
        if off_ms == 0:  # what the codec makes of the first frames after a jump
            assert abs(part - whole[first : first + len(part)]).max() < 0.02, first
        else:
            start = max(0, first + at)
            same = whole[start : start + RATE // 2]
            assert np.corrcoef(part[start - first - at :][: RATE // 2], same)[0, 1] > 0.99


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv"])
def test_sound_that_begins_late_begins_late(name: str, made: Made) -> None:
    """Word times are those of the film's player, and of every window of it."""
    path = made(name, *FORMATS[name][0], late_s=0.7)
    whole = read(path)
    assert abs(whole[: int(0.6 * RATE)]).max() < 1e-3
    assert len(whole) / RATE == pytest.approx(LENGTH_S + 0.7, abs=0.1)
    expected = soxr.resample(voices(1)[:, 0], 44_100, RATE)[4 * RATE : 5 * RATE]
    assert abs(lag(expected, whole, round(4.7 * RATE), within=RATE)) <= 0.03 * RATE
    part = read(path, first=6 * RATE, last=7 * RATE)
    assert abs(lag(part, whole, 6 * RATE, within=RATE)) <= 0.001 * RATE


def test_a_gap_is_silence_not_a_jump(made: Made, tmp_path: Path) -> None:
    """Browsers write nothing while the microphone is muted."""
    gap = "noise=drop='between(pts*tb,2,4)'"
    run("-i", made("a.webm", *FORMATS["a.webm"][0]), "-c", "copy", "-bsf:a", gap, tmp_path / "gap.webm")
    whole = read(tmp_path / "gap.webm")
    assert len(whole) / RATE == pytest.approx(LENGTH_S, abs=0.1)
    assert abs(whole[round(2.2 * RATE) : round(3.8 * RATE)]).max() < 1e-3
    for first in (5 * RATE, 6 * RATE):
        part = read(tmp_path / "gap.webm", first=first, last=first + RATE)
        assert abs(lag(part, whole, first, within=4 * RATE)) <= 0.001 * RATE


def test_a_recording_of_a_browser_does_not_say_its_length(made: Made, tmp_path: Path) -> None:
    live = tmp_path / "live.webm"
    with live.open("wb") as file:
        run("-i", made("a.webm", *FORMATS["a.webm"][0]), "-c", "copy", "-f", "webm", "pipe:1", stdout=file)
    assert ffmpeg.probe(str(live)).frames / 48_000 == pytest.approx(LENGTH_S, abs=0.02)
    whole, part = read(live), read(live, first=6 * RATE, last=7 * RATE)
    assert abs(lag(part, whole, 6 * RATE, within=RATE)) <= 0.001 * RATE


def test_recordings_behind_one_another_are_all_read(tmp_path: Path) -> None:
    data = (CLIPS / "opus-16k.opus").read_bytes()
    (tmp_path / "two.opus").write_bytes(data + data)
    one = soundfile.info(CLIPS / "opus-16k.opus").duration
    header = read_header(str(tmp_path / "two.opus"))
    assert header.reader == "ffmpeg"
    assert len(read(tmp_path / "two.opus")) / RATE == pytest.approx(2 * one, abs=0.1)


def test_an_mp3_that_does_not_say_its_length_is_read_to_its_end(tmp_path: Path) -> None:
    silent = quiet_then_loud(tmp_path / "b.mp3", tells=False)
    assert read_header(str(silent)).reader == "ffmpeg"
    assert len(read(silent)) / RATE == pytest.approx(8, abs=0.1)


def test_a_film_without_sound_says_so(tmp_path: Path) -> None:
    run(*BLUE, "-c:v", "mpeg4", tmp_path / "silent.mp4")
    found = trouble(tmp_path / "silent.mp4")
    assert (found.status, found.name) == ("decode_error", "no_audio")


@pytest.mark.parametrize("share", [0.3, 0.85])
def test_what_was_cut_off_is_missed(share: float, made: Made, tmp_path: Path) -> None:
    """With its index in front a film can be read, up to where it ends; 15% missing is not passed over."""
    data = made("fast.m4a", "-c:a", "aac", "-movflags", "+faststart").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(data[: int(share * len(data))])
    assert trouble(tmp_path / "cut.m4a").name == "truncated"
    data = made("a.webm", *FORMATS["a.webm"][0]).read_bytes()
    (tmp_path / "cut.webm").write_bytes(data[: int(share * len(data))])
    assert trouble(tmp_path / "cut.webm").name == "truncated"


@pytest.mark.parametrize("name", QUICK)
def test_damage_is_no_silence(name: str, made: Made, tmp_path: Path) -> None:
    """ffmpeg exits with 0, and the sound is as long as it should be; a sixth of it is missing."""
    data = made(name, *FORMATS[name][0]).read_bytes()
    begin, end = len(data) // 3, len(data) // 2
    for how, hole in (("zeros", bytes(end - begin)), ("random", np.random.default_rng(0).bytes(end - begin))):
        path = tmp_path / f"{how}-{name}"
        path.write_bytes(data[:begin] + hole + data[end:])
        assert trouble(path).name == "corrupt", how
        with pytest.raises(RecordingError, match="damaged: a part of its sound"):  # a stretch that ends before the file
            read(path, last=6 * RATE)


def test_a_capture_that_begins_between_two_whole_pictures_has_all_its_sound(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voices(1), 44_100)
    video = ("-c:v", "mpeg2video", "-g", "100", "-c:a", "aac")
    run(*BLUE, "-i", tmp_path / "a.wav", *video, tmp_path / "a.ts")
    data = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "late.ts").write_bytes(data[len(data) // 188 // 3 * 188 :])
    shown = subprocess.run(["ffprobe", "-v", "error", tmp_path / "late.ts"], capture_output=True, check=True).stderr
    assert b"[mpeg2video @" in shown
    assert len(read(tmp_path / "late.ts")) / RATE == pytest.approx(LENGTH_S * 2 / 3, abs=0.5)


@pytest.mark.parametrize("name", ["a.m4a", "a.wma"])
def test_what_takes_too_long_says_so(name: str, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """a.m4a states its length; that of a.wma is counted by reading it once."""
    path = made(name, *FORMATS[name][0])
    header = read_header(str(path))
    monkeypatch.setattr(ffmpeg, "READ_LIMIT_S", 0.001)
    with pytest.raises(RecordingError) as caught:
        audio.read(str(path), header=header, first=0, last=RATE, rate=RATE, channel=None)
    assert (caught.value.name, caught.value.message) == (
        "timeout",
        "ffmpeg took more than 0.001 s to read a part of it; convert it to flac, or cut it into shorter recordings",
    )
    if name == "a.wma":
        assert trouble(path).name == "timeout"
    monkeypatch.setattr(ffmpeg, "PROBE_LIMIT_S", 0.001)
    assert trouble(path).message.startswith("ffprobe took more than 0.001 s to look at it; convert it to flac")


def test_a_film_that_lost_its_index_says_why_and_nothing_of_this_machine(made: Made, tmp_path: Path) -> None:
    data = made("film.mp4", *FORMATS["film.mp4"][0]).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    found = trouble(tmp_path / "cut.mp4")
    assert (found.name, found.message) == (
        "unsupported_format",
        "neither soundfile nor ffmpeg reads it (moov atom not found)",
    )


def test_a_playlist_reaches_neither_addresses_nor_other_files(made: Made, tmp_path: Path) -> None:
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:8,\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        for name, text in (("far.m3u8", head + address), ("far.mp4", head + address)):
            (tmp_path / name).write_text(f"{text}\n#EXT-X-ENDLIST\n")
            assert trouble(tmp_path / name).name == "unsupported_format"
        with pytest.raises(TimeoutError):
            server.accept()
    shutil.copy(made("film.ts", *FORMATS["film.ts"][0]), tmp_path / "near.ts")
    (tmp_path / "near.m3u8").write_text(f"{head}near.ts\n#EXT-X-ENDLIST\n")
    (tmp_path / "near.mp4").write_text("ffconcat version 1.0\nfile near.ts\n")
    for name, what in (("near.m3u8", "hls"), ("near.mp4", "concat")):
        assert trouble(tmp_path / name).message == f"is a playlist ({what}); name the recordings that it lists"


@pytest.mark.parametrize("source", ["flac-16k.flac", "opus-16k.opus", "vorbis-22k.ogg", "wav-16k.wav"])
def test_ffmpeg_closes_no_hole_of_what_libsndfile_refuses(source: str, tmp_path: Path) -> None:
    """It would leave out what is damaged, and move all times behind it."""
    files = broken((CLIPS / source).read_bytes(), np.random.default_rng(20))
    for how in ("zeroed-middle", "zeroed-end", "garbage-after-head", "flipped-500", "cut-0.5", "headless"):
        path = tmp_path / f"{how}.{source}"
        path.write_bytes(files[how])
        if source.endswith(".wav") and how not in {"cut-0.5", "headless"}:
            continue  # bare samples: nothing tells a damaged one
        assert trouble(path).status == "decode_error", how


@pytest.mark.parametrize("name", ["-i.m4a", "100%d.m4a", "http:a.m4a", "três maçãs'\".m4a", "concat:a|b.m4a"])
def test_a_name_is_only_a_name(name: str, made: Made, tmp_path: Path) -> None:
    shutil.copy(made("a.m4a", *FORMATS["a.m4a"][0]), tmp_path / name)
    assert len(read(tmp_path / name)) / RATE == pytest.approx(LENGTH_S, abs=0.1)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take UTF-8 names only")
def test_a_name_need_not_be_text(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9.m4a"
    shutil.copy(made("a.m4a", *FORMATS["a.m4a"][0]), path)
    (found,) = probe([str(path)], threads=1)
    assert isinstance(found, Header)


def test_the_job_transcribes_a_film_like_the_recording_in_it(tmp_path: Path) -> None:
    shutil.copy(CLIPS / "flac-16k.flac", tmp_path / "a.flac")
    run("-i", tmp_path / "a.flac", "-c:a", "alac", tmp_path / "a.m4a")
    ran = transcribe(tmp_path, data={"audio": ["a.flac", "a.m4a"]})
    assert [row["status"] for row in ran.rows] == ["ok", "ok"], ran.rows
    first, second = (row["text"] for row in ran.rows)
    assert first == second != ""

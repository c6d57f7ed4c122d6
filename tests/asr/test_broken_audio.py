"""Broken recordings through the real job: each gets a status and a reason, and none of them stops the others."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from runner.asr.header import probe, read_header
from runner.asr.trouble import RecordingError
from tests.asr import tiny
from tests.jobs import helpers
from tests.jobs.helpers import CLIPS

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

STATUSES = {"ok", "empty", "too_short", "decode_error", "failed"}
SOURCES = (
    "wav-8k-telephone.wav",
    "wav-22k.wav",
    "wav-24bit-44k.wav",
    "flac-16k.flac",
    "flac-24bit-48k.flac",
    "vorbis-22k.ogg",
    "opus-16k.opus",
    "mp3-16k.mp3",
    "mp3-44k.mp3",
)


def broken(data: bytes, random: np.random.Generator) -> dict[str, bytes]:
    """``data`` damaged in the ways that disks, networks and programs do."""
    size = len(data)
    rubbish = random.bytes(size)
    made = {f"cut-{share:g}": data[: int(size * share)] for share in (0.002, 0.02, 0.3, 0.5, 0.8, 0.95)}
    made |= {f"flipped-{count}": flipped(data, count, random) for count in (1, 20, 500)}
    made["zeroed-head"] = bytes(64) + data[64:]
    made["zeroed-middle"] = data[: size // 3] + bytes(size // 3) + data[2 * (size // 3) :]
    made["zeroed-end"] = data[: size // 2] + bytes(size - size // 2)
    made["garbage-after-head"] = data[:128] + rubbish[128:]
    made["garbage-in-head"] = data[:8] + rubbish[:56] + data[64:]
    made["headless"] = data[200:]
    made["doubled"] = data + data
    return made


def flipped(data: bytes, count: int, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for at in random.integers(0, len(data), count):
        changed[at] ^= 1 << int(random.integers(0, 8))
    return bytes(changed)


def by_hand() -> dict[str, bytes]:
    wav = (CLIPS / "wav-22k.wav").read_bytes()

    def patched(offset: int, format_: str, *values: int) -> bytes:
        return wav[:offset] + struct.pack(format_, *values) + wav[offset + struct.calcsize(format_) :]

    return {
        "no-bytes.wav": b"",
        "one-byte.wav": b"R",
        "riff-only.wav": b"RIFF",
        "no-data-chunk.wav": wav[:36],
        "no-channels.wav": patched(22, "<H", 0),
        "too-many-channels.wav": patched(22, "<H", 65_535),
        "no-rate.wav": patched(24, "<I", 0),
        "years-long-rate.wav": patched(24, "<I", 1),
        "fastest-rate.wav": patched(24, "<I", 0xFFFF_FFFF),
        "no-block.wav": patched(32, "<H", 0),
        "unknown-codec.wav": patched(20, "<H", 0x7777),
        "gigabytes.wav": patched(40, "<I", 0x7000_0000),
        "unknown-size.wav": patched(40, "<I", 0xFFFF_FFFF),
        "endless-chunk.wav": wav[:36] + b"LIST" + struct.pack("<I", 0x7FFF_FFFF) + wav[36:],
        "id3-only.mp3": b"ID3\x04\x00\x00\x7f\x7f\x7f\x7f" + bytes(500),
        "one-frame.mp3": (CLIPS / "mp3-16k.mp3").read_bytes()[:200],
        "ones.mp3": b"\xff" * 300_000,
        "head-only.flac": (CLIPS / "flac-16k.flac").read_bytes()[:42],
        "years.flac": years((CLIPS / "flac-16k.flac").read_bytes()),
        "one-page.ogg": (CLIPS / "vorbis-22k.ogg").read_bytes()[:58],
        "text.flac": b"fLaC is not sound\n" * 50,
        "html.mp3": b"<!doctype html><title>404</title>" * 30,
        "picture.ogg": b"\x89PNG\r\n\x1a\n" + bytes(2_000),
        "zeros.wav": bytes(50_000),
    }


def years(flac: bytes) -> bytes:
    """With a STREAMINFO that claims 2^36 - 1 samples."""
    return flac[:21] + bytes([flac[21] | 0x0F]) + b"\xff\xff\xff\xff" + flac[26:]


@pytest.fixture(scope="module", autouse=True)
def _without_ffmpeg() -> Iterator[None]:
    """What is said here is said where ffmpeg is not installed; test_ffmpeg.py has the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runner.asr.ffmpeg.installed", lambda: False)
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The job's row for every broken file, and for two whole ones."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "clips").mkdir()
    random = np.random.default_rng(20)
    files = dict(by_hand())
    for name in SOURCES:
        source = CLIPS / name
        made = broken(source.read_bytes(), random)
        files |= {f"{source.stem}.{how}{source.suffix}": data for how, data in made.items()}
    first, second = ((CLIPS / name).read_bytes() for name in ("flac-16k.flac", "opus-16k.opus"))
    files |= {"spliced.flac": first[:20_000] + second, "spliced.opus": second[:2_000] + first}
    files |= {"wrong.wav": first, "wrong.flac": second}
    for name, data in files.items():
        (folder / "clips" / name).write_bytes(data)
    sound = tiny.sound(1.0)
    sound[100] = np.nan
    soundfile.write(folder / "clips" / "not-finite.wav", sound, 16_000, subtype="FLOAT")
    for name in ("wav-22k.wav", "mp3-44k.mp3"):
        (folder / "clips" / f"whole-{name}").write_bytes((CLIPS / name).read_bytes())
    ran = helpers.transcribe(folder, data={"audio": ["clips"]}, batch={"seconds": 30})
    assert (ran.result.action, ran.result.message) == ("created", "")
    found = {Path(row["path"]).name: row for row in ran.rows}
    assert len(found) == len(files) + 3 == len(ran.rows)
    return found


def test_at_least_a_hundred_broken_files_each_have_a_status(rows: dict[str, dict[str, Any]]) -> None:
    assert len(rows) >= 100
    counts = Counter(row["status"] for row in rows.values())
    assert set(counts) <= STATUSES
    assert counts["decode_error"] >= 60
    assert counts["ok"] >= 20
    for name, row in rows.items():
        fine = row["status"] in {"ok", "empty"}
        assert (row["error"] is None) == fine, name
        assert fine or (row["error"]["class"] and row["error"]["message"] and not row["text"] and not row["words"])
        assert fine or "\n" not in row["error"]["message"], name


def test_what_libsndfile_refuses_never_comes_as_a_surprise(rows: dict[str, dict[str, Any]]) -> None:
    """`failed` is for what nobody foresaw: no broken file may end there."""
    assert [name for name, row in rows.items() if row["status"] == "failed"] == []


def test_whole_files_among_broken_ones_are_read(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["whole-wav-22k.wav"]["text"] == "o cachorro não viu a lâmpada"
    assert rows["whole-mp3-44k.mp3"]["status"] == "ok"
    assert rows["wrong.wav"]["status"] == rows["wrong.flac"]["status"] == "ok"
    assert rows["unknown-size.wav"]["text"] == "o cachorro não viu a lâmpada"


@pytest.mark.parametrize("name", SOURCES)
def test_what_was_cut_off_is_never_lost_without_a_word(name: str, rows: dict[str, dict[str, Any]]) -> None:
    source = CLIPS / name
    for share in (0.02, 0.3, 0.5, 0.8):
        row = rows[f"{source.stem}.cut-{share:g}{source.suffix}"]
        assert row["status"] == "decode_error", (share, row)
        assert row["error"]["class"] in {"truncated", "corrupt", "unsupported_format"}


@pytest.mark.parametrize("name", [n for n in SOURCES if not n.endswith(".wav")])
def test_a_hole_is_never_closed_without_a_word(name: str, rows: dict[str, dict[str, Any]]) -> None:
    """One wrong bit of an ogg page would lose its whole second, and move all times behind it."""
    source = CLIPS / name
    for how in ("zeroed-middle", "zeroed-end", "garbage-after-head", "flipped-500"):
        assert rows[f"{source.stem}.{how}{source.suffix}"]["status"] == "decode_error", how
    row = rows[f"{source.stem}.flipped-1{source.suffix}"]
    assert row["status"] == ("ok" if source.suffix == ".mp3" else "decode_error")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("no-bytes.wav", "zero_bytes"),
        ("text.flac", "corrupt"),
        ("picture.ogg", "unsupported_format"),
        ("html.mp3", "corrupt"),
        ("opus-16k.doubled.opus", "chained"),
        ("mp3-16k.doubled.mp3", "unknown_length"),
        ("gigabytes.wav", "truncated"),
        ("years.flac", "truncated"),
        ("not-finite.wav", "not_finite"),
    ],
)
def test_the_class_says_what_is_wrong(name: str, error: str, rows: dict[str, dict[str, Any]]) -> None:
    assert rows[name]["error"]["class"] == error


def refused(path: Path) -> RecordingError:
    (found,) = probe([str(path)], threads=1)
    assert isinstance(found, RecordingError)
    return found


def quiet_then_loud(path: Path, *, tells: bool) -> Path:
    """8 s of mp3 at a changing bitrate; without ``tells`` no header says how long it is."""
    parts = [tiny.sound(4, rate=44_100) * np.float32(0.001), 20 * tiny.sound(4, seed=1, rate=44_100)]
    noise = np.random.default_rng(0).standard_normal(4 * 44_100) * 0.2
    soundfile.write(path, np.concatenate([parts[0], noise]), 44_100, format="MP3", bitrate_mode="VARIABLE")
    data = path.read_bytes()
    if not tells:
        path.write_bytes(data[data.index(b"\xff\xfb", 4) :])
    return path


def test_an_mp3_that_does_not_say_its_length_is_not_read_in_part(tmp_path: Path) -> None:
    whole = read_header(str(quiet_then_loud(tmp_path / "a.mp3", tells=True)))
    assert whole.duration_s == 8.0
    silent = quiet_then_loud(tmp_path / "b.mp3", tells=False)
    assert soundfile.info(silent).duration < 6, "libsndfile no longer guesses: this check may go"
    assert refused(silent).name == "unknown_length"


def test_two_mp3s_behind_one_another_are_not_read_in_part(tmp_path: Path) -> None:
    data = (CLIPS / "mp3-16k.mp3").read_bytes()
    (tmp_path / "a.mp3").write_bytes(data + data)
    assert refused(tmp_path / "a.mp3").name == "unknown_length"


def test_an_mp3_with_tags_is_whole(tmp_path: Path) -> None:
    data = (CLIPS / "mp3-16k.mp3").read_bytes()
    header = read_header(str(CLIPS / "mp3-16k.mp3"))
    (tmp_path / "a.mp3").write_bytes(b"ID3\x04\x00\x00\x00\x00\x07\x68" + bytes(1000) + data + b"TAG" + bytes(125))
    assert read_header(str(tmp_path / "a.mp3")) == header


def test_an_mp3_at_a_constant_bitrate_need_not_say_its_length(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    noise = np.random.default_rng(0).standard_normal(80_000).astype(np.float32) * 0.2
    soundfile.write(path, noise, 16_000, format="MP3", bitrate_mode="CONSTANT", compression_level=0.5)
    data = path.read_bytes()
    assert b"Xing" not in data
    path.write_bytes(data[data.index(b"\xff\xf3", 4) :])
    assert read_header(str(path)).duration_s == pytest.approx(5, abs=0.2)


def test_an_ogg_without_its_last_page_is_what_it_is(tmp_path: Path) -> None:
    """A recorded stream may end with any whole page; with half a page it was cut."""
    data = (CLIPS / "long-90s.opus").read_bytes()
    pages = [at for at in range(len(data)) if data.startswith(b"OggS", at)]
    (tmp_path / "a.opus").write_bytes(data[: pages[-3]])
    assert 80 < read_header(str(tmp_path / "a.opus")).duration_s < 90
    (tmp_path / "a.opus").write_bytes(data[: pages[-3] - 1])
    assert refused(tmp_path / "a.opus").name == "truncated"


def test_a_flac_that_was_written_to_a_pipe_says_what_to_do(tmp_path: Path) -> None:
    data = (CLIPS / "flac-16k.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:])
    trouble = refused(tmp_path / "a.flac")
    assert trouble.name == "unknown_length"
    assert "encode it again" in trouble.message


@pytest.mark.parametrize("lost_s", [0.05, 0.2])
def test_a_wav_may_lack_a_moment_but_no_word(lost_s: float, tmp_path: Path) -> None:
    data = (CLIPS / "wav-22k.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(data[: -int(32_000 * lost_s)])
    (found,) = probe([str(tmp_path / "a.wav")], threads=1)
    assert isinstance(found, RecordingError) == (lost_s > 0.1)

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.report.audio import MAX_ALL, MAX_CLIP, Clips
from tests.report.reports import wav


@pytest.mark.parametrize(
    "name, begins, media_type",
    [
        ("a.wav", b"RIFF", "audio/wav"),
        ("a.FLAC", b"fLaC", "audio/flac"),
        ("a.opus", b"OggS", "audio/ogg"),
        ("a.mp3", b"ID3", "audio/mpeg"),
        ("a.mp3", b"\xff\xfb", "audio/mpeg"),
        ("a.m4a", b"\0\0\0\x18ftyp", "audio/mp4"),
        ("a.webm", b"\x1aE\xdf\xa3", "audio/webm"),
    ],
)
def test_formats_that_browsers_play(tmp_path: Path, name: str, begins: bytes, media_type: str) -> None:
    (tmp_path / name).write_bytes(begins + b"x" * 100)
    assert (Clips(tmp_path).uri(name) or "").startswith(f"data:{media_type};base64,")


def test_what_is_not_played(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(wav())
    (tmp_path / "secret.wav").write_bytes(b"password = hunter2")
    (tmp_path / "secret.mp3").write_bytes(b"password = hunter2")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "large.wav").write_bytes(b"RIFF" + b"x" * MAX_CLIP)
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    clips = Clips(tmp_path)
    names = ["a.txt", "secret.wav", "secret.mp3", "empty.wav", "large.wav", "folder.wav", "pipe.wav", "missing.wav"]
    names += ["x\0y.wav", "x" * 5000 + ".wav"]
    assert [clips.uri(name) for name in names] == [None] * len(names)
    assert (clips.played, clips.left_out) == (0, len(names))


def test_absolute_paths_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav())
    assert Clips(Path("/nowhere")).uri(str(tmp_path / "a.wav"))


def test_there_is_an_end_to_the_room(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF" + b"x" * (MAX_CLIP - 4))
    clips = Clips(tmp_path)
    assert sum(clips.uri("a.wav") is not None for _ in range(30)) == MAX_ALL // MAX_CLIP
    assert clips.left_out == 30 - MAX_ALL // MAX_CLIP


def test_nothing_is_looked_for_without_a_root_or_a_path(tmp_path: Path) -> None:
    clips = Clips(None)
    assert clips.uri("a.wav") is None
    assert Clips(tmp_path).uri(None) is None
    assert clips.left_out == 0

"""Patterns, folders and manifests to lists of files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.plan import files
from runner.schema.errors import PlanError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "specs"
    for name in (
        "clips/b.wav",
        "clips/a.wav",
        "clips/deep/c.FLAC",
        "clips/notes.txt",
        "clips/.hidden.wav",
        "take[1].wav",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (tmp_path / "outside.wav").write_bytes(b"x")
    (root / "empty").mkdir()
    return root


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["clips/*.wav"], ["clips/a.wav", "clips/b.wav"]),
        (["clips/b.wav", "./clips/*.wav", "clips//a.wav"], ["clips/a.wav", "clips/b.wav"]),
        (["clips"], ["clips/a.wav", "clips/b.wav", "clips/deep/c.FLAC"]),
        (["."], ["clips/a.wav", "clips/b.wav", "clips/deep/c.FLAC", "take[1].wav"]),
        (["**/*.FLAC"], ["clips/deep/c.FLAC"]),
        (["clips/*"], ["clips/a.wav", "clips/b.wav", "clips/notes.txt"]),
        (["take[1].wav"], ["take[1].wav"]),
        (["../*.wav"], ["../outside.wav"]),
    ],
    ids=" ".join,
)
def test_patterns_are_expanded_sorted_and_deduplicated(folder: Path, patterns: list[str], found: list[str]) -> None:
    assert files.expand(patterns, folder=folder) == tuple(found)


def test_an_absolute_pattern_stays_absolute(folder: Path) -> None:
    assert files.expand([f"{folder}/clips/a.*"], folder=folder) == (f"{folder}/clips/a.wav",)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("clips/*.mp3", "no file matches 'clips/*.mp3' (looked in "),
        ("empty", "folder 'empty' holds no audio file"),
        ("clips/x.wav", "'clips/x.wav' does not exist (looked in "),
        ("x" * 4096, "does not exist"),
        ("a\0b", "does not exist"),
        ("artifact:a#files", "takes files, patterns and folders"),
    ],
)
def test_a_pattern_without_files_is_named(folder: Path, pattern: str, words: str) -> None:
    with pytest.raises(files.NoMatchError) as caught:
        files.expand(["clips/a.wav", pattern], folder=folder)
    assert words in str(caught.value)
    assert caught.value.index == 1


def test_files_of_a_manifest_are_relative_to_the_spec(folder: Path) -> None:
    rows = [
        '{"audio": "a.wav", "end": 1}',
        '{"audio": "../gone.wav"}',
        '{"audio": "a.wav", "start": 1}',
        '{"audio": "/x/y.wav"}',
    ]
    (folder / "clips" / "m.jsonl").write_text("\n".join(rows))
    named = files.of_manifest(Path("clips/m.jsonl"), root=None, folder=folder)
    assert named == ("clips/a.wav", "gone.wav", "/x/y.wav")
    assert files.of_manifest(Path("clips/m.jsonl"), root="..", folder=folder)[0] == "../a.wav"
    absolute = files.of_manifest(folder / "clips" / "m.jsonl", root=None, folder=folder)
    assert absolute[0] == f"{folder}/clips/a.wav"


def test_files_of_an_audiofolder_and_of_an_arrow_folder(folder: Path) -> None:
    (folder / "clips" / "metadata.csv").write_text("file_name,text\ndeep/c.FLAC,olá\n")
    assert files.of_manifest(Path("clips"), root=None, folder=folder) == ("clips/deep/c.FLAC",)
    (folder / "empty" / "state.json").write_text("{}")
    (folder / "empty" / "data-00000.arrow").write_bytes(b"x")
    assert files.of_manifest(Path("empty"), root=None, folder=folder) == ("data-00000.arrow", "state.json")


def test_a_manifest_that_is_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "m.jsonl")
    with pytest.raises(PlanError, match=r"^manifest 'm\.jsonl': is no plain file"):
        files.of_manifest(Path("m.jsonl"), root=None, folder=folder)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.jsonl", None, "manifest 'gone.jsonl' does not exist (looked in "),
        ("x" * 4096 + ".csv", None, "does not exist"),
        ("empty.jsonl", "\n", "manifest 'empty.jsonl' names no recording"),
        ("m.txt", "a.wav", "manifest 'm.txt': unknown manifest type '.txt'; known are .jsonl, .csv, .tsv"),
        ("clips", None, "manifest 'clips': holds no table; an audiofolder has one of metadata.jsonl"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_manifest_that_is_none_is_named(folder: Path, name: str, content: str | None, words: str) -> None:
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(PlanError) as caught:
        files.of_manifest(Path(name), root=None, folder=folder)
    assert words in str(caught.value)

"""How the recordings of a manifest are shown: as the plan's fingerprint shows them, on any machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.asr import recordings
from runner.plan import files

ROWS = ("a.wav", "../clips/a.wav", "./deep/../b.wav", "../../above.wav", "/data/c.wav", "/data/../c.wav")


def _shown(folder: Path, name: str, root: str | None) -> list[str]:
    found = recordings.from_manifest(folder / name, name=name, root=root, folder=folder, unpacked=folder)
    return [clip.shown for clip in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A spec's folder with the same table in three places."""
    folder = tmp_path / "host" / "specs"
    (folder / "sub").mkdir(parents=True)
    lines = "".join(json.dumps({"audio": audio, "id": str(i)}) + "\n" for i, audio in enumerate(ROWS))
    for name in ("m.jsonl", "sub/m.jsonl", "sub/metadata.jsonl"):
        (folder / name).write_text(lines)
    return folder


def test_a_path_stays_as_relative_as_it_was_written(folder: Path) -> None:
    assert _shown(folder, "m.jsonl", None)[:4] == ["a.wav", "../clips/a.wav", "b.wav", "../../above.wav"]
    assert _shown(folder, "sub/m.jsonl", None)[:4] == ["sub/a.wav", "clips/a.wav", "sub/b.wav", "../above.wav"]
    assert _shown(folder, "m.jsonl", "..")[:2] == ["../a.wav", "../../clips/a.wav"]
    assert _shown(folder, "m.jsonl", None)[4:] == ["/data/c.wav", "/c.wav"]


@pytest.mark.parametrize("root", [None, ".", "sub", "..", "../other", "/else"])
@pytest.mark.parametrize("name", ["m.jsonl", "sub/m.jsonl", "./sub/../m.jsonl", "sub", "../specs/sub/m.jsonl"])
def test_results_show_what_the_fingerprint_shows(folder: Path, name: str, root: str | None) -> None:
    assert _shown(folder, name, root) == list(files.of_manifest(Path(name), root=root, folder=folder))


def test_a_table_given_by_an_absolute_path(folder: Path) -> None:
    name = str(folder / "sub" / "m.jsonl")
    assert _shown(folder, name, None) == list(files.of_manifest(Path(name), root=None, folder=folder))


def test_a_table_of_an_artifact_names_recordings_as_the_spec_does(folder: Path) -> None:
    artifact = folder / "sub" / "m.jsonl"  # nobody needs to see where it lies
    found = list(recordings.from_manifest(artifact, name=None, root=None, folder=folder, unpacked=folder))
    assert [clip.shown for clip in found][:4] == ["a.wav", "../clips/a.wav", "b.wav", "../../above.wav"]
    assert found[0].path == str(folder / "a.wav")

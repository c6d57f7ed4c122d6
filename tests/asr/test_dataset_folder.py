"""Folders of the datasets package: what is read, what is unpacked, what is shown, what is refused."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile

from runner.asr import dataset_folder
from runner.asr.dataset_folder import Row
from runner.schema.errors import JobError


def _private_bytes() -> int:
    """Resident memory of this process without what it maps from files."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def _wav(samples: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(samples, np.float32), 16000, format="WAV")
    return file.getvalue()


def _save(folder: Path, audio: Sequence[Any], *, is_audio: bool = True, **columns: Sequence[Any]) -> Path:
    data = datasets.Dataset.from_dict({"audio": audio, **columns})
    if is_audio:
        data = data.cast_column("audio", datasets.Audio(sampling_rate=16000))
    data.save_to_disk(folder)
    return folder


def _rows(folder: Path, tmp_path: Path, root: Path | None = None) -> list[Row]:
    return list(dataset_folder.rows(folder, name=f"data/{folder.name}", root=root, unpacked=tmp_path / "unpacked"))


def test_bytes_are_unpacked_once(tmp_path: Path) -> None:
    wavs = [_wav(n) for n in (100, 200, 300)]
    audio = [
        {"bytes": wavs[0], "path": None},
        {"bytes": wavs[1], "path": "in/b.WAV"},
        {"bytes": wavs[2], "path": "c.x/y"},
    ]
    folder = _save(tmp_path / "speech", audio, sentence=["um", None, ""])
    found = _rows(folder, tmp_path)
    assert [(row.shown, row.text) for row in found] == [
        ("data/speech/0", "um"),
        ("data/speech/1.WAV", None),
        ("data/speech/2", ""),
    ]
    assert [Path(row.path).read_bytes() for row in found] == wavs
    assert {Path(row.path).parent for row in found} == {tmp_path / "unpacked"}
    inode = Path(found[0].path).stat().st_ino
    Path(found[1].path).rename(Path(found[1].path + ".part"))  # killed before its rename
    assert _rows(folder, tmp_path) == found
    assert Path(found[0].path).stat().st_ino == inode
    assert sorted(p.name for p in (tmp_path / "unpacked").iterdir()) == ["0", "1.WAV", "2"]


def test_paths_are_taken_as_they_are(tmp_path: Path) -> None:
    paths = ["a/x.wav", str(tmp_path / "y.wav"), "b/x.wav", "..", ""]
    folder = _save(tmp_path / "speech", paths, is_audio=False, text=["1", "2", "3", "4", "5"])
    found = _rows(folder, tmp_path)
    assert [row.shown for row in found] == ["x.wav", "y.wav", "data/speech/2.wav", "..", "data/speech/4"]
    assert [row.path for row in found[:3]] == [f"{folder}/a/x.wav", f"{tmp_path}/y.wav", f"{folder}/b/x.wav"]
    assert Path(found[4].path).read_bytes() == b""
    assert _rows(folder, tmp_path, root=tmp_path / "r")[0].path == f"{tmp_path}/r/a/x.wav"


def test_the_splits_of_a_dict_come_one_after_the_other(tmp_path: Path) -> None:
    for split in ("train", "test"):
        _save(tmp_path / "all" / split, [{"bytes": split.encode(), "path": "a.wav"}])
    (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    found = _rows(tmp_path / "all", tmp_path)
    assert [row.shown for row in found] == ["data/all/train/0.wav", "data/all/test/0.wav"]
    assert [Path(row.path).read_bytes() for row in found] == [b"train", b"test"]


def test_the_column_that_holds_audio_is_taken(tmp_path: Path) -> None:
    data = datasets.Dataset.from_dict({"path": ["other.mp3"], "speech": [{"bytes": b"x", "path": None}], "text": [7]})
    data.cast_column("speech", datasets.Audio()).save_to_disk(tmp_path / "d")
    (row,) = _rows(tmp_path / "d", tmp_path)
    assert (Path(row.path).read_bytes(), row.text) == (b"x", None)


def test_the_folder_is_only_read_and_its_columns_are_not_loaded(tmp_path: Path) -> None:
    folder = _save(tmp_path / "d", [{"bytes": _wav(160), "path": None}] * 5, other=[b"x" * 1000] * 5)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}
    assert len(_rows(folder, tmp_path)) == 5
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"speech": ["a.wav"]}, "no column 'audio' among 'speech'"),
        ({"audio": [[0.5, 0.25]]}, "row 0: audio: must be audio or a path, got list"),
        ({"audio": ["a.wav", "a\0.wav"]}, "row 1: audio: a path cannot hold a NUL character"),
    ],
)
def test_what_holds_no_recordings(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    datasets.Dataset.from_dict(columns).save_to_disk(tmp_path / "d")
    with pytest.raises(JobError) as caught:
        _rows(tmp_path / "d", tmp_path)
    assert words in str(caught.value)
    assert caught.value.failure == "DataInvalid"


@pytest.mark.parametrize("harm", ["state.json", "data-00000-of-00001.arrow"])
@pytest.mark.parametrize("content", [b"", b"{}", None])
def test_a_damaged_folder(tmp_path: Path, harm: str, content: bytes | None) -> None:
    folder = _save(tmp_path / "d", ["a.wav"], is_audio=False)
    (folder / harm).unlink()
    if content is not None:
        (folder / harm).write_bytes(content)
    with pytest.raises(JobError, match="cannot be read: "):
        _rows(folder, tmp_path)


def test_memory_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    """192 MB of recordings; pages that are mapped from the disk do not count."""

    def made() -> Iterator[Any]:
        yield from ({"audio": {"bytes": bytes(1 << 20), "path": None}} for _ in range(192))

    plain = datasets.Features({"audio": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}})
    data = datasets.Dataset.from_generator(made, features=plain, cache_dir=str(tmp_path / "cache"), writer_batch_size=8)
    data.cast_column("audio", datasets.Audio()).save_to_disk(tmp_path / "d")
    before = _private_bytes()
    found = _rows(tmp_path / "d", tmp_path)
    assert len(found) == 192
    assert _private_bytes() - before < 64 << 20

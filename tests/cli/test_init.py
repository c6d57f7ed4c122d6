"""`runner init`: a first spec that is valid, says everything, and never replaces a file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner.cli.main import main
from runner.schema.fields import every
from runner.schema.kinds import job_class, kinds
from runner.schema.load import load


@pytest.mark.parametrize("kind", kinds())
def test_the_starter_is_valid_and_complete(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "spec.yaml"
    assert main(["init", kind, "--output", str(file)]) == 0
    assert str(file) in capsys.readouterr().out
    text = file.read_text(encoding="utf-8")
    (loaded,) = load([str(file)])
    listed = {path for path, view in every(job_class(kind)) if view.shape.get("type") == "array"}
    for path, view in every(job_class(kind)):
        if path[:-1] in listed:  # of corpora a starter names one by its short form; `runner explain` has their fields
            continue
        assert re.search(rf"^[# ]*{path[-1]}:", text, re.MULTILINE), path
        assert path == ("kind",) or f"# {view.sentence.split()[0]} " in text
    assert max(map(len, text.splitlines())) <= 120

    # with every `#` taken away that has no space after it, all defaults stand there, and nothing changes
    file.write_text(re.sub(r"^( *)#(?=\w|  )", r"\1", text, flags=re.MULTILINE), encoding="utf-8")
    (full,) = load([str(file)])
    assert full.spec == loaded.spec
    assert full.spec.model_fields_set == set(job_class(kind).model_fields)


def test_the_name_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "asr-embed"]) == 0
    assert (tmp_path / "asr-embed.yaml").is_file()
    assert main(["init"]) == 2
    assert "name a kind of job: asr-align, " in capsys.readouterr().err


def test_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("mine")
    assert main(["init", "asr-align", "--output", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {str(file)!r} exists and is left as it is; ")
    assert file.read_text() == "mine"
    (tmp_path / "dead.yaml").symlink_to("nowhere")
    assert main(["init", "asr-align", "--output", str(tmp_path / "dead.yaml")]) == 2


@pytest.mark.parametrize("word", ["json", "text", ""])
def test_a_word_that_is_no_file_is_refused(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "asr-align", "--output", word]) == 2
    assert capsys.readouterr().err.startswith(f"error: --output {word!r} is unknown; ")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "asr-transcript", "--output", str(tmp_path / "x")]) == 2
    assert "did you mean 'asr-transcribe'?" in capsys.readouterr().err
    assert main(["init", "asr-align", "--output", str(tmp_path / "gone" / "x.yaml")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

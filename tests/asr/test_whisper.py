"""Whisper from a folder to a transcript: a tiny seeded model, so the words mean nothing and the mechanics are real."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.registry.resolve import resolve
from tests.asr import tiny_whisper
from tests.jobs.helpers import clips, manifest, transcribe

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # transformers leaves its JSON files open
    pytest.mark.filterwarnings("ignore:std\\(\\):UserWarning"),  # its alignment of a segment of one token
]
NAMES = ("wav-22k.wav", "flac-16k.flac", "long-90s.opus", "near-silence.flac", "corrupt.flac")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_whisper.save(tmp_path_factory.mktemp("whisper"))


def test_the_registry_knows_it(folder: Path) -> None:
    found = resolve(str(folder), folder=folder)
    assert (found.family.name, found.family.task) == ("whisper", "seq2seq")


def test_words_have_times_inside_the_recording(folder: Path, tmp_path: Path) -> None:
    rows = manifest(tmp_path, clips(*NAMES))
    made = transcribe(tmp_path, model={"id": str(folder)}, data={"manifest": rows}, outputs=["srt"])
    assert made.result.exit_code == 0, made.result.message
    by_name = {Path(row["path"]).name: row for row in made.rows}
    assert by_name["corrupt.flac"]["status"] == "decode_error"
    assert by_name["near-silence.flac"]["status"] == "empty"
    words = by_name["long-90s.opus"]["words"]
    assert words
    assert all(0 <= w["start"] <= w["end"] <= by_name["long-90s.opus"]["duration_s"] for w in words)
    assert all(0 <= w["confidence"] <= 1 for w in words)
    assert max(w["end"] for w in words) > 60  # the last window of the recording has its say
    text = by_name["long-90s.opus"]["text"].replace(" ", "")  # a random model begins segments without a space
    assert "".join(w["word"] for w in words) == text


def test_no_batch_changes_a_text(folder: Path, tmp_path: Path) -> None:
    rows = manifest(tmp_path, clips("wav-22k.wav", "flac-16k.flac", "wav-48k.wav"))
    made = [
        transcribe(tmp_path, name=name, model={"id": str(folder)}, data={"manifest": rows}, batch=batch, store=name)
        for name, batch in (("one", {"files": 1}), ("all", {"files": 64}))
    ]
    assert made[0].transcripts == made[1].transcripts
    assert any(made[0].texts.values())


def test_beams_and_languages_reach_the_model(folder: Path, tmp_path: Path) -> None:
    rows = manifest(tmp_path, clips("wav-22k.wav", "flac-16k.flac", "wav-48k.wav"))
    decodes = ({"language": "pt"}, {"language": "ja"}, {"language": "pt", "beam_size": 3})
    texts = [
        transcribe(tmp_path, name=f"n{at}", model={"id": str(folder)}, data={"manifest": rows}, decode=decode).texts
        for at, decode in enumerate(decodes)
    ]
    assert texts[0] != texts[1]
    assert texts[0] != texts[2]


@pytest.mark.parametrize(
    ("decode", "said"),
    [
        ({"language": "xx"}, "decode.language 'xx' is unknown to this model; it knows en, ja, pt"),
        ({"timestamps": "char"}, "decode.timestamps is 'char', but whisper spells in pieces: take word or none"),
    ],
    ids=["language", "char"],
)
def test_what_it_cannot_do_is_said(folder: Path, tmp_path: Path, decode: dict[str, str], said: str) -> None:
    rows = manifest(tmp_path, clips("wav-22k.wav"))
    made = transcribe(tmp_path, model={"id": str(folder)}, data={"manifest": rows}, decode=decode)
    assert made.result.failure == "ModelInvalid"
    assert said in made.result.message


def test_an_english_model_is_not_told_another_language(tmp_path: Path) -> None:
    folder = tiny_whisper.save(tmp_path / "english", multilingual=False)
    rows = manifest(tmp_path, clips("wav-22k.wav"))
    made = transcribe(tmp_path, model={"id": str(folder)}, data={"manifest": rows}, decode={"language": "pt"})
    assert "knows English only" in made.result.message
    assert transcribe(tmp_path, name="b", model={"id": str(folder)}, data={"manifest": rows}).result.exit_code == 0


def test_without_alignment_heads_there_is_text_but_no_word(tmp_path: Path) -> None:
    folder = tiny_whisper.save(tmp_path / "plain", heads=False)
    rows = manifest(tmp_path, clips("wav-22k.wav", "flac-16k.flac", "wav-48k.wav"))
    made = transcribe(tmp_path, model={"id": str(folder)}, data={"manifest": rows})
    assert any(made.texts.values())
    assert not any(row["words"] for row in made.rows)

"""What the decoder is told of the language: texts and hotwords as the model spells them."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.asr.alphabet import Alphabet
from runner.asr.language import arpa, fusion, wording
from runner.asr.language.fusion import Wording
from runner.schema.errors import JobError

SMALL = Alphabet(texts=("", "", *"abcdefghijklmnopqrstuvwxyzçãáé-'"), breaks=frozenset({1}), blank=0)
CAPITAL = Alphabet(texts=("", "", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"), breaks=frozenset({1}), blank=0)
LOWERED = Alphabet(texts=CAPITAL.texts, breaks=CAPITAL.breaks, blank=0, lower=True)


def test_text_is_written_as_the_model_writes() -> None:
    said = "«Olá, João!» — disse D'Ávila; guarda-chuva."
    assert wording.written(said, SMALL) == "olá joão disse d'ávila guarda-chuva"
    assert wording.written("Olá!", CAPITAL) == "OLÁ"
    assert wording.written("Olá!", LOWERED) == "olá"


def test_a_text_becomes_a_model(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\ufeffA casa é azul.\n\n  \nA casa caiu!\n" * 30, encoding="utf-8")
    found = wording.train_on(text, order=2, alphabet=SMALL, to=tmp_path / "lm.arpa")
    assert (found.sentences, found.words) == (60, 210)
    assert found.held_out is not None
    assert found.held_out.unknown == 0
    assert found.held_out.value is not None
    assert found.held_out.value < 2
    model = arpa.read(tmp_path / "lm.arpa")
    assert model.words.keys() == {"<unk>", "<s>", "</s>", "a", "casa", "é", "azul", "caiu"}
    told = wording.tell(
        Wording(lm=str(tmp_path / "lm.arpa")), alphabet=SMALL, trained=found, references=["A casa azul.", "zebra"]
    )
    assert told.metrics["lm_words"] == 4
    assert told.metrics["lm_unknown_words"] == 1
    assert ("of these the model can spell", 5) in told.tables[0].rows


def test_lines_are_learned_as_they_are_said(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("3 gatos\n", encoding="utf-8")
    wording.train_on(text, order=1, alphabet=SMALL, to=tmp_path / "lm.arpa", say=lambda line: line.replace("3", "três"))
    assert {"três", "gatos"} < arpa.read(tmp_path / "lm.arpa").words.keys()


def test_few_sentences_hold_none_back(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("um dois\ntrês\n", encoding="utf-8")
    assert wording.train_on(text, order=3, alphabet=SMALL, to=tmp_path / "lm.arpa").held_out is None


def test_a_large_text_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "large.txt"
    with text.open("wb") as file:
        file.truncate(wording.MOST_BYTES + 1)
    with pytest.raises(JobError, match="more than the 64 MB"):
        wording.train_on(text, order=3, alphabet=SMALL, to=tmp_path / "lm.arpa")


def test_hotwords_come_from_both_places(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_text("Itapuã\n\nSão João\n", encoding="utf-8")
    found = wording.hotwords(["são joão", "Guará!", "..."], file, SMALL)
    assert found == ("guará", "itapuã", "são joão")
    with pytest.raises(JobError, match="to spell the hotwords '007', 'ñandu'"):
        wording.hotwords(["agente 007", "ñandu"], None, SMALL)


def test_a_model_that_changed_on_disk_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text("\\data\\\nngram 1=1\n\\1-grams:\n-0.3\ta\n\\end\\\n")
    first = fusion.load(Wording(lm=str(path), alpha=1.0), SMALL)
    assert fusion.load(Wording(lm=str(path), alpha=2.0), SMALL) is first
    path.write_text("\\data\\\nngram 1=2\n\\1-grams:\n-0.3\ta\n-0.4\tb\n\\end\\\n")
    assert fusion.load(Wording(lm=str(path), alpha=1.0), SMALL) is not first
    assert fusion.model(str(path)).words.keys() == {"a", "b"}

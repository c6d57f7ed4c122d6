"""`artifact:NAME[@VERSION][#path]`."""

from __future__ import annotations

import pytest

from runner.schema.reference import Reference, is_reference, parse


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("artifact:a", Reference(name="a")),
        ("artifact:podcast-pt@v12", Reference(name="podcast-pt", version="v12")),
        ("artifact:a#model", Reference(name="a", path="model")),
        ("artifact:a@v1#files/é x.jsonl", Reference(name="a", version="v1", path="files/é x.jsonl")),
        ("artifact:a#x@y#z", Reference(name="a", path="x@y#z")),
    ],
)
def test_reads_and_writes(text: str, reference: Reference) -> None:
    assert is_reference(text)
    assert parse(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a", "a reference is"),
        ("artifact:", "the name in"),
        ("artifact:A", "the name in"),
        ("artifact:a b", "the name in"),
        ("artifact:-a", "the name in"),
        ("artifact:" + "a" * 64, "the name in"),
        ("artifact:a@", "the version in"),
        ("artifact:a@3", "the version in"),
        ("artifact:a@v0", "the version in"),
        ("artifact:a@v01", "the version in"),
        ("artifact:a@latest", "the version in"),
        ("artifact:a@v1@v2", "a reference is"),
        ("artifact:a#", "the path in"),
        ("artifact:a#/etc/passwd", "stays inside"),
        ("artifact:a#../b", "stays inside"),
        ("artifact:a#b/../../c", "stays inside"),
        ("artifact:a#b//c", "stays inside"),
        ("artifact:a#b/", "stays inside"),
        ("artifact:a#./b", "stays inside"),
        ("artifact:a#..", "stays inside"),
        ("artifact:a#b\\..\\c", "with `/`"),
        ("artifact:a#b\n", "with `/`"),
        ("artifact:a# b", "with `/`"),
        ("artifact:a\n", "the name in"),
    ],
)
def test_refuses(text: str, answer: str) -> None:
    with pytest.raises(ValueError, match=answer.replace("`", "`")):
        parse(text)


@pytest.mark.parametrize("text", ["./artifact:a", "owner/name", "artifacts/a", ""])
def test_other_texts_are_no_references(text: str) -> None:
    assert not is_reference(text)

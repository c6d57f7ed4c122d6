"""What every field of every block of every kind carries, and how it is put in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import pytest
from pydantic import ConfigDict, Field

from runner.schema.block import Block
from runner.schema.explain import explain
from runner.schema.fields import FieldView, at, every, fields, short_form
from runner.schema.jobs.asr_transcribe import AsrTranscribe
from runner.schema.kinds import job_class, kinds
from runner.schema.marks import BLOCK, NEUTRAL, RESULT, Mark


def _all() -> Iterator[tuple[str, FieldView]]:
    for kind in kinds():
        for path, view in every(job_class(kind)):
            yield ".".join((kind, *path)), view


FIELDS = dict(_all())


@pytest.mark.parametrize("view", FIELDS.values(), ids=FIELDS)
def test_each_field_carries_one_mark_a_sentence_and_bounds(view: FieldView) -> None:
    marks = [entry for entry in view.info.metadata if isinstance(entry, Mark)]
    assert len(marks) == 1, "exactly one mark"
    assert (marks[0] is BLOCK) == (view.inner is not None), "a block is marked as one, and nothing else is"
    assert view.sentence.endswith("."), "a sentence below the field"
    assert view.sentence[0].isupper() or view.sentence[0] == "`"
    for shape in (view.shape, view.shape.get("items", {})):
        if shape.get("type") in ("integer", "number") and "enum" not in shape:
            assert {"minimum", "exclusiveMinimum"} & set(shape), "a lower bound"
            assert {"maximum", "exclusiveMaximum"} & set(shape), "an upper bound"
        if shape.get("type") == "string" and not {"enum", "const", "pattern"} & set(shape):
            assert "maxLength" in shape, "texts have an end"
    if "pattern" in view.shape:
        assert ": " in view.sentence, "after a colon the sentence says in words what the pattern allows"
    assert "another value" not in view.words


@pytest.mark.parametrize("kind", kinds())
def test_each_kind_and_block_says_what_it_is(kind: str) -> None:
    job = job_class(kind)
    blocks = {view.inner for _, view in every(job) if view.inner}
    assert all((block.__doc__ or "").strip() for block in {job, *blocks})
    required = [view for _, view in every(job) if view.required and view.inner is None and view.name != "kind"]
    assert all(view.info.examples for view in required), "`runner init` fills required fields with their examples"


class Inner(Block):
    """A block."""

    size_gb: Annotated[float, RESULT, Field(gt=0, lt=9)] = 1.0
    """Size."""

    id: Annotated[str, RESULT, Field(max_length=9)] = "x"
    """Two lines of
    words."""


class Short(Inner):
    """A block with a short form."""

    model_config = ConfigDict(json_schema_extra={"x-short-form": "id"})


class Sample(Block):
    """A block for this test."""

    at_least: Annotated[int, NEUTRAL, Field(ge=3)] = 3
    """A number."""

    delay_ms: Annotated[int | None, NEUTRAL, Field(le=10)] = None
    """A delay."""

    flag: Annotated[bool, NEUTRAL] = False
    """A flag."""

    choice: Annotated[Literal["a", "b", "c"], NEUTRAL] = "a"
    """A choice."""

    code: Annotated[str, NEUTRAL, Field(pattern="^[a-z]+$")] = "x"
    """A code: lower-case letters; left out: x."""

    free: Annotated[str, NEUTRAL, Field(min_length=1)] = "x"
    """A text."""

    numbers: Annotated[list[Annotated[int, Field(ge=0, le=5)]], NEUTRAL, Field(max_length=2)]
    """Numbers."""

    inner: Annotated[Inner, BLOCK] = Inner()
    """A block."""

    many: Annotated[list[Short], BLOCK]
    """Blocks."""


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("at_least", "a whole number at least 3"),
        ("delay_ms", "a whole number of milliseconds at most 10"),
        ("flag", "true or false"),
        ("choice", "a, b or c"),
        ("code", "text: lower-case letters"),
        ("free", "text of at least 1 characters"),
        ("numbers", "a list of 0 to 2, each a whole number from 0 to 5"),
        ("inner", "a mapping with size_gb and id"),
        ("inner.size_gb", "a number of GB above 0 and below 9"),
        ("inner.id", "text of 0 to 9 characters"),
        ("many", "a list, each a mapping with size_gb and id, or text, short for `id`"),
        ("many.id", "text of 0 to 9 characters"),
    ],
)
def test_types_in_words(path: str, words: str) -> None:
    view = at(Sample, path.split("."))
    assert view is not None
    assert view.words == words


def test_sentences_are_read_from_the_source_and_inherited() -> None:
    assert fields(Short)["id"].sentence == "Two lines of words."
    assert short_form(Short) == "id"
    assert short_form(Inner) is None


def test_fields_of_a_kind_stand_in_the_order_of_writing() -> None:
    names = list(fields(AsrTranscribe))
    assert names[:5] == ["kind", "name", "description", "model", "data"]
    assert names[-2:] == ["compute", "apiVersion"]
    assert set(names) == set(AsrTranscribe.model_fields)


def test_paths_that_lead_nowhere() -> None:
    assert at(AsrTranscribe, ["decode", "beam"]) is None
    assert at(AsrTranscribe, ["decode", "beam_size", "x"]) is None
    assert at(AsrTranscribe, []) is None


def test_explain_gives_bounds_as_data() -> None:
    facts = explain("asr-transcribe.decode.beam_size")
    assert facts["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000}
    assert (facts["default"], facts["required"], facts["decides_result"]) == (1, False, True)

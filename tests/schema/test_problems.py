"""Where an unknown field belongs when there are several kinds, and what validators say."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from runner.schema import problems
from runner.schema.block import Block
from runner.schema.job import Job
from runner.schema.marks import BLOCK, NEUTRAL, RESULT
from runner.schema.nodes import Fields, plain
from runner.schema.yaml12 import parse
from tests.schema.helpers import fits


class Http(Block):
    """A block."""

    port: Annotated[int, NEUTRAL, Field(ge=1, le=65535)] = 8000
    """Port."""


class Backend(Block):
    """A block in a list."""

    id: Annotated[str, RESULT, Field(max_length=9, examples=["x"])]
    """Name."""

    @field_validator("id")
    @classmethod
    def _known(cls, value: str) -> str:
        if value == "bad":
            raise ValueError("it is bad")
        return value


class Serve(Job):
    """A kind for this test."""

    kind: Annotated[Literal["serve"], RESULT]
    """What this spec is."""

    http: Annotated[Http, BLOCK] = Http()
    """A block."""

    backends: Annotated[list[Backend], BLOCK, Field(max_length=3)]
    """A list of blocks."""


class Train(Job):
    """Another kind for this test."""

    kind: Annotated[Literal["train"], RESULT]
    """What this spec is."""

    epochs: Annotated[int, RESULT, Field(ge=1, le=9)] = 1
    """A number."""


@pytest.fixture
def _two_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "kinds", lambda: ("serve", "train"))
    monkeypatch.setattr(problems, "job_class", {"serve": Serve, "train": Train}.__getitem__)


@pytest.mark.usefixtures("_two_kinds")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("backends: []\nepochs: 3\n", "f:4:1: epochs: unknown field ... `epochs` is a field of kind train"),
        ("backends: [{id: x, prot: 1}]\n", "f:3:20: backends[0].prot: ... allowed are id; did you mean `http.port`?"),
        ("backends: [{id: x, port: 1}]\n", "f:3:20: backends[0].port: ... `port` belongs under `http`"),
        ("backends: [{id: 7}]\n", "f:3:17: backends[0].id: expected text of 0 to 9 ... got 7; put it in quotes: '7'"),
        ("backends: [{}]\n", "f:3:12: backends[0].id: this field is required: ... add `id: x`"),
        ("backends: [x]\n", "f:3:12: backends[0]: expected a mapping with id; got the text 'x'; ... serve.backends`"),
        (
            "backends: {id: x}\n",
            "f:3:11: backends: expected a list of 0 to 3, each a mapping with id; got a mapping; ... -`",
        ),
        (
            "backends:\n",
            "f:3:10: backends: expected a list of 0 to 3, ... got nothing; give a value or remove the line",
        ),
        ("http: 1\n", "f:1:1: backends: this field is required: ... add `backends: [{id: x}]`"),
        ("backends: [{id: bad}]\n", "f:3:17: backends[0].id: it is bad; see `runner explain serve.backends.id`"),
    ],
)
def test_answers(text: str, expected: str) -> None:
    (document,), _ = parse("kind: serve\nname: a\n" + text, "f")
    assert isinstance(document.root, Fields)
    with pytest.raises(ValidationError) as caught:
        Serve.model_validate(plain(document.root))
    first = sorted(problems.problems_of(caught.value, job=Serve, root=document.root, file="f"))[0]
    assert fits(str(first), expected), first

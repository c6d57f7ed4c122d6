"""The JSON Schema says the same as the loader, on a corpus, except for what no schema can say."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from runner.schema import starter, yaml12
from runner.schema.fields import every
from runner.schema.jsonschema import build, text
from runner.schema.kinds import job_class, kinds
from runner.schema.nodes import plain
from tests.schema.helpers import GOOD, problems
from tests.schema.test_mutants import FULL

SCHEMA = build()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)

# Rules that draft-07 cannot say: the schema accepts these, the loader does not.
UNSAYABLE = {
    "a whole number has no point": GOOD + "decode: {beam_size: 8.0}\n",
    "window: context against length": GOOD + "window: {length_s: 2, context_s: 1}\n",
    "code of a hub is pinned": GOOD.replace("./m", "{id: a/b, trust_remote_code: true}"),
    "subtitles need word times": GOOD + "outputs: [srt]\ndecode: {timestamps: none}\n",
    "a language model needs a beam": GOOD + "decode: {lm: a.arpa}\n",
    "text is for texts": GOOD + "text: {}\n",
    "one calibration": GOOD + "confidence: {calibrate: true, calibration: c.json}\n",
    "a number is one": GOOD + "gates: {max_wer: .nan}\n",
    "a variable is declared": GOOD + "decode: {beam_size: '${vars.b}'}\n",
    "a variable fits where it is used": "vars: {b: x}\n" + GOOD + "decode: {beam_size: '${vars.b}'}\n",
    "an expanded text fits its pattern": "vars: {b: X}\n" + GOOD.replace("name: a", "name: a${vars.b}"),
    "a matrix gives different names": "matrix: {b: [1, 2]}\n" + GOOD,
    "a reference is well formed": GOOD.replace("./m", '"artifact:A"'),
    "a secret stands in a secret field only": GOOD.replace("./m", "${env:M}"),
}
ACROSS_FIELDS = {
    "window",
    "needs_times",
    "unpinned",
    "one_of",
    "needs",
}  # the types of the errors above that a change of one field can raise
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        3,
        2.5,
        0.5,
        1e9,
        -60,
        "",
        "x",
        "a b",
        "pt",
        "24h",
        "fp32",
        "word",
        "srt",
        "é" * 5000,
    ),
    *(
        [],
        ["x"],
        ["srt"],
        [1],
        [""],
        [[]],
        {},
        {"id": "x"},
        {"a": 1},
        {"audio": ["x"]},
        {"manifest": "m"},
        ["x"] * 10_001,
    ),
]


def test_is_draft_7() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert json.loads(text()) == SCHEMA


def test_says_nothing_that_draft_7_ignores() -> None:
    def walk(node: Any) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            yield node
            for value in node.values():
                yield from walk(value)
        elif isinstance(node, list):
            for value in node:
                yield from walk(value)

    for node in walk(SCHEMA):
        assert "$defs" not in node
        assert "discriminator" not in node
        assert "$ref" not in node or list(node) == ["$ref"], "draft-07 ignores what stands beside a $ref"


def test_each_field_is_described() -> None:
    for kind in kinds():
        definition = SCHEMA["definitions"][job_class(kind).__name__]
        assert definition["additionalProperties"] is False
        assert {"vars", "matrix", "kind", "apiVersion"} <= set(definition["properties"])
        for path, view in every(job_class(kind)):
            holder = SCHEMA["definitions"][view.owner.__name__]
            holder = holder["anyOf"][0] if "anyOf" in holder else holder
            if path != ("kind",):
                assert holder["properties"][path[-1]]["markdownDescription"] == view.sentence


def _agree(data: dict[str, Any]) -> None:
    try:
        job_class("asr-transcribe").model_validate(copy.deepcopy(data))
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        if {detail["type"] for detail in details} <= ACROSS_FIELDS:
            return
        ours = str(details[0])
    else:
        ours = ""
    theirs = next((error.message[:200] for error in VALIDATOR.iter_errors(data)), "")
    assert bool(ours) == bool(theirs), f"loader: {ours or 'valid'}\nschema: {theirs or 'valid'}\n{str(data)[:500]}"


def _full() -> dict[str, Any]:
    documents, _ = yaml12.parse(starter.starter("asr-transcribe"), "f")
    data = plain(documents[0].root)
    assert isinstance(data, dict)
    return data


def _set(data: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(data)
    at = changed
    for part in path[:-1]:
        at = at.setdefault(part, {})
    at[path[-1]] = value
    return changed


PATHS = [path for path, _ in every(job_class("asr-transcribe"))]


@pytest.mark.parametrize("path", [*PATHS, ("unknown",), ("decode", "unknown")], ids=".".join)
def test_agrees_on_every_value_of_every_field(path: tuple[str, ...]) -> None:
    view = dict(every(job_class("asr-transcribe"))).get(path)
    data = _full()
    for value in VALUES:
        is_whole_float = isinstance(value, float) and value.is_integer()
        if is_whole_float and view is not None and view.shape.get("type") == "integer":
            continue  # UNSAYABLE: a whole number has no point
        _agree(_set(data, path, value))


@pytest.mark.parametrize(
    "bound", ["minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "minItems", "maxItems"]
)
def test_agrees_at_the_bounds(bound: str) -> None:
    for path, view in every(job_class("asr-transcribe")):
        if bound not in view.shape:
            continue
        limit = view.shape[bound]
        for value in (limit - 1, limit, limit + 1):
            if "Length" in bound:
                _agree(_set(_full(), path, "x" * max(value, 0)))
            elif "Items" in bound:
                _agree(_set(_full(), path, ["x"] * max(value, 0)))
            else:
                _agree(_set(_full(), path, value))


@pytest.mark.parametrize("path", [("name",), ("model",), ("data",), ("kind",), ("model", "id")], ids=".".join)
def test_agrees_on_missing_fields(path: tuple[str, ...]) -> None:
    data = _full()
    at = data
    for part in path[:-1]:
        at = at[part]
    del at[path[-1]]
    _agree(data)


@pytest.mark.parametrize(
    "spec", [GOOD, FULL.partition("---")[0], starter.starter("asr-transcribe")], ids=["small", "full", "starter"]
)
def test_accepts_what_the_loader_accepts(spec: str) -> None:
    assert not problems(spec)
    documents, _ = yaml12.parse(spec, "f")
    VALIDATOR.validate(plain(documents[0].root))


@pytest.mark.parametrize("spec", UNSAYABLE.values(), ids=UNSAYABLE)
def test_the_list_of_what_it_cannot_say_is_true(spec: str) -> None:
    assert problems(spec)
    documents, _ = yaml12.parse(spec, "f")
    VALIDATOR.validate(plain(documents[0].root))


@pytest.mark.parametrize(
    "line",
    [
        "vars: {}",
        "vars: [a]",
        "vars: {1a: 2}",
        "vars: {a: [1]}",
        "matrix: {}",
        "matrix: {a: 1}",
        "matrix: {a: []}",
        "matrix: {a: [[1]]}",
        "decode: {beam_size: '${beam}'}",
        "precision: ${env:P}",
        "kind: serve-all",
    ],
)
def test_refuses_what_the_loader_refuses_about_variables(line: str) -> None:
    spec = (GOOD if not line.startswith("kind") else GOOD.partition("\n")[2]) + line + "\n"
    assert problems(spec)
    documents, _ = yaml12.parse(spec, "f")
    assert list(VALIDATOR.iter_errors(plain(documents[0].root)))

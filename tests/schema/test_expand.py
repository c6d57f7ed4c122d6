"""`vars`, `matrix`, `--set` and `${...}`."""

from __future__ import annotations

import pytest

from runner.schema.errors import UsageError
from runner.schema.expand import overrides_of
from runner.schema.jobs.asr_transcribe import AsrTranscribe
from tests.schema.helpers import GOOD, lines, load_text

MATRIX = """matrix: {lang: [pt, es], beam: [1, 8]}
kind: asr-transcribe
name: n-${matrix.lang}-${matrix.beam}
model: ./m
data: {audio: ["${matrix.lang}/*.flac"]}
decode: {language: "${matrix.lang}", beam_size: "${matrix.beam}"}
"""


def specs(text: str, **overrides: str) -> list[AsrTranscribe]:
    """The specs that ``text`` stands for."""
    found = [loaded.spec for loaded in load_text(text, **overrides)]
    assert all(isinstance(spec, AsrTranscribe) for spec in found)
    return found  # type: ignore[return-value]


def test_a_matrix_is_multiplied_out_in_the_order_of_the_document() -> None:
    found = specs(MATRIX)
    assert [spec.name for spec in found] == ["n-pt-1", "n-pt-8", "n-es-1", "n-es-8"]
    assert [spec.decode.beam_size for spec in found] == [1, 8, 1, 8]
    assert found[2].data.audio == ["es/*.flac"]


@pytest.mark.parametrize(
    ("value", "revision"),
    [("1e-4", "v1e-4"), ("0.10", "v0.10"), ("true", "vtrue"), ("010", "v010"), ("'x y'", "vx y"), ("a$b", "va$b")],
)
def test_inside_a_text_a_value_stands_as_it_was_written(value: str, revision: str) -> None:
    text = f"vars: {{v: {value}}}\n" + GOOD.replace("./m", '{id: ./m, revision: "v${vars.v}"}')
    assert specs(text)[0].model.revision == revision


def test_alone_a_value_keeps_its_type() -> None:
    text = "vars: {b: 8, s: 1.5, p: true, n: ~, t: '8'}\n" + GOOD.replace("./m", '{id: ./m, allow_pickle: "${vars.p}"}')
    (spec,) = specs(
        text + "decode: {beam_size: '${vars.b}', language: '${vars.n}'}\nwindow: {context_s: '${vars.s}'}\n"
    )
    assert (spec.model.allow_pickle, spec.decode.beam_size, spec.window.context_s) == (True, 8, 1.5)
    assert spec.decode.language is None
    (line,) = lines(text + "decode:\n  beam_size: ${vars.t}\n")
    assert line.endswith("got the text '8'; write it without quotes")


def test_several_references_in_one_text() -> None:
    (spec,) = specs("vars: {a: x, b: y}\n" + GOOD.replace("[x.flac]", '["${vars.a}/${vars.b}${vars.a}.*"]'))
    assert spec.data.audio == ["x/yx.*"]


def test_variables_belong_to_their_document() -> None:
    text = "vars: {a: m}\n" + GOOD.replace("./m", "${vars.a}") + "---\n" + GOOD.replace("name: a", "name: b")
    assert [spec.model.id for spec in specs(text)] == ["m", "./m"]
    (line,) = lines(text.replace("name: b\nmodel: ./m", "name: b\nmodel: ${vars.a}"))
    assert line.startswith("9:8: model: unknown reference '${vars.a}', known are none")


@pytest.mark.parametrize(
    ("given", "value"), [("8", 8), ("0o10", 8), ("8 ", None), ("'8'", None), ("1e1", None), ("", None), ("8=8", None)]
)
def test_set_replaces_a_value_by_the_rules_of_yaml(given: str, value: int | None) -> None:
    text = "vars: {b: 4}\n" + GOOD + "decode:\n  beam_size: ${vars.b}\n"
    if value is not None:
        assert specs(text, b=given)[0].decode.beam_size == value
    else:
        (line,) = lines(text, {"b": given})
        assert line.startswith("1:11: decode.beam_size: expected a whole number from 1 to 1000; got ")
        assert "(from --set b)" in line


def test_set_reaches_each_document_that_declares_the_variable() -> None:
    one = "vars: {m: ./m}\n" + GOOD.replace("./m", "${vars.m}")
    text = one + "---\n" + one.replace("name: a", "name: b") + "---\n" + GOOD.replace("name: a", "name: c")
    assert [spec.model.id for spec in specs(text, m="./n")] == ["./n", "./n", "./m"]


def test_set_of_an_undeclared_variable() -> None:
    text = "vars: {beam: 4}\n" + GOOD
    assert lines(text, {"beem": "hunter2"}) == [
        "1:1: vars.beem: --set names a variable that no document declares, declared are beam; did you mean 'beam'?"
    ]
    (line,) = lines(GOOD, {"beam": "4"})
    assert line.endswith("no document declares, none is declared; add `vars: {beam: ...}`")


@pytest.mark.parametrize("value", ["${env:HOME}", "${vars.m}", "a\x00b", "a\nb", "a\udcff"])
def test_set_takes_plain_text_only(value: str) -> None:
    text = "vars: {m: ./m}\n" + GOOD.replace("./m", "${vars.m}")
    (line,) = lines(text, {"m": value})
    assert line.startswith("1:11: vars.m: --set m: a value is plain text")
    assert value not in line


def test_words_of_set() -> None:
    assert overrides_of(["a=1", "b=", "c=x=y", "a=2"]) == {"a": "2", "b": "", "c": "x=y"}
    for word in ("a", "=1", "a b=1", "1a=secret"):
        with pytest.raises(UsageError, match="--set takes NAME=VALUE") as caught:
            overrides_of([word])
        assert "secret" not in str(caught.value)


def test_a_value_of_the_matrix_is_blamed_where_it_stands_once() -> None:
    assert len(lines(MATRIX.replace("[1, 8]", "[1, 8, 0, none]"))) == 2
    first, second = lines(MATRIX.replace("[1, 8]", "[1, 8, 0, none]"))
    assert first.startswith("1:39: decode.beam_size: expected a whole number from 1 to 1000; got 0")
    assert second.startswith("1:42: decode.beam_size: expected a whole number from 1 to 1000; got the text 'none'")


def test_the_rest_of_a_document_is_checked_even_if_it_cannot_be_expanded() -> None:
    found = lines(GOOD + "decode: {beam_size: '${vars.b}'}\nprecision: fp31\nbatch: {files: 0}\n")
    assert [line.partition(": ")[0] for line in found] == ["5:21", "6:12", "7:16"]


def test_budgets() -> None:
    axes = "matrix: {a: [" + ", ".join(map(str, range(40))) + "], b: [" + ", ".join(map(str, range(25))) + "]}\n"
    named = GOOD.replace("name: a", "name: n-${matrix.a}-${matrix.b}")
    assert len(specs(axes + named)) == 1000
    assert "1,040 combinations" in lines(axes.replace("b: [0,", "b: [0, 99,") + named)[0]
    many = named.replace("[x.flac]", "[" + "x, " * 1000 + "x]")
    assert "1,000 combinations" in lines(axes + many)[0]
    text = f"vars: {{a: {'x' * 60_000}}}\n" + GOOD.replace("./m", "${vars.a}${vars.a}")
    assert "more than 65,536 characters once expanded" in lines(text)[0]


def test_references_are_not_expanded_in_keys_and_kind() -> None:
    assert lines("vars: {k: asr-transcribe}\n" + GOOD.replace("kind: asr-transcribe", "kind: ${vars.k}"))[0].startswith(
        "2:7: kind: expected a kind; got the text '${vars.k}'"
    )
    assert "unknown field '${vars.k}'" in lines("vars: {k: x}\n" + GOOD + "${vars.k}: 1\n")[0]

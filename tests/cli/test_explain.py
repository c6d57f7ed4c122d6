"""`runner explain`."""

from __future__ import annotations

import json

import pytest

from runner.cli.main import main
from runner.schema.fields import every
from runner.schema.kinds import job_class, kinds


def explained(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the verb prints."""
    assert main(["explain", *words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_lists_the_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    out = explained(capsys)
    assert all(kind in out for kind in kinds())
    assert [row["kind"] for row in json.loads(explained(capsys, "-o", "json"))["kinds"]] == list(kinds())


def test_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    out = explained(capsys, "asr-transcribe.decode.beam_size")
    assert out.startswith("asr-transcribe.decode.beam_size\n  Hypotheses kept at each step")
    assert out.endswith(
        "\n\n  type     a whole number from 1 to 1000\n  default  1\n  result   its value decides the result\n"
    )


def test_a_block_and_a_kind(capsys: pytest.CaptureFixture[str]) -> None:
    out = explained(capsys, "asr-transcribe.decode")
    assert "  beam_size: a whole number from 1 to 1000; default: 1; decides the result\n" in out
    out = explained(capsys, "asr-transcribe")
    assert "  model: a block of fields, or text, short for `id`; required\n" in out
    assert "  matrix\n" in out


def test_every_field_of_every_kind_can_be_explained(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in kinds():
        for path, view in every(job_class(kind)):
            out = explained(capsys, ".".join((kind, *path)))
            assert view.sentence.split()[0] in out
            assert max(map(len, out.splitlines())) <= 100
            facts = json.loads(explained(capsys, ".".join((kind, *path)), "-o", "json"))
            assert facts["meaning"] == view.sentence


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (
            "asr-transcribe.beam_size",
            "error: asr-transcribe has no field 'beam_size'; did you mean 'decode.beam_size'?\n",
        ),
        (
            "asr-transcribe.decode.beam",
            "error: asr-transcribe has no field 'decode.beam'; did you mean 'decode.beam_size'?\n",
        ),
        (
            "asr-transcribe.zzz",
            "error: asr-transcribe has no field 'zzz'; `runner explain asr-transcribe` lists its fields\n",
        ),
        (
            "asr-transcrib",
            "error: no kind is called 'asr-transcrib', there is asr-align, asr-embed, asr-finetune, asr-quantize, "
            "asr-transcribe and llm-train; did you mean 'asr-transcribe'?\n",
        ),
    ],
)
def test_unknown_paths(path: str, answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", path]) == 2
    assert capsys.readouterr().err == answer

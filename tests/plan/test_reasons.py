"""Reasons in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.plan.inputs import MISSING
from runner.plan.reasons import NOT_SET, Listing, at, differences, files_changed, show
from runner.plan.step import Input
from tests.plan.house import House

OLD = [("a", "1"), ("b", "2"), ("c", "3")]


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ([], OLD, "content changed"),
        (OLD, [("a", "x"), ("b", "2"), ("c", "3")], "1 file changed"),
        (OLD, [("a", "x"), ("b", "x"), ("d", "4")], "2 files changed, 1 added, 1 removed"),
        (OLD, [*OLD, ("d", "4")], "1 file added"),
        (OLD, [], "3 files removed"),
        (OLD, [("a", "1"), ("b", MISSING), ("c", "3")], "1 file removed"),
        (OLD, OLD[::-1], "order of files changed"),
    ],
)
def test_files_are_counted(before: Listing, now: Listing, words: str) -> None:
    assert files_changed(before, now) == words


def test_values_are_found_by_path() -> None:
    spec = {"models": [{"name": "x"}], "outputs": [], "a": None}
    assert at(spec, "models[0].name") == "x"
    assert at(spec, "a") is None
    for path in ("models[1].name", "a.b", "outputs.x", "none", "models.name"):
        assert at(spec, path) is NOT_SET


@pytest.mark.parametrize(
    ("value", "words"), [(None, "null"), ("", '""'), ("pt", "pt"), (True, "true"), ([1], "[1]"), (NOT_SET, "(not set)")]
)
def test_values_are_short(value: object, words: str) -> None:
    assert show(value) == words
    assert show("x" * 100) == "x" * 57 + "..."


def test_a_hub_model_that_moved_names_both_commits(house: House) -> None:
    old = house.publish(house.step())
    pin = {"field": "model", "files": 1, "size": 1}
    old = replace(old, inputs=({**pin, "ref": "hf:o/m@" + "a" * 40, "digest": "commit:" + "a" * 40},))
    new = Input(**pin, ref="hf:o/m@" + "b" * 40, digest="commit:" + "b" * 40)
    found = differences(old, result={}, inputs=[new], code_version=2, made=(), before=lambda _: (), now=lambda _: ())
    assert found == ("model: commit aaaaaaaa -> bbbbbbbb",)

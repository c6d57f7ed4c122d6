"""Choices are measured once, kept by device and versions, and never fail a run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.kernels import calibration
from runner.kernels.calibration import Choice, Table, choose

IDENTITY = {"device": "H200", "torch": "2.13"}
SHAPE = {"rows": 4, "dtype": "bf16"}


class Counted:
    """Candidates whose times are given, and a clock that reads them; counts how often it is asked."""

    def __init__(self, **times: float | Exception) -> None:
        self.asked = 0
        self.candidates = {name: self._call(given) for name, given in times.items()}

    def _call(self, given: float | Exception) -> Callable[[], object]:
        def call() -> float:
            if isinstance(given, Exception):
                raise given
            return given

        return call

    def clock(self, call: Callable[[], object]) -> float:
        self.asked += 1
        value = call()
        assert isinstance(value, float)
        return value

    def table(self, folder: Path | None, **identity: str) -> Table:
        return Table(IDENTITY | identity, clock=self.clock, folder=folder)


def test_the_fastest_wins_and_what_fails_is_excluded_with_its_reason() -> None:
    given = Counted(slow=2.0, fast=1.0, broken=NotImplementedError("no fp8 here\nlong trace"))
    choice = given.table(None).choose("linear", SHAPE, given.candidates)
    assert choice == Choice(
        name="fast",
        milliseconds={"slow": 2.0, "fast": 1.0},
        excluded={"broken": "NotImplementedError: no fp8 here"},
        note="measured",
    )


def test_what_is_as_fast_within_the_noise_goes_by_the_order() -> None:
    given = Counted(first=1.02, second=1.0)
    assert given.table(None).choose("linear", SHAPE, given.candidates).name == "first"


def test_an_answer_is_measured_once_and_read_by_the_next_process(tmp_path: Path) -> None:
    given = Counted(a=2.0, b=1.0)
    one = given.table(tmp_path)
    assert one.choose("linear", SHAPE, given.candidates) is one.choose("linear", SHAPE, given.candidates)
    assert given.asked == 2
    again = given.table(tmp_path).choose("linear", SHAPE, given.candidates)
    assert (again.name, again.milliseconds, again.note) == ("b", {"a": 2.0, "b": 1.0}, "from the cache")
    assert given.asked == 2
    one.choose("linear", SHAPE | {"rows": 5}, given.candidates)  # another shape is another question
    given.table(tmp_path, torch="2.14").choose("linear", SHAPE, given.candidates)  # and so is another version
    assert given.asked == 6
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json"]


def test_a_new_candidate_is_measured_although_there_is_an_answer(tmp_path: Path) -> None:
    given = Counted(a=2.0, b=1.0)
    given.table(tmp_path).choose("linear", SHAPE, {"a": given.candidates["a"]})
    assert given.table(tmp_path).choose("linear", SHAPE, given.candidates).name == "b"


def test_processes_add_to_one_file(tmp_path: Path) -> None:
    given = Counted(a=1.0)
    one, other = given.table(tmp_path), given.table(tmp_path)
    one.choose("x", SHAPE, given.candidates)
    other.choose("y", SHAPE, given.candidates)
    assert set(given.table(tmp_path).to_json()["choices"]) == {"x dtype=bf16 rows=4", "y dtype=bf16 rows=4"}


HUGE = '{"identity": {}, "choices": {"x": {"name": "a", "milliseconds": {"a": 1%s}, "excluded": {}}}}' % (400 * "0")
BROKEN = ["", "{", "[1]", '{"identity": {}, "choices": {"x": {"name": "a"}}}', '"\\ud800"', "[" * 100_000, HUGE]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_or_foreign_file_is_measured_anew_and_says_so(text: str, tmp_path: Path) -> None:
    given = Counted(a=1.0)
    given.table(tmp_path).choose("linear", SHAPE, given.candidates)
    next(tmp_path.iterdir()).write_text(text)
    choice = given.table(tmp_path).choose("linear", SHAPE, given.candidates)
    assert choice.note.startswith("measured; the cache file was set aside: ")
    assert given.table(tmp_path).choose("linear", SHAPE, given.candidates).note == "from the cache"


def test_a_file_of_another_device_is_not_believed(tmp_path: Path) -> None:
    given = Counted(a=1.0)
    given.table(tmp_path).choose("linear", SHAPE, given.candidates)
    path = next(tmp_path.iterdir())
    path.write_text(json.dumps(json.loads(path.read_text()) | {"identity": IDENTITY | {"device": "other"}}))
    assert "another device" in given.table(tmp_path).choose("linear", SHAPE, given.candidates).note


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    given = Counted(a=1.0)
    table = given.table(tmp_path / "file" / "inside")
    assert table.choose("linear", SHAPE, given.candidates).name == "a"
    assert table.choose("linear", SHAPE, given.candidates).name == "a"
    assert given.asked == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_lack_of_memory_holds_for_this_process_alone(tmp_path: Path) -> None:
    given = Counted(large=torch.OutOfMemoryError("no room"), small=1.0)
    assert given.table(tmp_path).choose("linear", SHAPE, given.candidates).excluded == {
        "large": "OutOfMemoryError: no room"
    }
    assert list(tmp_path.iterdir()) == []


def test_nothing_works() -> None:
    given = Counted(a=ValueError("odd"), b=TypeError())
    with pytest.raises(RuntimeError, match=r"linear .*: nothing works: a: ValueError: odd; b: TypeError"):
        given.table(None).choose("linear", SHAPE, given.candidates)
    with pytest.raises(ValueError, match="nothing to choose"):
        choose("linear", SHAPE, {}, device=torch.device("cpu"))


def test_a_pin_wins_over_what_would_be_measured() -> None:
    then, now = Counted(a=1.0, b=2.0), Counted(a=2.0, b=1.0)
    old = then.table(None)
    old.choose("linear", SHAPE, then.candidates)
    stored = json.loads(json.dumps(old.to_json()))
    table = now.table(None)
    table.pin(stored)
    choice = table.choose("linear", SHAPE, now.candidates)
    assert (choice.name, choice.note, now.asked) == ("a", "pinned", 0)


@pytest.mark.parametrize("stored", [{}, {"identity": IDENTITY}, {"identity": 1, "choices": {}}])
def test_a_pin_that_is_none_is_refused(stored: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no table of choices"):
        Counted().table(None).pin(stored)


def test_a_pin_of_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match="device was 'H100', is 'H200'; drop the pin"):
        Counted().table(None).pin({"identity": IDENTITY | {"device": "H100"}, "choices": {}})


def test_on_a_cpu_the_written_rule_holds_and_nothing_runs() -> None:
    given = Counted(first=ValueError("is never called"), second=1.0)
    choice = choose("linear", SHAPE, given.candidates, device=torch.device("cpu"))
    assert choice == Choice(name="first", note="the written rule: nothing is measured on cpu")


def test_where_choices_lie_and_what_they_depend_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert calibration.cache_folder() == tmp_path / "specrunner" / "calibration"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert calibration.cache_folder() == Path.home() / ".cache" / "specrunner" / "calibration"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a container's user of no name
    assert calibration.cache_folder() is None
    start = time.perf_counter()
    assert len(calibration.kernels_version()) == 16
    assert time.perf_counter() - start < 1.0

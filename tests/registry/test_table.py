from __future__ import annotations

import pytest

from runner.registry.recognise import families
from runner.registry.table import END, README, START, put, table


def test_the_table_in_the_readme_is_that_of_the_families() -> None:
    text = README.read_text(encoding="utf-8")
    assert put(text) == text, "run python -m runner.registry.table"


def test_a_row_a_family_of_language_models() -> None:
    rows = table().splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name, f in families().items() if f.language]
    assert all(row.count(" | ") == 4 for row in rows)


def test_it_goes_between_the_markers() -> None:
    assert put(f"before\n{START}\nold\n{END}\nafter") == f"before\n{START}\n{table()}\n{END}\nafter"
    with pytest.raises(AssertionError, match="needs the two lines"):
        put("no markers")

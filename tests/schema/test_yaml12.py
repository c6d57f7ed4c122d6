"""YAML 1.2 scalars, the form of documents, and the budgets, on both of PyYAML's loaders."""

from __future__ import annotations

import time

import pytest
import yaml

from runner.schema import yaml12
from runner.schema.nodes import plain
from runner.schema.scalars import Value, resolve
from runner.schema.yaml12 import parse


def content(text: str) -> list[object]:
    """The documents of ``text``, which must be in order."""
    documents, problems = parse(text, "f")
    assert not problems, problems
    return [plain(document.root) for document in documents]


@pytest.fixture(params=["libyaml", "python"])
def _both_loaders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(yaml12, "LOADER", yaml.SafeLoader)


# what PyYAML makes of them by YAML 1.1 stands on the right
TRAPS: dict[str, Value] = {
    "1e-4": 0.0001,  # text
    "1E-5": 0.00001,  # text
    "5e3": 5000.0,  # text
    "1e+4": 10000.0,  # text
    "1.0e-4": 0.0001,
    "1.e-4": 0.0001,
    ".5": 0.5,
    "no": "no",  # False
    "NO": "NO",  # False
    "on": "on",  # True
    "yes": "yes",  # True
    "y": "y",
    "12:30:45": "12:30:45",  # 45045
    "22:22": "22:22",  # 1342
    "010": 10,  # 8
    "0o10": 8,  # text
    "0x1F": 31,
    "0b11": "0b11",  # 3
    "1_000": "1_000",  # 1000
    "2026-01-01": "2026-01-01",  # a date
    "3.10": 3.1,
    "=": "=",  # an error
    "+1": 1,
    "-0": 0,
    "1.": 1.0,
    ".": ".",
    "-": "-",
    "+": "+",
    "1.2.3": "1.2.3",
    "0x": "0x",
    "0o8": "0o8",
    "e5": "e5",
    "true": True,
    "TRUE": True,
    "tRUE": "tRUE",
    "False": False,
    "null": None,
    "~": None,
    "Null": None,
    "nil": "nil",
    "": None,
    ".inf": float("inf"),
    "-.INF": float("-inf"),
    "+.Inf": float("inf"),
    "inf": "inf",
    "nan": "nan",
    "٣": "٣",  # digits of other scripts are text
    "9223372036854775807": 2**63 - 1,
    "-9223372036854775808": -(2**63),
    "0000000000000000000007": 7,
}


@pytest.mark.parametrize(("text", "value"), TRAPS.items(), ids=[repr(t) for t in TRAPS])
def test_scalars_follow_yaml_1_2(text: str, value: Value) -> None:
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_one() -> None:
    found = resolve(".nan")
    assert isinstance(found, float) and found != found  # noqa: PLR0124 (what makes it NaN)


@pytest.mark.parametrize("text", ["9223372036854775808", "1e999", "-1e999", "0x10000000000000000", "1" * 5000])
def test_numbers_beyond_64_bits_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="beyond"):
        resolve(text)


@pytest.mark.usefixtures("_both_loaders")
def test_traps_inside_documents() -> None:
    text = "".join(f"- {text}\n" for text in TRAPS if text not in {"-", "="})
    assert content(text) == [[value for text, value in TRAPS.items() if text not in {"-", "="}]]


@pytest.mark.usefixtures("_both_loaders")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: '1'\nb: \"true\"\nc: |\n  1\n", {"a": "1", "b": "true", "c": "1\n"}),
        ("a: !!str 1\nb: ! 2\nc: !!float 3\nd: !!int '4'\n", {"a": "1", "b": "2", "c": 3.0, "d": 4}),
        ("a: !!map {b: !!seq [!!null ~, !!bool true]}\n", {"a": {"b": [None, True]}}),
        ("a: &x {b: 1}\nc: *x\n", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x 1\nb: &x 2\nc: *x\n", {"a": 1, "b": 2, "c": 2}),
        ("{a: 1, b: [2, 3]}", {"a": 1, "b": [2, 3]}),
        ("a:\nb: \n", {"a": None, "b": None}),
        ('a: "olá \\u00e9 🎧"\n', {"a": "olá é 🎧"}),
        ("no: 1\non: 2\n", {"no": 1, "on": 2}),
    ],
)
def test_documents(text: str, value: object) -> None:
    assert content(text) == [value]


@pytest.mark.usefixtures("_both_loaders")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x {b: 1, c: 2}\n<<: *x\nc: 3\n", {"a": {"b": 1, "c": 2}, "b": 1, "c": 3}),
        ("<<: {b: 1}\nb: 2\n", {"b": 2}),
        ("<<: [{b: 1}, {b: 2, c: 3}]\n", {"b": 1, "c": 3}),
        ("a: &x {<<: {c: 1}, b: 2}\nd: {<<: *x}\n", {"a": {"c": 1, "b": 2}, "d": {"c": 1, "b": 2}}),
        ("'<<': 1\n", {"<<": 1}),
    ],
    ids=["explicit-wins", "explicit-wins-whatever-the-order", "earlier-wins", "merges-merge", "quoted-is-a-key"],
)
def test_merge_keys(text: str, value: object) -> None:
    assert content(text) == [value]


@pytest.mark.usefixtures("_both_loaders")
def test_empty_documents_are_skipped_and_places_count_from_the_file() -> None:
    documents, problems = parse("# a\n---\n---\na: 1\n...\n---\n~\n---\nb: 2\n", "f")
    assert not problems
    assert [(plain(d.root), d.root.line) for d in documents] == [({"a": 1}, 4), ({"b": 2}, 9)]


@pytest.mark.usefixtures("_both_loaders")
def test_documents_before_a_syntax_error_are_read() -> None:
    documents, problems = parse("a: 1\n---\nb: [\n", "f")
    assert [plain(document.root) for document in documents] == [{"a": 1}]
    assert [problem.code for problem in problems] == ["syntax"]


@pytest.mark.usefixtures("_both_loaders")
def test_columns_count_characters() -> None:
    _, problems = parse('{"é🎧": 1, "é🎧": 2}', "f")
    assert (problems[0].line, problems[0].column) == (1, 11)


@pytest.mark.parametrize("nest", ["[" * 64 + "]" * 64, "{a: " * 63 + "[]" + "}" * 63])
def test_the_deepest_that_is_allowed(nest: str) -> None:
    assert not parse(nest, "f")[1]
    assert [p.code for p in parse(f"[{nest}]", "f")[1]] == ["too-much"]


def test_depth_counts_what_aliases_stand_for() -> None:
    base = "[" * 40 + "]" * 40
    assert not parse(f"a: &a {base}\nb: {'[' * 23}*a{']' * 23}\n", "f")[1]
    assert [p.code for p in parse(f"a: &a {base}\nb: {'[' * 24}*a{']' * 24}\n", "f")[1]] == ["too-much"]


def test_nodes_count_what_aliases_stand_for() -> None:
    items = ", ".join(
        "x" * 99
    )  # a list of 99 is 100 nodes; 499 aliases to it, the two keys and the outer nodes fill up
    assert not parse(f"a: &a [{items}]\nb: [{', '.join(['*a'] * 498)}]\n", "f")[1]
    assert [p.code for p in parse(f"a: &a [{items}]\nb: [{', '.join(['*a'] * 500)}]\n", "f")[1]] == ["too-much"]


@pytest.mark.parametrize(
    "text",
    [
        "a0: &a0 [x, x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 90)}]\n" for i in range(60)),
        "[" * (1 << 20),
        "{a: " * (1 << 18),
        "- " * (1 << 19),
        "? " * (1 << 19),
        "a: " * (1 << 18),
        "!" * (1 << 20),
        "&a " * (1 << 18),
        '"' + "\\x00" * (1 << 18),
        "a: &a [" + "*a," * (1 << 18),
        "---\n" * (1 << 18),
        "#\n" * (1 << 19),
    ],
    ids=lambda text: repr(text[:8]),
)
def test_hostile_text_costs_little(text: str) -> None:
    start = time.process_time()
    parse(text, "f")
    assert time.process_time() - start < 2.0

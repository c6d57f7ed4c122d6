from __future__ import annotations

import csv
import itertools
import json
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from runner.llm.data import corpora
from runner.llm.data.corpora import Rows, Source
from runner.llm.data.detect import FORMATS
from runner.llm.data.sample import Chat, Completion, Text
from runner.llm.data.skipped import Skipped
from runner.registry import dataset
from runner.schema.corpus import Column, Corpus
from runner.schema.errors import JobError

RECORDS = [{"prompt": f"question {n}", "completion": f"answer {n}"} for n in range(700)]


def opened(*files: Path, policy: str = "stop", **fields: Any) -> tuple[Rows, Skipped]:
    skipped = Skipped(policy)  # type: ignore[arg-type]
    source = Source(name="the corpus", files=files, columns=fields.pop("columns", {}), **fields)
    return corpora.open(source, skipped=skipped), skipped


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(path: Path, *rows: Any) -> Path:
    return written(path, "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


def as_jsonl(path: Path) -> Path:
    return lines(path.with_suffix(".jsonl"), *RECORDS)


def as_array(path: Path) -> Path:
    return written(path.with_suffix(".json"), json.dumps(RECORDS, indent=1))


def as_lines_called_json(path: Path) -> Path:
    return lines(path.with_suffix(".json"), *RECORDS)


def as_table(path: Path, suffix: str = ".csv", delimiter: str = ",") -> Path:
    with path.with_suffix(suffix).open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["prompt", "completion"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(RECORDS)
    return path.with_suffix(suffix)


def as_tsv(path: Path) -> Path:
    return as_table(path, ".tsv", "\t")


def as_parquet(path: Path) -> Path:
    table = pyarrow.Table.from_pylist(RECORDS)
    pyarrow.parquet.write_table(table, path.with_suffix(".parquet"), row_group_size=300)
    return path.with_suffix(".parquet")


def as_folder(path: Path) -> Path:
    datasets.Dataset.from_list(RECORDS).save_to_disk(str(path))
    return path


def as_split(path: Path) -> Path:
    data = datasets.Dataset.from_list(RECORDS)
    datasets.DatasetDict({"test": data.select(range(3)), "train": data}).save_to_disk(str(path))
    return path


KINDS = [as_jsonl, as_array, as_lines_called_json, as_table, as_tsv, as_parquet, as_folder, as_split]


@pytest.mark.parametrize("make", KINDS)
def test_every_kind_of_file_gives_the_same_samples_from_any_row_on(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    rows, _ = opened(make(tmp_path / "data"))
    assert (rows.format, rows.why) == ("prompt_completion", "columns prompt, completion")
    found = list(rows.samples())
    assert [number for number, _ in found] == list(range(700))
    assert [(one.prompt, one.completion) for _, one in found] == [tuple(row.values()) for row in RECORDS]  # type: ignore[union-attr]
    assert 600 <= rows.about() <= 700
    for begin in (1, 255, 256, 300, 301, 699, 700, 900):
        assert list(rows.samples(begin)) == found[begin:]


def test_the_plan_lets_through_what_can_be_read() -> None:
    assert tuple(corpora.READERS) == dataset.TYPES


def test_files_follow_each_other_and_row_numbers_go_on(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    files = [as_jsonl(tmp_path / "a"), as_parquet(tmp_path / "more" / "b"), as_table(tmp_path / "c")]
    rows, _ = opened(*files)
    found = list(rows.samples())
    assert [number for number, _ in found] == list(range(2100))
    assert [found[n][1].place for n in (0, 700, 1400)] == ["a.jsonl:1", "more/b.parquet:1", "c.csv:2"]
    for begin in (699, 700, 1399, 1400, 2099):
        assert list(rows.samples(begin)) == found[begin:]


def test_places_are_named_as_people_know_them(tmp_path: Path) -> None:
    (tmp_path / "chats").mkdir()
    path = as_jsonl(tmp_path / "chats" / "a")

    def place(name: str, folder: Path | None) -> str:
        source = Source(name=name, files=(path,), columns={}, folder=folder)
        return next(corpora.open(source, skipped=Skipped("stop")).samples())[1].place

    assert place("chats/a.jsonl", tmp_path) == "chats/a.jsonl:1"
    assert place("/elsewhere/a.jsonl", tmp_path / "specs") == "a.jsonl:1"
    assert place("artifact:made#a.jsonl", tmp_path) == "artifact:made#a.jsonl:1"
    assert place("hf:owner/name#a*", tmp_path / "specs") == "hf:owner/name/a.jsonl:1"


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"no split 'dev'; it has test, train"):
        opened(as_split(tmp_path / "data"), split="dev")


def test_plain_text_is_documents_with_empty_lines_between(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "\ufeff\r\nfirst line\r\nits second\r\n \r\n\r\nanother\n")
    rows, _ = opened(path)
    assert rows.format == "text"
    assert list(rows.samples()) == [
        (0, Text(place="a.txt:2", text="first line\nits second")),
        (1, Text(place="a.txt:6", text="another")),
    ]
    assert [number for number, _ in rows.samples(1)] == [1]


def test_columns_are_renamed_and_the_log_says_what_was_read(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"question": "2 + 2?", "answer": "4", "id": 7})
    rows, _ = opened(path, columns={"question": "prompt", "answer": "completion"})
    assert rows.why == "columns prompt, completion; not read: id"
    assert list(rows.samples()) == [(0, Completion(place="a.jsonl:1", prompt="2 + 2?", completion="4"))]


def test_a_column_that_was_named_counts_for_more_than_one_of_that_name(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"question": "2 + 2?", "prompt": "other", "completion": "4"})
    rows, _ = opened(path, columns={"question": "prompt"})
    assert list(rows.samples()) == [(0, Completion(place="a.jsonl:1", prompt="2 + 2?", completion="4"))]


def test_a_column_to_be_renamed_is_there(tmp_path: Path) -> None:
    record = {"id": 7, "prompt": "2 + 2?", "completion": "4"}
    path = lines(tmp_path / "a.jsonl", *[record] * 1000)
    told = r"the corpus: columns names 'nope', which its first rows do not have; they have 'id', 'prompt', 'completion'"
    with pytest.raises(JobError, match=told) as caught:
        opened(path, columns={"nope": "text", "id": "system"})
    assert caught.value.failure == "DataInvalid"


def test_a_column_to_be_renamed_may_be_a_rare_one(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    path = lines(tmp_path / "a.jsonl", *[chat] * 500, chat | {"functions": []})
    rows, _ = opened(path, columns={"functions": "tools"})
    assert (rows.why, len(list(rows.samples()))) == ("columns messages", 501)


def test_columns_can_only_be_named_after_those_that_are_read() -> None:
    assert {name for module in FORMATS.values() for name in module.COLUMNS} == set(get_args(Column))
    with pytest.raises(ValidationError, match="columns: only one can be 'prompt'"):
        Corpus(source="a.jsonl", columns={"a": "prompt", "b": "prompt"})


@pytest.mark.parametrize("make", [as_jsonl, as_array, as_table, as_tsv, as_parquet])
def test_damage_never_ends_in_anything_but_a_reason(make: Callable[[Path], Path], tmp_path: Path) -> None:
    """Bytes changed, cut out and repeated at random places."""
    path = make(tmp_path / "a")
    whole, draws = path.read_bytes(), random.Random(7)
    reasons = set()
    for _ in range(40):
        content = bytearray(whole)
        for _ in range(draws.randrange(1, 4)):
            at = draws.randrange(len(content))
            content[at : at + draws.randrange(3)] = draws.randbytes(draws.randrange(3)) * draws.randrange(1, 50)
        path.write_bytes(content)
        for policy in ("stop", "skip"):
            try:
                list(opened(path, policy=policy)[0].samples())
            except JobError as error:
                assert error.failure == "DataInvalid"
                reasons.add(str(error))
    assert reasons


def test_a_format_is_never_guessed(tmp_path: Path) -> None:
    alpaca = {"instruction": "add", "input": "2 2", "output": "4", "text": "add 2 2: 4"}
    path = lines(tmp_path / "a.jsonl", alpaca)
    with pytest.raises(JobError, match=r"instruction.*fit more than one format: alpaca, text; say which with format:"):
        opened(path)
    assert opened(path, format="alpaca")[0].format == "alpaca"
    with pytest.raises(JobError, match=r"columns \('question'\) fit no format: .*columns: \{yours: known\}") as caught:
        opened(lines(tmp_path / "b.jsonl", {"question": "?"}))
    assert caught.value.failure == "DataInvalid"


def test_rows_of_two_formats_in_one_corpus_are_an_error(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": "a"}, {"prompt": "a", "completion": "b"})
    with pytest.raises(JobError, match="fit more than one format: prompt_completion, text"):
        opened(path)


BROKEN = [
    ('{"text": "cut off', "not JSON: Unterminated string starting at character 10"),
    ('{"text": NaN0}', "not JSON: "),
    ("[1, 2]", "wrong type: a row must be an object, got a list"),
    ('{"body": "b"}', "missing field: 'text'"),
    ('{"text": 7}', "wrong type: 'text' must be text, got a number"),
    ('{"text": " "}', "empty text: 'text'"),
    ('{"text": "\\ud800"}', "not UTF-8: '\\ud800' is half of a character"),
    (f'{{"text": "{"x" * 10_000_000}"}}', "line too long: more than 8 MiB"),
    ("[" * 100_000, "not JSON: nested too deep"),
    (f'{{"text": {"9" * 5000}}}', "not JSON: a number is too long"),
]


@pytest.mark.parametrize(("line", "reason"), BROKEN, ids=lambda value: value[:24])
def test_a_broken_row_has_a_place_and_a_reason(line: str, reason: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"text": "first"}, "", line, {"text": "last"})
    rows, _ = opened(path)
    with pytest.raises(JobError) as caught:
        list(rows.samples())
    assert caught.value.failure == "DataInvalid"
    assert str(caught.value).startswith(f"a.jsonl:3: {reason}")
    assert str(caught.value).endswith("; mend the row, or leave such rows out with data.on_error: skip")

    rows, skipped = opened(path, policy="skip")
    assert [(number, one.text) for number, one in rows.samples()] == [(0, "first"), (2, "last")]  # type: ignore[union-attr]
    assert skipped.counts == {reason.partition(": ")[0]: 1}
    assert [place for place, _ in skipped.listed] == ["a.jsonl:3"]


def test_bytes_that_are_no_text_are_a_broken_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n')
    rows, skipped = opened(path, policy="skip")
    assert [number for number, _ in rows.samples()] == [0]
    assert skipped.listed == [("a.jsonl:2", "not UTF-8: byte 11 of the line")]


def test_a_broken_row_is_told_once_however_often_the_corpus_is_read(tmp_path: Path) -> None:
    rows, skipped = opened(lines(tmp_path / "a.jsonl", {"text": "a"}, "{", {"text": "b"}), policy="skip")
    for _ in range(3):
        assert len(list(rows.samples())) == 2
    assert next(rows.samples(1))[0] == 2
    assert skipped.total == 1


def test_broken_rows_of_tables(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'prompt,completion\n"a\nb",c\nonly\n"x"y,z\nd,e\n')
    rows, skipped = opened(path, policy="skip")
    assert [(number, one.prompt) for number, one in rows.samples()] == [(0, "a\nb"), (3, "d")]  # type: ignore[union-attr]
    assert [place for place, _ in skipped.listed] == ["a.csv:4", "a.csv:5"]
    assert list(skipped.counts) == ["wrong number of cells", "not a table"]
    for content, reason in (("a,a\n1,2\n", "names 'a' twice"), ("", "names no column")):
        with pytest.raises(JobError, match=reason):
            opened(written(tmp_path / "b.csv", content))


def test_a_long_line_of_a_table_is_one_broken_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", f'text\n"quote\n{"x" * 9_000_000}\nlast\n')
    rows, skipped = opened(path, policy="skip")
    assert [(number, one.text) for number, one in rows.samples()] == [(0, '"quote'), (2, "last")]  # type: ignore[union-attr]
    assert [place for place, _ in skipped.listed] == ["a.tsv:3"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('[{"text": "a"}, {"text": "b', "element 2 is not JSON"),
        ('[{"text": "a"}, {"text" "b"}, {"text": "c"}]', "element 2 is not JSON"),
        ('[{"text": "a"} {"text": "b"}]', "has '{' where ',' should stand"),
        ('[{"text": "a"}', "it breaks off"),
        (f'[{{"text": "a"}}, {{"text": "{"x" * 10_000_000}"}}]', "element 2 has more than 8 MiB"),
    ],
    ids=lambda value: value[:24],
)
def test_an_array_that_breaks_cannot_be_read_past_it(content: str, reason: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", content)
    with pytest.raises(JobError, match=rf"'a.json' cannot be read: .*{reason}"):
        list(opened(path, policy="skip")[0].samples())


def test_a_broken_element_of_an_array_that_is_json_stands_alone(tmp_path: Path) -> None:
    rows, skipped = opened(written(tmp_path / "a.json", ' [ {"text": "a"}, 12, {"text": "b"} ] '), policy="skip")
    assert [number for number, _ in rows.samples()] == [0, 2]
    assert skipped.listed == [("a.json:2", "wrong type: a row must be an object, got a number")]


def test_elements_across_the_pieces_that_are_read(tmp_path: Path) -> None:
    long = [{"text": "é\\u00e9" * n} for n in (10, 200_000, 300_000, 5)]
    rows, _ = opened(written(tmp_path / "a.json", json.dumps(long, ensure_ascii=False)))
    assert [one.text for _, one in rows.samples()] == [one["text"] for one in long]  # type: ignore[union-attr]


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="the corpus: it has no row"):
        opened(written(tmp_path / "empty.jsonl", "\n\n"))
    with pytest.raises(JobError, match=r"its first rows cannot be read; the first: b.jsonl:1: not JSON"):
        opened(lines(tmp_path / "b.jsonl", "{", "{"), policy="skip")
    rows, _ = opened(lines(tmp_path / "c.jsonl", {"text": ""}, {"text": 1}), policy="skip")
    with pytest.raises(JobError, match=r"none of its 2 rows can be used; the first: c.jsonl:1: empty text: 'text'"):
        list(rows.samples())


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path / "gone.jsonl", "No such file or directory"),
        (written(tmp_path / "a.parquet", b"PAR1 and no more"), "no whole Parquet file"),
        (written(tmp_path / "a.xlsx", b""), r"unknown type '.xlsx'; known are .jsonl"),
        (tmp_path, "it cannot be read"),
    ]:
        with pytest.raises(JobError, match=reason) as caught:
            opened(path)
        assert caught.value.failure == "DataInvalid"


def test_columns_of_arrow_lose_the_keys_of_other_rows(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    chats: list[list[dict[str, Any]]] = [
        [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}],
        [{"role": "user", "content": "1?"}, {"role": "assistant", "tool_calls": [call]}],
    ]
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{"messages": chat} for chat in chats]), tmp_path / "a.parquet"
    )
    (_, first), (_, second) = opened(tmp_path / "a.parquet")[0].samples()
    assert isinstance(first, Chat) and isinstance(second, Chat)
    assert first.messages == chats[0]
    assert second.messages[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}


def test_how_many_rows_there_are_is_told_from_the_first_ones(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", *({"text": "word " * (n % 90)} for n in range(20_000)))
    assert abs(opened(path)[0].about() / 20_000 - 1) < 0.2


@pytest.mark.parametrize("name", ["a.jsonl", "a.tsv", "a.txt"])
def test_neither_a_corpus_nor_a_line_is_ever_held_in_memory(name: str, tmp_path: Path) -> None:
    """100 MB of rows, then one line of 100 MB: what the process holds at its peak grows by less than a third of one."""
    row = "x" * 100_000
    line = {"a.jsonl": json.dumps({"text": row}), "a.tsv": row, "a.txt": f"{row}\n"}[name] + "\n"
    with (tmp_path / name).open("w") as file:
        file.write("text\n" if name == "a.tsv" else "")
        file.writelines(itertools.repeat(line, 1000))
        file.writelines(itertools.repeat(row, 1000))
    rows, skipped = opened(tmp_path / name, policy="skip")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in rows.samples()) == 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32_000  # kB: a line of 8 MiB and its text
    assert skipped.total == 1
    (reason,) = skipped.counts
    assert reason.endswith("too long")

"""Specs broken by chance: seeded mutations of good ones, and random text. Whatever comes, the answer is a SpecError.

What stays valid by luck is not counted among the broken.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.schema.errors import Problem
from tests.schema.helpers import GOOD, load_text, problems

FULL = """# a spec with a bit of everything
vars: {beam: 4, folder: clips}
matrix: {lang: [pt, es]}
apiVersion: runner/v1
kind: asr-transcribe
name: news-${matrix.lang}
description: the news of ${matrix.lang}
model:
  id: jonatasgrosman/wav2vec2-large-xlsr-53-portuguese
  revision: "0123"
  allow_pickle: true
data:
  audio:
    - ${vars.folder}/*.flac
    - "*.wav"
audio: {channels: left, silence_db: -50}
window: &w
  length_s: 25.5
  context_s: 1e0
decode:
  beam_size: ${vars.beam}
  language: ${matrix.lang}
  timestamps: char
precision: fp32
batch: {seconds: 60, files: 8}
outputs: [srt, vtt]
on_error: fail
gates:
  max_wer: 0.25
  min_confidence: .5
compute: {gpus: 0, cpus: 2, memory_gb: 8, workers: 2, timeout: 90m, retries: 0}
---
kind: asr-transcribe
name: second
model: {id: artifact:first@v2#model}
data: {manifest: 'clips.jsonl', root: /data}
"""
HOSTILE = [
    *(
        "~",
        "true",
        "no",
        "0",
        "-1",
        "1e400",
        ".nan",
        "0x1F",
        "1_000",
        "12:30",
        "3.0",
        "''",
        '""',
        "''''",
        "!!str x",
        "!x y",
    ),
    *("[]", "{}", "[[]]", "{a: {b: c}}", "*x", "&x y", "|\n    text", ">", "%", "@", "`", "#", "- a", "? a", "a: b: c"),
    *("${env:KEY}", "${vars.nope}", "${", "}", "\t", "\x00", "\x85", "\u2028", "\ufeff", "é" * 70_000, "[" * 100, "'"),
]

Mutation = Callable[[random.Random, list[str]], str | bytes]


def _delete_line(chance: random.Random, lines: list[str]) -> str:
    del lines[chance.randrange(len(lines))]
    return "".join(lines)


def _repeat_line(chance: random.Random, lines: list[str]) -> str:
    at = chance.randrange(len(lines))
    return "".join([*lines[:at], lines[at], *lines[at:]])


def _swap_lines(chance: random.Random, lines: list[str]) -> str:
    a, b = chance.sample(range(len(lines)), 2)
    lines[a], lines[b] = lines[b], lines[a]
    return "".join(lines)


def _indent(chance: random.Random, lines: list[str]) -> str:
    at = chance.randrange(len(lines))
    lines[at] = chance.choice([" ", "   ", "\t", "- "]) + lines[at]
    return "".join(lines)


def _rename_key(chance: random.Random, lines: list[str]) -> str:
    at = chance.choice([i for i, line in enumerate(lines) if ":" in line and not line.startswith("#")])
    key, _, rest = lines[at].partition(":")
    lines[at] = f"{key[:-1]}{chance.choice(string.ascii_letters + '_ 0é')}:{rest}"
    return "".join(lines)


def _change_value(chance: random.Random, lines: list[str]) -> str:
    at = chance.choice([i for i, line in enumerate(lines) if ": " in line and not line.startswith("#")])
    lines[at] = f"{lines[at].partition(': ')[0]}: {chance.choice(HOSTILE)}\n"
    return "".join(lines)


def _truncate(chance: random.Random, lines: list[str]) -> bytes:
    data = "".join(lines).encode()
    return data[: chance.randrange(len(data))]


def _flip_byte(chance: random.Random, lines: list[str]) -> bytes:
    data = bytearray("".join(lines).encode())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _insert(chance: random.Random, lines: list[str]) -> str:
    text = "".join(lines)
    at = chance.randrange(len(text))
    return text[:at] + chance.choice(HOSTILE) + text[at:]


def _delete_character(chance: random.Random, lines: list[str]) -> str:
    text = "".join(lines)
    at = chance.randrange(len(text))
    return text[:at] + text[at + 1 :]


def _nest(chance: random.Random, lines: list[str]) -> str:
    depth = chance.randrange(60, 3000)
    opening, closing = chance.choice([("[", "]"), ("{a: ", "}"), ("- ", "")])
    return "".join(lines) + f"extra: {opening * depth}x{closing * depth}\n"


def _bomb(chance: random.Random, lines: list[str]) -> str:
    width = chance.randrange(5, 30)
    levels = [f"  - &b{i} [{', '.join([f'*b{i - 1}' if i else 'x'] * width)}]\n" for i in range(12)]
    return "".join([*lines, "extra:\n", *levels])


MUTATIONS: list[Mutation] = [
    *(_delete_line, _repeat_line, _swap_lines, _indent, _rename_key, _change_value),
    *(_truncate, _flip_byte, _insert, _delete_character, _nest, _bomb),
]


def _check(problem: Problem, text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    last = max(data.count(mark) for mark in (b"\n", b"\r")) + sum(map(data.count, (b"\xc2\x85", b"\xe2\x80\xa8")))
    assert 1 <= problem.line <= last + 2, problem
    assert problem.column >= 1, problem
    assert problem.message and problem.hint and problem.code, problem
    assert len(str(problem).splitlines()) == 1 and len(str(problem)) < 2000, problem


def test_the_specs_to_mutate_are_good() -> None:
    assert len(load_text(FULL)) == 3
    assert len(load_text(GOOD)) == 1


def test_mutants_are_refused_with_place_and_hint() -> None:
    chance = random.Random(20)
    broken: set[str | bytes] = set()
    for number in range(900):
        base = FULL if number % 4 else GOOD
        text = MUTATIONS[number % len(MUTATIONS)](chance, base.splitlines(keepends=True))
        found = problems(text)
        for problem in found:
            _check(problem, text)
        if found:
            broken.add(text)
    print(f"{len(broken)} broken specs of 900 mutants")
    assert len(broken) >= 300


def test_every_documented_spec_survives_mutation() -> None:
    chance = random.Random(21)
    specs = sorted((Path(__file__).parents[2] / "specs").rglob("*.yaml"))
    assert specs
    for path in specs:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        for mutation in MUTATIONS:
            text = mutation(chance, list(lines))
            for problem in problems(text):
                _check(problem, text)


WORDS = [*"ab:-?[]{},#&*!|>'\"%@`~<$ \n\t10.e_", "kind: ", "asr-transcribe", "\n  ", "${", "---\n", "&a ", "*a"]
YAMLISH = st.lists(st.sampled_from(WORDS)).map("".join)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.one_of(st.text(), YAMLISH, st.binary(), YAMLISH.map(lambda text: GOOD + text)))
def test_random_text_ends_in_problems_or_in_specs(text: str | bytes) -> None:
    if isinstance(text, str):
        text = text.encode("utf-8", "surrogatepass")
    for problem in problems(text):
        _check(problem, text)

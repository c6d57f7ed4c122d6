"""Writes the quickstart's conversations: questions in Portuguese and English, each answered by one line of JSON.

    python -m tests.quickstart.chat --out specs/quickstart/chat

Who bought what, units, capitals. What is asked in validation.jsonl is asked nowhere in train.jsonl: all words were
seen, the sentence they stand in was not. Every sentence and word was written for this project.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.quickstart import chat_words as words

SEED = 5
TRAIN, VALIDATION = 1350, 120  # conversations
TURNS = (1, 1, 2, 3)
HELD_OUT = 0.08  # share of the questions that only validation may ask
Pair = tuple[str, dict[str, Any]]  # a question, and what its answer holds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="gets train.jsonl and validation.jsonl")
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    for name, conversations in written().items():
        lines = [json.dumps({"messages": messages}, ensure_ascii=False) + "\n" for messages in conversations]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        print(f"{name}.jsonl: {len(lines)} conversations, {sum(len(line.encode()) for line in lines)} bytes")


def written() -> dict[str, list[list[dict[str, str]]]]:
    """Both files' conversations."""
    random = Random(SEED)
    skills = [[pair for language in words.LANGUAGES for pair in skill(language)] for skill in (units, capitals)]
    asked, kept = map(list, zip(*(_split(skill, random) for skill in skills), strict=True))
    seen: set[str] = set()
    files = {}
    for name, count, closed in (("train", TRAIN, asked), ("validation", VALIDATION, kept)):
        sources = [lambda: purchase(random, seen), *(_again(pairs, random) for pairs in closed)]
        files[name] = [_conversation(sources, random) for _ in range(count)]
    return files


def purchase(random: Random, seen: set[str]) -> Pair:
    """Who bought how many of what, and where; never one that is ``seen``."""
    while True:
        language = random.choice(words.LANGUAGES)
        sentence = random.choice(words.PURCHASES[language])
        place, keys = random.choice(words.PLACES), words.PURCHASE_KEYS[language]
        who, what, many = random.choice(words.PEOPLE), random.choice(words.GOODS[language]), random.randint(2, 60)
        question = sentence.format(who=who, many=many, what=what, where=place[language])
        if question not in seen:
            seen.add(question)
            return question, dict(zip(keys, (who, many, what, place[language]), strict=True))


def units(language: str) -> Iterator[Pair]:
    """Every amount of every unit in a smaller one."""
    value, unit = words.UNIT_KEYS[language]
    for large, small, sign, factor in words.UNITS[language]:
        for amount in range(2, 61):
            answer = {value: amount * factor, unit: sign}
            yield from ((x.format(large=large, small=small, amount=amount), answer) for x in words.ASKS_UNIT[language])


def capitals(language: str) -> Iterator[Pair]:
    """Every capital."""
    key, country_key = words.CAPITAL_KEYS[language]
    for country in words.COUNTRIES:
        name, capital = country[language]
        of = country.get("of", "") if language == "pt" else ""
        for sentence in words.ASKS_CAPITAL[language]:
            yield sentence.format(of=of, country=name), {key: capital, country_key: name}


def _split(pairs: list[Pair], random: Random) -> tuple[list[Pair], list[Pair]]:
    order = random.sample(pairs, len(pairs))
    kept = round(HELD_OUT * len(pairs))
    return order[kept:], order[:kept]


def _again(pairs: list[Pair], random: Random) -> Callable[[], Pair]:
    return lambda: random.choice(pairs)


def _conversation(sources: list[Callable[[], Pair]], random: Random) -> list[dict[str, str]]:
    messages = []
    for _ in range(random.choice(TURNS)):
        question, answer = random.choice(sources)()
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": json.dumps(answer, ensure_ascii=False)})
    return messages


if __name__ == "__main__":
    main()

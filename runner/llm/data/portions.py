"""Samples a few at a time, on their way to tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from runner.llm.data.sample import Chat, Completion, Sample

MOST = 256  # samples: enough for all threads of the tokenizer
CHARACTERS = 4 * 2**20  # a token takes some 118 bytes while it is made: half a GB; a row has 8 MiB at most


def portions(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    """All of ``samples`` in order, in lists that end at `MOST` samples or `CHARACTERS`. Never reads ahead."""
    few: list[Sample] = []
    held = 0
    for sample in samples:
        few.append(sample)
        held += _size(sample)
        if len(few) == MOST or held >= CHARACTERS:
            yield few
            few, held = [], 0
    if few:
        yield few


def _size(sample: Sample) -> int:
    """About how many characters it has."""
    if isinstance(sample, Chat):
        return sum(len(str(one)) for one in (*sample.messages, *(sample.tools or ())))
    if isinstance(sample, Completion):
        return len(sample.prompt) + len(sample.completion)
    return len(sample.text)

"""From a corpus as people wrote it to one of tokens on the disk, a few samples at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from runner.llm import corpus
from runner.llm.corpus import Corpus
from runner.llm.data import corpora
from runner.llm.data.corpora import Source
from runner.llm.data.sample import Sample
from runner.llm.data.skipped import Skipped
from runner.llm.document import Document
from runner.llm.text.tokens import Encoder
from runner.schema.errors import JobError

AT_A_TIME = 256  # samples: enough for all threads of the tokenizer, and little memory
Say = Callable[[str], None]


def encoded(
    source: Source, *, encoder: Encoder, skipped: Skipped, folder: Path, say: Say, check: Callable[[], None]
) -> Corpus:
    """The corpus of ``source`` in ``folder``; what an attempt before has finished is taken as it is.

    ``check`` raises where the run must end. Raises JobError where nothing is left to learn from.
    """
    told = folder.with_name(f"{folder.name}.skipped.json")
    if folder.exists() and told.exists():
        skipped.merge(json.loads(told.read_text(encoding="utf-8")))
        return Corpus(folder)
    own = Skipped(skipped.policy)
    rows = corpora.open(source, skipped=own)
    say(f"{source.name}: read as {rows.format} ({rows.why})")
    samples = (sample for _, sample in rows.samples())
    made = corpus.build(documents(_checked(samples, check), encoder=encoder, skipped=own), folder)
    if not len(made):
        raise JobError(_nothing(source, own), failure="DataInvalid")
    told.write_text(json.dumps(own.to_json()), encoding="utf-8")
    skipped.merge(own.to_json())
    return made


def documents(samples: Iterable[Sample], *, encoder: Encoder, skipped: Skipped) -> Iterator[Document]:
    """The samples as documents; those with nothing to learn go to ``skipped``."""
    waiting = iter(samples)
    while few := list(itertools.islice(waiting, AT_A_TIME)):
        for made in encoder.encode(few):
            if isinstance(made, Document):
                yield made
            else:
                skipped.add(*made)


def _checked(samples: Iterable[Sample], check: Callable[[], None]) -> Iterator[Sample]:
    for number, sample in enumerate(samples):
        if not number % AT_A_TIME:
            check()
        yield sample


def _nothing(source: Source, skipped: Skipped) -> str:
    examples = [text for texts in skipped.examples.values() for text in texts]
    return f"{source.name}: none of its samples can be learned from; the first: {examples[0]}"

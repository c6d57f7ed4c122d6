"""The corpora of a run on their way to tokens: written to the disk once, streamed while it trains, or shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.llm import corpus
from runner.llm.corpus import Corpus
from runner.llm.data import corpora, mixture
from runner.llm.data.corpora import Source
from runner.llm.data.portions import portions
from runner.llm.data.sample import Sample
from runner.llm.data.skipped import Skipped
from runner.llm.document import Document
from runner.llm.packing import stream
from runner.llm.packing.stream import Blocks
from runner.llm.text import preview
from runner.llm.text.preview import CorpusShown, Shown
from runner.llm.text.tokens import Encoder
from runner.schema.errors import JobError


def samples(sources: Iterable[Source]) -> Iterator[Sample]:
    """All samples, for a vocabulary. What is broken is told when they are encoded."""
    for source in sources:
        yield from (sample for _, sample in corpora.open(source, skipped=Skipped("skip")).samples())


def shown(sources: Mapping[str, Source], encoder: Encoder, tokenizer: Any, *, most: int) -> tuple[CorpusShown, ...]:
    """The first ``most`` documents of each corpus, by the field that names it."""
    return tuple(_shown(field, source, encoder, tokenizer, most=most) for field, source in sources.items())


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Corpora to read. ``folder`` survives attempts: what one has finished is taken as it is by the next."""

    encoder: Encoder
    skipped: Skipped  # hears of every sample that is left out
    folder: Path
    say: Callable[[str], None]
    check: Callable[[], None]  # raises where the run must end

    def encoded(self, source: Source, name: str) -> Corpus:
        """The corpus of ``source`` on the disk, under ``name``. Raises JobError where nothing of it is learned."""
        folder, told = self.folder / name, self.folder / f"{name}.skipped.json"
        if folder.exists() and told.exists():
            self.skipped.merge(json.loads(told.read_text(encoding="utf-8")))
            return Corpus(folder)
        own = Skipped(self.skipped.policy)
        rows = corpora.open(source, skipped=own)
        self.say(f"{source.name}: read as {rows.format} ({rows.why})")
        made = corpus.build(self._documents((sample for _, sample in rows.samples()), own), folder)
        if not len(made):
            raise JobError(_nothing(source, own), failure="DataInvalid")
        told.write_text(json.dumps(own.to_json()), encoding="utf-8")
        self.skipped.merge(own.to_json())
        self.say(f"{source.name}: {len(made):,} documents, {int(made.lengths.sum()):,} tokens")
        if self.encoder.split:
            split = "conversations up to here made several documents each: the template drops what was thought earlier"
            self.say(f"{self.encoder.split:,} {split}")
        if self.encoder.special.count:
            self.say(self.encoder.special.told)
        return made

    def blocks(self, sources: Sequence[Source], *, size: int, seed: int) -> Blocks:
        """Blocks of documents without end, with what is left out of each, for ``StreamSteps``."""
        skipped = Skipped(self.skipped.policy)
        opened = [corpora.open(source, skipped=skipped) for source in sources]
        for rows in opened:
            self.say(f"{rows.source.name}: streamed as {rows.format} ({rows.why})")
        shares = [rows.source.weight * rows.about() for rows in opened]

        def begun(state: Any) -> mixture.Stream[Sample]:
            return mixture.Stream([rows.samples for rows in opened], shares, seed=seed, block=size, state=state)

        return stream.encoded(begun, encode=self.encoder.encode, skipped=skipped, size=size)

    def _documents(self, waiting: Iterator[Sample], skipped: Skipped) -> Iterator[Document]:
        for few in portions(waiting):
            self.check()
            for made in self.encoder.encode(few):
                if isinstance(made, Document):
                    yield made
                else:
                    skipped.add(*made)


def _nothing(source: Source, skipped: Skipped) -> str:
    examples = [text for of_reason in skipped.examples.values() for text in of_reason]
    return f"{source.name}: none of its samples can be learned from; the first: {examples[0]}"


def _shown(field: str, source: Source, encoder: Encoder, tokenizer: Any, *, most: int) -> CorpusShown:
    skipped = Skipped("skip")
    rows = corpora.open(source, skipped=skipped)
    first = preview.shown((sample for _, sample in rows.samples()), encoder, tokenizer, most=most)
    first += tuple(Shown(place=place, reason=reason) for place, reason in skipped.listed)
    return CorpusShown(field=field, source=source.name, format=rows.format, why=rows.why, documents=first)

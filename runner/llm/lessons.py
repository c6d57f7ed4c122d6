"""What a run learns from and is measured on, read once for all processes of a team, and the steps made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner import ranks
from runner.llm import corpus
from runner.llm.corpus import Corpus
from runner.llm.data.corpora import Source
from runner.llm.data.skipped import Skipped
from runner.llm.packing.loader import Loader
from runner.llm.packing.stream import Blocks, StreamSteps
from runner.llm.text.tokens import Encoder
from runner.llm.texts import Texts

Layout = Mapping[str, Any]  # fields of ``packing.layout.Layout``


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """All of it, in every process."""

    train: list[Corpus]  # empty where it is streamed
    weights: list[float]
    blocks: Blocks | None  # of a stream, which each process reads
    validation: list[Corpus]
    skipped: Skipped
    encoder: Encoder
    say: Callable[[str], None]
    cuts: dict[str, str] = field(default_factory=dict)  # what was said of documents that are too long, by their use

    def steps(
        self,
        layout: Layout,
        *,
        look_ahead: int,
        seed: int,
        epochs: float | None,
        max_steps: int | None,
        journal: Path,
    ) -> Loader | StreamSteps:
        """The steps of this process. ``journal``: where a stream notes how far it is."""
        if self.blocks is not None:
            assert max_steps is not None, "a stream has no end of its own"
            return StreamSteps(**layout, blocks=self.blocks, journal=journal, max_steps=max_steps, skipped=self.skipped)
        made = Loader(
            **layout,
            skipped=self.skipped,
            corpora=self.train,
            weights=self.weights,
            look_ahead=look_ahead,
            seed=seed,
            epochs=epochs,
            max_steps=max_steps,
        )
        self._tell("training", made)
        return made

    def held(self, layout: Layout) -> Loader | None:
        """The validation data, once a document."""
        if not self.validation:
            return None
        once = {**layout, "accumulate": ranks.size()}
        weights = [1.0] * len(self.validation)
        made = Loader(**once, corpora=self.validation, weights=weights, seed=0, epochs=1, skipped=self.skipped)
        self._tell("validation", made)
        return made

    def said(self, steps: Loader | StreamSteps) -> list[str]:
        """What documents lost since they were too long, after the last of ``steps``: a stream knows it then alone."""
        self._tell("training", steps)
        return list(self.cuts.values())

    def _tell(self, use: str, steps: Loader | StreamSteps) -> None:
        told = steps.cut.told(longest=steps.longest, long=steps.long)
        if told is not None and self.cuts.get(use) != (line := f"{use} data: {told}"):
            self.cuts[use] = line
            self.say(line)


def read(
    texts: Texts,
    train: Mapping[str, Source],
    validation: Mapping[str, Source],
    *,
    streaming: bool,
    share: float,
    seed: int,
    block: int,
) -> Lessons:
    """Read the corpora, named by their fields; the first process does it for all.

    ``streaming``: those of ``train`` come in blocks of ``block`` samples while it trains. ``share`` of the documents
    of ``train`` are kept back to measure on.
    """

    def encoded() -> tuple[list[Corpus], list[Corpus], dict[str, Any]]:
        learned = [] if streaming else _encoded(texts, train)
        return learned, _encoded(texts, validation), texts.skipped.to_json()

    learned, held, left_out = ranks.from_first(encoded)
    if ranks.rank():
        texts.skipped.merge(left_out)
    if share:
        learned, held = corpus.hold_back(learned, share=share, seed=seed)
    return Lessons(
        train=learned,
        weights=[source.weight for source in train.values()],
        blocks=texts.blocks(list(train.values()), size=block, seed=seed) if streaming else None,
        validation=held,
        skipped=texts.skipped,
        encoder=texts.encoder,
        say=texts.say,
    )


def _encoded(texts: Texts, sources: Mapping[str, Source]) -> list[Corpus]:
    return [texts.encoded(source, field) for field, source in sources.items()]

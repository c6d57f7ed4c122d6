"""What a run learns from and is measured on, read once for all processes of a team, and the steps made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
            return StreamSteps(**layout, blocks=self.blocks, journal=journal, max_steps=max_steps)
        return Loader(
            **layout,
            corpora=self.train,
            weights=self.weights,
            look_ahead=look_ahead,
            seed=seed,
            epochs=epochs,
            max_steps=max_steps,
        )

    def held(self, layout: Layout) -> Loader | None:
        """The validation data, once a document."""
        if not self.validation:
            return None
        once = {**layout, "accumulate": ranks.size()}
        return Loader(**once, corpora=self.validation, weights=[1.0] * len(self.validation), seed=0, epochs=1)


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
    )


def _encoded(texts: Texts, sources: Mapping[str, Source]) -> list[Corpus]:
    return [texts.encoded(source, field) for field, source in sources.items()]

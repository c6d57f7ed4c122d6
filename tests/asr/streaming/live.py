"""Sessions over real models, and the quickstart's clips to put through them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from runner.asr.ctc import Ctc
from runner.asr.pieces import Setup, Source
from runner.asr.score import Scorer
from runner.asr.streaming.partial import Final, Partial
from runner.asr.streaming.session import Session
from runner.asr.streaming.settings import Settings, settings
from runner.asr.words import Word
from runner.registry.resolve import resolve

QUICKSTART = Path(__file__).parents[3] / "specs" / "quickstart"
RATE = 16_000
Samples = NDArray[np.float32]


def engine(folder: Path, *, silence_db: float = -60.0) -> tuple[Ctc, Setup]:
    model = resolve(str(folder), folder=folder, allow_pickle=False, trust_remote_code=False, adapter=None)
    facts = model.facts
    source = Source(
        folder=str(folder),
        rate=facts["sample_rate"],
        stride=facts["stride_samples"],
        receptive=facts["receptive_samples"],
        waveform=model.family.features == "waveform",
        normalise=facts["do_normalize"],
        mask=facts["mask"],
    )
    setup = Setup(
        source=source,
        task="ctc",
        precision="fp32",
        device="cpu",
        threads=1,
        timestamps="word",
        silence_db=silence_db,
    )
    return Ctc(setup, dtype=torch.float32), setup


@cache
def quickstart() -> tuple[Ctc, Setup]:
    return engine(QUICKSTART / "model")


def how(setup: Setup, **changed: Any) -> Settings:
    asked: dict[str, Any] = {
        "chunk_s": 0.5,
        "left_s": 1.0,
        "lookahead_s": 0.5,
        "after_text_s": 1.2,
        "longest_s": 20.0,
        "refine": True,
    }
    source = setup.source
    return settings(**{**asked, **changed}, rate=source.rate, stride=source.stride, receptive=source.receptive)


def session(made: tuple[Ctc, Setup] | None = None, **changed: Any) -> Session:
    one, setup = made or quickstart()
    return Session(one, setup=setup, settings=how(setup, **changed))


@cache
def clip(name: str) -> Samples:
    samples, rate = soundfile.read(QUICKSTART / "clips" / name, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), rate, RATE).astype(np.float32)


def silent(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), np.float32)


def stream(one: Session, pieces: Sequence[Samples]) -> tuple[list[Word], list[Final]]:
    """All that ``one`` says of ``pieces``; holds each partial against what came before."""
    words: list[Word] = []
    finals: list[Final] = []
    for partial in partials(one, pieces):
        words += partial.committed
        finals += partial.finals
    assert [word for final in finals for word in final.committed] == words
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    return words, finals


def partials(one: Session, pieces: Sequence[Samples]) -> Iterator[Partial]:
    for piece in pieces:
        partial = one.feed(piece)
        assert all(word.end <= partial.heard for word in partial.committed)
        yield partial
    partial = one.finish()
    assert partial.tail == ""
    yield partial


def said(words: Sequence[Word]) -> str:
    return " ".join(word.word for word in words)


def errors(reference: str, hypothesis: str) -> float:
    scorer = Scorer()
    scorer.add(reference, hypothesis, key="")
    rate = scorer.result().rates[0].words.rate
    assert rate is not None
    return rate

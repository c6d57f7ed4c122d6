"""What a job learns from validation recordings before it transcribes: weights of the language model, calibration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runner.asr import calibration, ctc, sweep
from runner.asr.alphabet import Alphabet
from runner.asr.calibration import Fitted, fit
from runner.asr.collector import SILENCE, Collector
from runner.asr.decode import Decoded
from runner.asr.language.tune import Errors, Point, Tuned, best, tune
from runner.asr.normalise import accent_sensitive
from runner.asr.pieces import Setup
from runner.asr.recordings import Clip
from runner.asr.rows import Rows, RowsCollector
from runner.asr.score import Scorer
from runner.asr.sweep import Shape
from runner.asr.trust import Judge
from runner.context import Context, Table
from runner.schema.errors import JobError

Place = tuple[str, float | None, float | None]  # path, start and end of a clip

MOST_S = 600.0  # of the recordings that weights are tuned on: 29 points cost about as much as hearing them 10 times


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What came of it."""

    setup: Setup  # with it
    tuned: Tuned | None = None
    fitted: Fitted | None = None
    recordings: frozenset[Place] = frozenset()
    notes: tuple[str, ...] = ()  # for the report

    @property
    def tables(self) -> tuple[Table, ...]:
        """For the report."""
        return tuple(made.table() for made in (self.tuned, self.fitted) if made is not None)

    @property
    def metrics(self) -> dict[str, float]:
        """The weights that were chosen."""
        return {"alpha": self.tuned.alpha, "beta": self.tuned.beta} if self.tuned else {}


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One validation recording: its output (none: nothing can be heard), or the words that a sequence model made."""

    reference: str
    seconds: float
    rows: str | None = None
    words: tuple[Mapping[str, Any], ...] = ()


def learn(
    ctx: Context,
    setup: Setup,
    clips: Sequence[Clip],
    *,
    shape: Shape,
    model_type: str,
    alphabet: Alphabet | None,
    tunes: bool,
    calibrates: bool,
) -> Learned:
    """Hear the validation recordings and learn what is asked; ``alphabet`` is that of CTC models.

    Raises JobError (DataInvalid) when there are no texts, or too few words.
    """
    texts = [clip for clip in clips if clip.text]
    if not texts:
        raise JobError(
            f"none of the {len(clips)} recordings of data.validation has a text to learn from: add a text column",
            failure="DataInvalid",
        )
    apart = replace(ctx, checkpoints=ctx.checkpoints / "validation")
    apart.checkpoints.mkdir(exist_ok=True)
    plain = replace(setup, wording=None, calibration=None, timestamps="word")
    heard = _hear(apart, plain, texts, shape=shape, model_type=model_type, alphabet=alphabet)
    tuned = fitted = None
    if tunes and setup.wording is not None and alphabet is not None:
        tuned = _tuned(apart, setup, heard, alphabet)
        setup = replace(setup, wording=replace(setup.wording, alpha=tuned.alpha, beta=tuned.beta))
    if calibrates:
        fitted = fit(_judged(apart, setup, heard, alphabet).result())
        setup = replace(setup, calibration=fitted.calibration)
    notes = [] if len(heard) == len(texts) else [f"{len(texts) - len(heard)} validation recordings could not be heard"]
    if fitted is not None:
        notes.append(calibration.said(f"on {fitted.words} words of {fitted.recordings} validation recordings"))
    places = frozenset((clip.path, clip.start, clip.end) for clip in texts)
    return Learned(setup=setup, tuned=tuned, fitted=fitted, recordings=places, notes=tuple(notes))


def _hear(
    ctx: Context, setup: Setup, clips: list[Clip], *, shape: Shape, model_type: str, alphabet: Alphabet | None
) -> list[Heard]:
    """Those that could be heard, in order; with the output of CTC models, with the words of others."""
    wanted = sweep.prepare(ctx, setup, clips, shape=shape, model_type=model_type)
    spool, rows = wanted.spool(ctx), ctx.checkpoints / "rows"
    try:
        if alphabet is None:
            sweep.hear(ctx, wanted, spool, Collector(spool, wanted.layout, wanted.found, setup))
        else:
            collector = RowsCollector(spool, wanted.layout, wanted.found, rows)
            sweep.hear(ctx, wanted, spool, collector, engine=Rows)
        found = []
        for item, recording in enumerate(wanted.found):
            record, _ = spool.read(item)
            path = rows / f"{item}.npy"
            if record["status"] in {"ok", "empty"}:
                found.append(
                    Heard(
                        reference=recording.clip.text or "",
                        seconds=recording.samples / setup.source.rate,
                        rows=str(path) if path.exists() else None,
                        words=tuple(record.get("words", ())),
                    )
                )
    finally:
        spool.close()
    return found


def _tuned(ctx: Context, setup: Setup, heard: Sequence[Heard], alphabet: Alphabet) -> Tuned:
    kept = ctx.checkpoints / "tried.json"
    chosen = _evenly(heard, most_s=MOST_S)
    wording = setup.wording
    assert wording is not None, "there is nothing to tune"

    def evaluate(points: Sequence[Point], **changed: Any) -> dict[Point, Errors]:
        make = partial(Trial, replace(setup, timestamps="none", **changed), alphabet)
        sums = np.zeros((len(points), 2), dtype=np.int64)
        for done, (_, errors) in enumerate(ctx.pool.imap(make, ((one, tuple(points)) for one in chosen)), start=1):
            sums += errors
            ctx.progress(done, len(chosen), "validation recordings decoded")
            ctx.check()
        pairs = zip(points, sums.tolist(), strict=True)
        return {point: Errors(words=words, characters=characters) for point, (words, characters) in pairs}

    if kept.exists():  # of an earlier attempt
        tried = {(row[0], row[1]): Errors(**row[2]) for row in json.loads(kept.read_text(encoding="utf-8"))}
    else:
        tried = tune(evaluate, given=(wording.alpha, wording.beta))
        kept.with_suffix(".new").write_text(json.dumps([[*point, asdict(e)] for point, e in tried.items()]), "utf-8")
        kept.with_suffix(".new").replace(kept)
    alpha, beta = best(tried)
    return Tuned(
        alpha=alpha,
        beta=beta,
        greedy=evaluate([(0.0, 0.0)], beam_size=1, wording=None)[0.0, 0.0],
        tried=tried,
        recordings=len(chosen),
        references=sum(len(accent_sensitive(one.reference).split()) for one in chosen),
        audio_s=sum(one.seconds for one in chosen),
    )


def _judged(ctx: Context, setup: Setup, heard: Sequence[Heard], alphabet: Alphabet | None) -> Judge:
    """Every word as it will be decoded, with the model's own confidence."""
    judge = Judge()
    if alphabet is None:
        for one in heard:
            judge.add(one.words, one.reference)
        return judge
    make = partial(Reader, replace(setup, timestamps="word", calibration=None), alphabet)
    found: dict[int, list[dict[str, Any]]] = {}
    for at, words in ctx.pool.imap(make, heard):
        found[at] = words
        ctx.progress(len(found), len(heard), "validation recordings read")
        ctx.check()
    for at, one in enumerate(heard):
        judge.add(found[at], one.reference)
    return judge


class Reader:
    """A pool's worker: from a recording's output to its words."""

    def __init__(self, setup: Setup, alphabet: Alphabet) -> None:
        self._setup, self._alphabet = setup, alphabet

    def __call__(self, item: Heard) -> list[dict[str, Any]]:
        words = _read(item, self._setup, self._alphabet).words
        return [{"word": word.word, "confidence": word.confidence} for word in words]


class Trial:
    """A pool's worker: wrong words and characters of one recording with each pair of weights. Shape [points, 2]."""

    def __init__(self, setup: Setup, alphabet: Alphabet) -> None:
        self._setup, self._alphabet = setup, alphabet

    def __call__(self, item: tuple[Heard, tuple[Point, ...]]) -> NDArray[np.int64]:
        one, points = item
        found = np.zeros((len(points), 2), dtype=np.int64)
        for at, (alpha, beta) in enumerate(points):
            wording = self._setup.wording
            weighed = None if wording is None else replace(wording, alpha=alpha, beta=beta)
            text = _read(one, replace(self._setup, wording=weighed), self._alphabet).text
            score = Scorer().add(one.reference, text, key="")
            found[at] = score.words.errors, score.characters.errors
        return found


def _read(one: Heard, setup: Setup, alphabet: Alphabet) -> Decoded:
    if one.rows is None:
        return SILENCE
    rows = np.load(one.rows)
    return ctc.text_of(rows, setup=setup, alphabet=alphabet, first=0, last=len(rows) * setup.source.stride)


def _evenly(heard: Sequence[Heard], *, most_s: float) -> list[Heard]:
    """All of them, or as many as fit into ``most_s`` seconds, spread over the whole; at least the shortest."""
    total = sum(one.seconds for one in heard)
    if total <= most_s:
        return list(heard)
    every = total / most_s
    picked: list[Heard] = []
    left = most_s
    for at in (int(step * every) for step in range(int(len(heard) / every) + 1)):
        if at < len(heard) and heard[at].seconds <= left:
            picked.append(heard[at])
            left -= heard[at].seconds
    return picked or [min(heard, key=lambda one: one.seconds)]

"""Calibrated confidence: of the words with 0.8, eight in ten are right.

Two shapes are fitted to words of a validation set, of which is known whether they are right:

- `temperature`: sigmoid(logit(c) / temperature + offset), two numbers. Platt 1999; Guo et al. 2017 (arXiv 1706.04599).
- `isotonic`: a rising line through the shares that pooling adjacent violators finds. Zadrozny and Elkan 2002.

The one whose negative log likelihood is lower on recordings that it was not fitted to is taken. Both rise with the
model's own confidence, so they change what a value means and hardly which word is trusted more.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runner.asr.trust import Judged, area_under_roc, calibration_error
from runner.context import Table
from runner.schema.errors import JobError

Floats = NDArray[np.float64]
Method = Literal["temperature", "isotonic"]
METHODS: tuple[Method, ...] = ("temperature", "isotonic")  # the simpler one first: it wins a draw
FOLDS = 5
LEAST_WORDS = 50  # fewer tell nothing about how often a word is right
NEAR = 1e-6  # confidences of 0 and 1 have no logit
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """From the model's own confidence to the share of words that are right. Hashable, picklable."""

    method: Method
    temperature: float = 1.0  # 0 stands for a confidence that says nothing: the offset alone counts
    offset: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()  # isotonic: (own confidence, share right), rising

    def apply(self, own: Floats) -> Floats:
        """Calibrated confidence, in [0, 1]; the same shape."""
        if self.method == "isotonic":
            x, y = np.array(self.knots).T
            between: Floats = np.interp(own, x, y)
            return between
        slope = 1 / self.temperature if self.temperature else 0.0
        return _sigmoid(_logit(own) * slope + self.offset)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A calibration, and what it was worth on recordings that it had not seen."""

    calibration: Calibration
    words: int
    wrong: int
    recordings: int
    folds: int
    nll: Mapping[Method, float]  # natural log, a word, on the folds left out
    ece_before: float
    ece: float  # on the folds left out
    auroc: float | None  # of the model's own confidence, for wrong words; None when all or none are

    def table(self) -> Table:
        """For the report."""
        rows: list[tuple[Any, ...]] = [
            ("expected calibration error, the model's own confidence", self.ece_before),
            (f"expected calibration error, {self.calibration.method}, recordings left out of the fit", self.ece),
            ("area under ROC for wrong words, the model's own confidence", self.auroc),
            *((f"negative log likelihood of a word, {method}, left out", value) for method, value in self.nll.items()),
        ]
        note = f"{self.words} words of {self.recordings} validation recordings, {self.wrong} of them wrong"
        return Table(title="Calibration", columns=("what", "value"), rows=rows, note=f"{note}; {self.folds} folds")

    def to_json(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """The file `calibration.json`; ``about`` says what it belongs to."""
        made = self.calibration
        shape: dict[str, Any] = {"temperature": made.temperature, "offset": made.offset}
        if made.method == "isotonic":
            shape = {"knots": [list(knot) for knot in made.knots]}
        return {
            "schema_version": VERSION,
            "method": made.method,
            **shape,
            "validation": {
                "recordings": self.recordings,
                "words": self.words,
                "wrong": self.wrong,
                "folds": self.folds,
                "nll": {name: round(value, 6) for name, value in self.nll.items()},
                "ece_before": round(self.ece_before, 6),
                "ece": round(self.ece, 6),
                "auroc": None if self.auroc is None else round(self.auroc, 6),
            },
            **about,
        }


def fit(judged: Judged) -> Fitted:
    """The better calibration of the two. Raises JobError (DataInvalid) when there are too few words to tell."""
    recordings = len(np.unique(judged.recording))
    if len(judged.right) < LEAST_WORDS or recordings < 2:
        raise JobError(
            f"the validation data gave {len(judged.right)} words of {recordings} recordings to calibrate confidence "
            f"on: give at least {LEAST_WORDS} words of two",
            failure="DataInvalid",
        )
    folds = min(FOLDS, recordings)
    _, number = np.unique(judged.recording, return_inverse=True)
    unseen = {method: _unseen(judged, number % folds, method) for method in METHODS}
    nll = {method: _nll(values, judged.right) for method, values in unseen.items()}
    best = min(METHODS, key=lambda method: nll[method])
    return Fitted(
        calibration=_fitted(judged.own, judged.right, best),
        words=len(judged.right),
        wrong=int((~judged.right).sum()),
        recordings=recordings,
        folds=folds,
        nll=nll,
        ece_before=calibration_error(judged.own, judged.right),
        ece=calibration_error(unseen[best], judged.right),
        auroc=area_under_roc(judged.own, judged.right),
    )


def load(path: Path) -> tuple[Calibration, dict[str, Any]]:
    """A calibration file, and all that it says. Raises JobError (DataInvalid)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] != VERSION:
            raise ValueError(f"schema_version is {content['schema_version']!r}, this runner reads {VERSION}")
        return _checked(content), content
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise JobError(
            f"{path.name} is no calibration: {reason}; make one with confidence.calibrate", failure="DataInvalid"
        ) from error


def said(how: str) -> str:
    """What the report says of calibrated confidence."""
    return f"confidence is calibrated {how}: of the words with 0.8 eight in ten are right, on speech like that"


def note(content: Mapping[str, Any], name: str, *, here: Mapping[str, Any]) -> str:
    """The same of a file, and whether it was made as ``here``: with this model, and decoding as here."""
    other = [key for key in here if content.get(key) != here[key]]
    if not other:
        return said(f"by {name}")
    return f"{said(f'by {name}')}; but it was made with other {' and '.join(other)}: calibrate again to rely on it"


def _checked(content: Mapping[str, Any]) -> Calibration:
    if content["method"] == "temperature":
        temperature, offset = float(content["temperature"]), float(content["offset"])
        if not (0 <= temperature < math.inf and math.isfinite(offset)):
            raise ValueError(f"temperature is {temperature} and offset {offset}")
        return Calibration(method="temperature", temperature=temperature, offset=offset)
    if content["method"] != "isotonic":
        raise ValueError(f"method is {content['method']!r}, not {' or '.join(METHODS)}")
    knots = np.array(content["knots"], dtype=np.float64)
    if knots.ndim != 2 or knots.shape[1] != 2 or not ((knots >= 0) & (knots <= 1)).all():
        raise ValueError("knots are pairs of numbers between 0 and 1")
    if (np.diff(knots, axis=0) < 0).any():
        raise ValueError("knots must rise")
    return Calibration(method="isotonic", knots=_pairs(knots))


def _unseen(judged: Judged, fold: NDArray[np.intp], method: Method) -> Floats:
    """Calibrated confidence of every word by a fit to the recordings of the other folds."""
    values = np.empty(len(judged.own))
    for number in range(int(fold.max()) + 1):
        out = fold == number
        values[out] = _fitted(judged.own[~out], judged.right[~out], method).apply(judged.own[out])
    return values


def _fitted(own: Floats, right: NDArray[np.bool_], method: Method) -> Calibration:
    return _temperature(own, right) if method == "temperature" else _isotonic(own, right)


def _temperature(own: Floats, right: NDArray[np.bool_]) -> Calibration:
    """Newton's method on slope and offset, with Platt's targets, which keep off 0 and 1."""
    hits = int(right.sum())
    target = np.where(right, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2))
    x = np.stack((_logit(own), np.ones(len(own))), axis=1)
    free = np.array([True, True])
    weights = np.array([0.0, float(_logit(target.mean()))])
    while True:
        for _ in range(100):
            made = _sigmoid(x @ weights)
            slope = x[:, free].T @ (made - target)
            curve = (x[:, free].T * (made * (1 - made))) @ x[:, free] + 1e-6 * np.eye(int(free.sum()))
            step = np.linalg.solve(curve, slope)
            weights[free] -= np.clip(step, -2, 2)  # far from the minimum a whole step may lead further away
            if np.abs(step).max() < 1e-10:
                break
        if weights[0] >= 0:
            break
        weights[:], free[0] = (0.0, weights[1]), False  # surer words are not righter: only the share counts
    temperature = 0.0 if weights[0] < NEAR else 1 / weights[0]
    return Calibration(method="temperature", temperature=round(temperature, 6), offset=round(float(weights[1]), 6))


def _isotonic(own: Floats, right: NDArray[np.bool_]) -> Calibration:
    """Pool adjacent violators; the line goes through the middles of the pools."""
    values, which = np.unique(own, return_inverse=True)
    pools: list[list[float]] = []  # words, right ones, sum of their own confidence
    words, hits = np.bincount(which), np.bincount(which, weights=right)
    for value, count, hit in zip(values.tolist(), words.tolist(), hits.tolist(), strict=True):
        pools.append([count, hit, count * value])
        while len(pools) > 1 and pools[-2][1] * pools[-1][0] >= pools[-1][1] * pools[-2][0]:
            last = pools.pop()
            pools[-1] = [a + b for a, b in zip(pools[-1], last, strict=True)]
    least = 1 / (len(own) + 2)  # nothing is certain
    knots = [(own_sum / count, min(max(hit / count, least), 1 - least)) for count, hit, own_sum in pools]
    return Calibration(method="isotonic", knots=_pairs(np.round(np.array(knots), 6)))


def _pairs(knots: Floats) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), float(y)) for x, y in knots)


def _nll(values: Floats, right: NDArray[np.bool_]) -> float:
    return float(-np.log(np.where(right, values, 1 - values).clip(min=NEAR)).mean())


def _logit(values: Any) -> Floats:
    inside = np.clip(values, NEAR, 1 - NEAR)
    found: Floats = np.log(inside / (1 - inside))
    return found


def _sigmoid(values: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    return found

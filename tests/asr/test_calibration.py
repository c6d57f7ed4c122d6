"""Calibrated confidence: what it learns, what it is worth, and what its file holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runner.asr.calibration import Calibration, fit, load
from runner.asr.decode import decode
from runner.asr.trust import Judge, Judged, area_under_roc, bins, calibration_error, judge, trust
from runner.schema.errors import JobError
from tests.asr.signals import ALPHABET, spoken


def words(seed: int, count: int = 4000, *, shape: str = "sigmoid") -> Judged:
    """Overconfident words: a model says 0.8 to 1, fewer are right."""
    random = np.random.default_rng(seed)
    own = 0.8 + 0.2 * random.random(count) ** 0.5
    share = truth(own) if shape == "sigmoid" else np.where(own < 0.9, 0.3, np.where(own < 0.97, 0.6, 0.98))
    return Judged(own=own, right=random.random(count) < share, recording=np.arange(count) // 8)


def truth(own: NDArray[np.float64]) -> NDArray[np.float64]:
    logit = np.log(own.clip(1e-6, 1 - 1e-6) / (1 - own.clip(1e-6, 1 - 1e-6)))
    return np.asarray(1 / (1 + np.exp(-(logit / 1.6 - 1.2))))


def test_temperature_and_offset_are_found_again() -> None:
    fitted = fit(words(0))
    assert fitted.calibration.method == "temperature"
    assert fitted.calibration.temperature == pytest.approx(1.6, rel=0.15)
    assert fitted.calibration.offset == pytest.approx(-1.2, abs=0.3)
    unseen = words(1)
    assert calibration_error(fitted.calibration.apply(unseen.own), unseen.right) < 0.03
    assert calibration_error(unseen.own, unseen.right) > 0.15
    assert fitted.ece < 0.03
    assert fitted.ece_before > 0.15


def test_the_error_reported_is_that_of_recordings_left_out() -> None:
    random = np.random.default_rng(0)
    recording = np.repeat(np.arange(10), 6)
    own, share = random.uniform(0.3, 1, 60), np.where(recording % 2, 0.9, 0.2)
    judged = Judged(own=own, right=random.random(60) < share, recording=recording)
    fitted = fit(judged)
    assert fitted.ece > 5 * calibration_error(fitted.calibration.apply(judged.own), judged.right)


def test_isotonic_is_taken_where_the_curve_has_steps() -> None:
    fitted = fit(words(0, shape="steps"))
    assert fitted.calibration.method == "isotonic"
    assert fitted.nll["isotonic"] < fitted.nll["temperature"]
    knots = np.array(fitted.calibration.knots)
    assert (np.diff(knots, axis=0) >= 0).all()
    assert fitted.calibration.apply(np.array([0.85, 0.94, 0.99])) == pytest.approx([0.3, 0.6, 0.98], abs=0.06)


@pytest.mark.parametrize("shape", ["sigmoid", "steps"])
def test_order_is_kept(shape: str) -> None:
    made = fit(words(3, shape=shape)).calibration
    values = made.apply(np.linspace(0, 1, 1001))
    assert (np.diff(values) >= 0).all()
    assert ((values >= 0) & (values <= 1)).all()


def test_few_or_perfect_words_do_not_make_certainty() -> None:
    own = np.linspace(0.9, 1.0, 60)
    recording = np.arange(60) // 6
    perfect = fit(Judged(own=own, right=np.ones(60, bool), recording=recording))
    assert perfect.auroc is None
    assert (perfect.calibration.apply(own) < 1).all()
    assert perfect.calibration.apply(own).mean() == pytest.approx(0.98, abs=0.02)
    upside_down = fit(Judged(own=own, right=np.arange(60) < 30, recording=np.arange(60) % 10))
    assert upside_down.auroc == 0.0
    assert np.ptp(upside_down.calibration.apply(own)) < 0.05, "surer words that are wrong are not trusted more"


def test_too_few_words_are_refused() -> None:
    with pytest.raises(JobError, match="gave 20 words of 3 recordings") as caught:
        fit(words(0, 20))
    assert caught.value.failure == "DataInvalid"
    alone = words(0, 100)
    with pytest.raises(JobError, match="of 1 recordings"):
        fit(Judged(own=alone.own, right=alone.right, recording=np.zeros(100, dtype=np.int64)))


@pytest.mark.parametrize("shape", ["sigmoid", "steps"])
def test_a_file_says_what_was_fitted(tmp_path: Path, shape: str) -> None:
    fitted = fit(words(0, shape=shape))
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(fitted.to_json({"model": "m"})))
    read, content = load(path)
    assert read == fitted.calibration
    assert (content["model"], content["validation"]["words"], content["validation"]["folds"]) == ("m", 4000, 5)
    assert content["validation"]["wrong"] == int((~words(0, shape=shape).right).sum())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ('{"schema_version": 1, "method": "temperature", "temperature": 1' + "0" * 400 + ', "offset": 0}', "too large"),
        ("[]", "is no calibration"),
        ('{"method": "temperature"}', "it has no 'schema_version'"),
        ('{"schema_version": 9}', "schema_version is 9"),
        ('{"schema_version": 1, "method": "magic"}', "method is 'magic'"),
        ('{"schema_version": 1, "method": "temperature", "temperature": -1, "offset": 0}', "temperature is -1"),
        ('{"schema_version": 1, "method": "temperature", "temperature": NaN, "offset": 0}', "temperature is nan"),
        ('{"schema_version": 1, "method": "isotonic", "knots": []}', "knots are pairs"),
        ('{"schema_version": 1, "method": "isotonic", "knots": [[0.1, 2]]}', "between 0 and 1"),
        ('{"schema_version": 1, "method": "isotonic", "knots": [[0.2, 0.1], [0.1, 0.2]]}', "knots must rise"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(JobError, match=r"mine\.json") as caught:
        load(path)
    assert said in str(caught.value)


def test_decoding_gives_calibrated_words() -> None:
    output = spoken("a_b|l", share=0.9)
    made = Calibration(method="temperature", temperature=2.0, offset=-1.0)
    plain = decode(output, alphabet=ALPHABET, frame_s=0.02)
    found = decode(output, alphabet=ALPHABET, frame_s=0.02, calibration=made)
    own = np.array([word.confidence for word in plain.words])
    assert [word.confidence for word in found.words] == pytest.approx(made.apply(own), abs=1e-3)
    assert found.confidence == pytest.approx(
        np.average([word.confidence for word in found.words], weights=[3, 1]), abs=1e-3
    )


@pytest.mark.parametrize(
    ("heard", "said", "right"),
    [
        ("o gato viu", "o gato viu", [True, True, True]),
        ("o pato viu", "o gato viu", [True, False, True]),
        ("o gato mia viu", "o gato viu", [True, True, False, True]),
        ("viu", "o gato viu", [True]),
        ("O, Gato!", "o gato", [True, True]),
        ("o / gato", "o gato", [True, None, True]),
        ("1/2 gato", "1 3 gato", [False, True]),
        ("o gato", "", [False, False]),
        ("", "o gato", []),
    ],
)
def test_words_are_judged_by_the_reference(heard: str, said: str, right: list[bool | None]) -> None:
    assert judge(heard.split(), said) == right


def test_a_judge_keeps_which_recording_a_word_is_of() -> None:
    found = Judge()
    found.add([{"word": "a", "confidence": 0.5}, {"word": "-", "confidence": 0.1}], "a")
    found.add([], "b")
    found.add([{"word": "c", "confidence": 0.25}], "d")
    judged = found.result()
    assert (judged.own.tolist(), judged.right.tolist(), judged.recording.tolist()) == (
        [0.5, 0.25],
        [True, False],
        [0, 2],
    )


def test_errors_of_calibration_and_area_by_hand() -> None:
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55, 1.0])
    right = np.array([True, True, True, False, True, False, True])
    assert [(b.words, b.right) for b in bins(confidence, right)] == [(2, 0.5), (5, 0.8)]
    assert calibration_error(confidence, right) == pytest.approx((2 * 0.05 + 5 * abs(4.8 / 5 - 0.8)) / 7)
    pairs = [0.5 if a == b else float(a < b) for a in confidence[~right] for b in confidence[right]]
    assert area_under_roc(confidence, right) == pytest.approx(np.mean(pairs))
    assert area_under_roc(confidence[right], right[right]) is None
    empty = trust(Judge().result())
    assert (empty.words, empty.ece, empty.auroc, empty.bins) == (0, None, None, ())

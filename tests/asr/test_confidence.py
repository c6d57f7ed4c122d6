"""Confidence is one minus the normalised entropy, averaged over a word's frames."""

from __future__ import annotations

import numpy as np
import pytest

from runner.asr import confidence
from runner.asr.decode import decode
from tests.asr.signals import ALPHABET, SYMBOLS, noise, spoken


def test_a_sure_frame_is_1_and_a_flat_one_0() -> None:
    with np.errstate(divide="ignore"):
        output = np.log(np.array([[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]])).astype(np.float32)
    assert confidence.certainty(output) == pytest.approx([1.0, 0.0, 0.5], abs=1e-6)


def test_blocks_do_not_show() -> None:
    output = noise(1, frames=2 * confidence.BLOCK + 3, vocab=5)
    assert confidence.certainty(output)[-7:] == pytest.approx(confidence.certainty(output[-7:]), abs=1e-12)


def test_a_word_is_the_mean_over_its_frames_blanks_included() -> None:
    output = spoken("_a_b_|l")
    output[2] = np.log(1 / len(SYMBOLS))  # between a and b the model knows nothing
    output[2, 0] += 1e-3  # still the blank
    sure = confidence.certainty(output)
    decoded = decode(output, alphabet=ALPHABET, frame_s=0.02)
    assert decoded.words[0].confidence == pytest.approx(sure[1:4].mean(), abs=1e-4)
    assert decoded.words[1].confidence == pytest.approx(sure[6], abs=1e-4)
    assert decoded.confidence == pytest.approx(np.append(sure[1:4], sure[6]).mean(), abs=1e-4)


def test_surer_output_has_more_confidence() -> None:
    shares = [0.3, 0.6, 0.9, 0.999]
    values = [decode(spoken("a_b|l", share=share), alphabet=ALPHABET, frame_s=0.02).confidence for share in shares]
    assert values == sorted(values)
    assert values[-1] > 0.99

"""The validation data as a model hears it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.asr.pieces import Source
from tests.asr import tiny
from tests.asr.training import small


def test_a_model_that_hears_padding_hears_each_clip_alone(tmp_path: Path) -> None:
    """Group norm runs over time, so zeros behind a short clip would change what is heard of it."""
    base = tiny.ctc(tmp_path / "base", "wav2vec2-group")
    start = Source(folder=str(base), rate=16000, stride=320, receptive=795, waveform=True, normalise=True, mask=False)
    learner = small.begin(start)
    clips = small.read(tmp_path, "validation", 2, seed=1)
    assert max(clips.lengths) > 2 * min(clips.lengths)
    both, *each = (
        learner.examiner(some, check=lambda: None).evaluate(learner.model, learner.spelling)
        for some in (clips, clips.without({1}), clips.without({0}))
    )
    assert both.hypotheses == tuple(text for one in each for text in one.hypotheses)
    assert both.loss == pytest.approx(sum(one.loss for one in each) / 2)

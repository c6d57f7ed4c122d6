"""Long speech through 2 s of sound: as few words wrong as offline, by the committed words and by the final texts.

Synthetic speech with a closed vocabulary; the voices and sentences are none of the training's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from runner.asr import windows
from runner.asr.ctc import text_of
from runner.asr.score import Scorer
from runner.asr.streaming.settings import Settings
from tests.asr.streaming.live import QUICKSTART, RATE, Samples, clip, quickstart, said, session, stream
from tests.quickstart.corpus import HELD_OUT_VOICES, TRAIN_CLIPS, render
from tests.quickstart.sentences import split

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

PIECE = RATE // 2
POINT = 0.01


def offline(sound: Samples) -> str:
    """In windows of 20 s, as the job has them."""
    one, setup = quickstart()
    source = setup.source
    cut = windows.cut(length_s=20, context_s=1, rate=RATE, stride=source.stride, receptive=source.receptive)
    rows = []
    for window in (cut.window(len(sound), i) for i in range(cut.count(len(sound)))):
        (made,) = one.compute([sound[window.first : window.last]])
        before = window.first // source.stride
        rows.append(made[window.keep_from - before : None if window.keep_to is None else window.keep_to - before])
    return text_of(np.concatenate(rows), setup=setup, alphabet=one.alphabet, first=0, last=len(sound)).text


def joined(gaps: Sequence[float], *, seed: int) -> tuple[Samples, str]:
    """Thirty held-out sentences, about a minute, each with one of ``gaps`` (seconds of silence) behind it."""
    _, sentences = split(train=TRAIN_CLIPS, held_out=300)
    spoken = render(sentences[100 + 30 * seed : 130 + 30 * seed], voices=HELD_OUT_VOICES, seed=50 + seed)
    random = np.random.default_rng(seed)
    parts = [(one.samples, np.zeros(round(random.choice(gaps) * RATE), np.float32)) for one in spoken]
    return np.concatenate([part for pair in parts for part in pair]), " ".join(one.text for one in spoken)


def long_clip() -> tuple[Samples, str]:
    rows = [json.loads(line) for line in (QUICKSTART / "clips.jsonl").read_text("utf-8").splitlines()]
    return clip("long-90s.opus"), next(row["text"] for row in rows if row["audio"].endswith("long-90s.opus"))


def is_small(how: Settings) -> bool:
    """What counts as buffer is all that a window holds: left context, chunk and look-ahead."""
    return how.buffer_s <= 2.0 and how.seconds(how.lookahead) <= 0.5


def check(sounds: Sequence[tuple[Samples, str]]) -> None:
    """Word error rates over all of ``sounds``: one of them is 175 words, where three more wrong ones are chance."""
    by_offline, by_commits, by_finals = Scorer(), Scorer(), Scorer()
    for sound, reference in sounds:
        one = session()
        assert is_small(one._how)
        words, finals = stream(one, np.split(sound, range(PIECE, len(sound), PIECE)))
        by_offline.add(reference, offline(sound), key="")
        by_commits.add(reference, said(words), key="")
        by_finals.add(reference, " ".join(final.final.text for final in finals), key="")
    scored = [scorer.result().rates[0].words for scorer in (by_offline, by_commits, by_finals)]
    rates = [one.rate for one in scored]
    print(
        f"{scored[0].counts.references} words; wrong offline, committed, final: "
        + ", ".join(f"{rate:.2%}" for rate in rates)
    )
    assert rates[1] <= rates[0] + POINT
    assert rates[2] <= rates[0] + POINT


def test_the_long_file_is_read_as_well_as_offline() -> None:
    check([long_clip()])


@pytest.mark.slow
@pytest.mark.parametrize("gaps", [(0.2,), (0.1, 0.2, 0.4, 0.8, 1.5, 2.0)], ids=["fluent", "with pauses"])
def test_joined_sentences_of_unheard_voices_are_read_as_well_as_offline(gaps: tuple[float, ...]) -> None:
    check([joined(gaps, seed=seed) for seed in range(4)])

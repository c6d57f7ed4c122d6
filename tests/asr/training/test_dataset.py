"""Clips as the model takes them: what stands in the labels of joined ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner.asr import features
from runner.asr.training import spelling
from runner.asr.training.buckets import Schedule
from runner.asr.training.dataset import Heard
from runner.asr.training.recipe import Augmentation
from tests.asr.training import small, tones


@pytest.mark.parametrize("join", [1, 3])
def test_where_clips_are_joined_each_ends_its_last_word(tmp_path: Path, join: int) -> None:
    corpus = small.read(tmp_path, "train", 8, seed=1)
    recipe = replace(small.RECIPE, augmentation=Augmentation(join=join))
    schedule = Schedule(corpus.lengths, rate=tones.RATE, recipe=recipe)
    written = spelling.built([tones.LETTERS], why="the letters")
    heard = Heard(corpus, schedule=schedule, spelling=written, features=features.waveform(normalise=True))
    for clip in range(len(corpus)):
        parts = [written.ids(corpus.utterances[part].text) for part in schedule.draws(0).parts(clip)]
        between = [written.between]
        expected = parts[0] if join == 1 else [one for part in parts for one in (*part, *between)]
        assert heard[0, clip].labels.tolist() == expected

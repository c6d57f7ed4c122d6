"""The worker with a tiny model: the same outcomes in any batch, windows that join, trouble that stays where it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from runner.asr import windows
from runner.asr.layout import Layout
from runner.asr.pieces import Answer, Outcome, Piece, Setup
from runner.asr.recordings import Recording, from_files, recordings
from runner.asr.transcriber import Transcriber
from tests.asr import tiny
from tests.asr.test_acoustic import source

SECONDS = (2.0, 0.7, 3.3, 0.5, 1.1, 2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("transcriber")
    tiny.ctc(root / "model", "wav2vec2")
    for number, seconds in enumerate(SECONDS):
        soundfile.write(root / f"{number}.wav", tiny.sound(seconds, seed=number), 16000)
    soundfile.write(root / "quiet.wav", 1e-4 * tiny.sound(2.0), 16000, subtype="FLOAT")
    soundfile.write(root / "gap.wav", np.concatenate([tiny.sound(1.0), np.zeros(16000), tiny.sound(1.0)]), 16000)
    (root / "bad.wav").write_bytes((root / "0.wav").read_bytes()[:100] + b"RIFF")
    return root


@pytest.fixture(scope="module")
def worker(folder: Path) -> Transcriber:
    return Transcriber(setup(folder))


def setup(folder: Path, **changes: Any) -> Setup:
    defaults: dict[str, Any] = {"precision": "auto", "device": "cpu", "threads": 1, "beam_size": 1}
    defaults |= {"timestamps": "word", "silence_db": -60.0, "language": None, "task": "ctc"}
    return Setup(source=source(folder / "model"), **(defaults | changes))


def pieces(folder: Path, names: Sequence[str], *, length_s: float = 20.0, context_s: float = 1.0) -> list[Piece]:
    model = source(folder / "model")
    shape = {"rate": model.rate, "receptive": model.receptive}
    listed: list[Recording] = list(
        recordings(list(from_files(names, folder=folder)), channels="mix", threads=1, **shape)
    )
    layout = Layout(listed, windows.cut(length_s=length_s, context_s=context_s, stride=model.stride, **shape))
    return [layout.piece(k) for k in range(len(layout.items))]


def texts(answer: Answer) -> dict[int, str]:
    return {outcome.item: said(outcome) for outcome in answer.outcomes}


def said(outcome: Outcome) -> str:
    assert outcome.decoded is not None, outcome
    return repr(outcome.decoded)  # words, times and confidence too


NAMES = [f"{number}.wav" for number in range(len(SECONDS))]


def test_batches_of_any_size_and_order_give_the_same(folder: Path, worker: Transcriber) -> None:
    all_ = pieces(folder, NAMES)
    alone = texts(worker([(piece,) for piece in all_]))
    assert len({text for text in alone.values() if "text=''" not in text}) == len(NAMES)
    for deal in _deals(all_):
        assert texts(worker(deal)) == alone


def _deals(all_: list[Piece]) -> Iterator[list[tuple[Piece, ...]]]:
    yield [tuple(all_)]
    yield [tuple(reversed(all_))]
    yield [tuple(all_[:2]), tuple(all_[2:3]), tuple(all_[3:])]
    yield [tuple(all_[i] for i in np.random.default_rng(0).permutation(len(all_)))]


def test_padded_and_useful_samples_are_counted(folder: Path, worker: Transcriber) -> None:
    answer = worker([tuple(pieces(folder, NAMES))])
    assert answer.padded == round(sum(SECONDS) * 16000), "a packed row has no padding"
    assert [outcome.samples for outcome in answer.outcomes] == [round(s * 16000) for s in SECONDS]


def test_kept_frames_of_windows_join_without_gap_or_overlap(folder: Path, worker: Transcriber) -> None:
    windows_ = pieces(folder, ["2.wav"], length_s=1.5, context_s=0.3)
    assert len(windows_) == 3
    rows = [outcome.rows for outcome in worker([tuple(windows_)]).outcomes]
    assert all(r is not None for r in rows)
    (whole,) = worker.engine.compute([tiny.sound(3.3, seed=2)])
    assert sum(len(r) for r in rows if r is not None) == len(whole)


def test_silence_has_no_letters(folder: Path, worker: Transcriber) -> None:
    (quiet,) = worker([tuple(pieces(folder, ["quiet.wav"]))]).outcomes
    assert quiet.decoded is None
    assert quiet.trouble is None
    assert quiet.timing.infer == 0.0, "silence went through the model"
    (gap,) = worker([tuple(pieces(folder, ["gap.wav"]))]).outcomes
    assert gap.decoded is not None
    assert len(gap.decoded.words) > 1
    for word in gap.decoded.words:
        assert word.end <= 1.24 or word.start >= 1.78, "a word in the middle of digital silence"


def test_a_window_of_silence_keeps_words_apart(folder: Path, worker: Transcriber) -> None:
    pause = np.concatenate([tiny.sound(1.5), np.zeros(5 * 16000), tiny.sound(1.5)])
    soundfile.write(folder / "pause.wav", pause, 16000)
    all_ = pieces(folder, ["pause.wav"], length_s=2.0, context_s=0.2)
    middle = worker([tuple(all_)]).outcomes[2]
    assert middle.timing.infer == 0.0
    assert middle.rows is not None
    assert middle.rows.argmax(axis=1).tolist() == [tiny.SYMBOLS.index("|")]


def test_the_floor_is_what_the_spec_says(folder: Path) -> None:
    (quiet,) = Transcriber(setup(folder, silence_db=-120.0))([tuple(pieces(folder, ["quiet.wav"]))]).outcomes
    assert quiet.decoded is not None
    assert quiet.decoded.text


def test_a_file_that_cannot_be_read_leaves_the_others_alone(folder: Path, worker: Transcriber) -> None:
    good = pieces(folder, NAMES)
    lost = folder / "lost.wav"
    soundfile.write(lost, tiny.sound(1.0), 16000)
    (gone,) = pieces(folder, ["lost.wav"])
    lost.unlink()
    answer = worker([(good[0], gone, good[1])])
    assert [o.trouble.status if o.trouble else "" for o in answer.outcomes] == ["", "decode_error", ""]
    assert texts(worker([(good[0],)])) == {0: said(answer.outcomes[0])}


def test_memory_that_runs_out_halves_the_batch_and_changes_nothing(folder: Path) -> None:
    worker = Transcriber(setup(folder))
    all_ = pieces(folder, NAMES)
    expected = texts(worker([tuple(all_)]))
    compute = worker.halving._compute

    def limited(found: Sequence[np.ndarray]) -> list[Any]:
        if max(map(len, found)) * len(found) > 130_000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(found)

    worker.halving._compute = limited
    answer = worker([tuple(all_), tuple(reversed(all_))])
    assert texts(answer) == expected
    assert answer.halvings == 2
    assert answer.most is not None
    assert answer.most <= 130_000 * 1.3
    assert worker([tuple(all_)]).halvings == 0, "the size that had failed was tried again"

"""Hidden states of every family as transformers gives them, pools in any size of block, vectors on disk."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, AutoModelForCTC

from runner.asr import features, mixed
from runner.asr.embed import pool as embed_pool
from runner.asr.embed.collector import DTYPES, Vectors
from runner.asr.embed.engine import Embedder, Pooler, Wanted
from runner.asr.embed.pool import Pooling, over_spans, part, pooled
from runner.asr.pieces import Setup, Source
from runner.asr.quantise import weights
from runner.asr.spool import Spool
from runner.asr.trouble import RecordingError
from tests.asr import tiny
from tests.asr.signals import ALPHABET
from tests.asr.test_acoustic import source
from tests.asr.variants.test_variants import TORCH, make, off

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

WANTED = Wanted(layers=(0, 1, 2), weights=None, pooling="none", words="heard", dtype="fp32")
SOUNDS = [tiny.sound(seconds, seed=i) for i, seconds in enumerate((1.3, 0.4, 2.1, 1.3))]


def setup(folder: Path, **changes: Any) -> Setup:
    defaults: dict[str, Any] = {"precision": "fp32", "device": "cpu", "threads": 1, "beam_size": 1}
    defaults |= {"timestamps": "word", "silence_db": -60.0, "language": None, "task": "ctc"}
    return Setup(source=source(folder), **(defaults | changes))


@pytest.fixture(scope="module", params=list(tiny.CTC))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.ctc(tmp_path_factory.mktemp(request.param) / "model", request.param)


def plainly(folder: Path, sound: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What enters the first layer, the first layer's output, and what the head reads, by transformers alone."""
    model = AutoModelForCTC.from_pretrained(folder).eval()
    name = model.main_input_name
    if model.config.model_type == "parakeet_ctc":  # its extractor needs librosa; ours is held against it elsewhere
        inputs = {name: features.extractor(str(folder), rate=16_000)(sound)[None]}
    else:
        inputs = AutoFeatureExtractor.from_pretrained(folder)(sound, sampling_rate=16_000, return_tensors="pt")
    base = getattr(model.base_model, "encoder", model.base_model)
    last: list[torch.Tensor] = []
    base.register_forward_hook(lambda _, args, output: last.append(output.last_hidden_state))
    with torch.inference_mode():
        states = model(**{name: inputs[name]}, output_hidden_states=True).hidden_states
    return [one[0].float().numpy() for one in (states[0], states[1], last[0])]


def test_layers_are_those_of_transformers(folder: Path) -> None:
    engine = Embedder(setup(folder), dtype=torch.float32, wanted=WANTED)
    for sound, rows in zip(SOUNDS, engine.compute(SOUNDS), strict=True):
        expected = np.concatenate(plainly(folder, sound), axis=1)
        frames = min(len(rows), len(expected))  # a mel front end pads by up to a frame
        assert abs(len(rows) - len(expected)) <= 1
        np.testing.assert_allclose(rows[:frames, :-1], expected[:frames], atol=2e-4)
        assert (rows[:, -1] == 1).all()


def test_no_batch_changes_a_bit(folder: Path) -> None:
    engine = Embedder(setup(folder), dtype=torch.float32, wanted=WANTED)
    together = engine.compute(SOUNDS)
    for sound, rows in zip(SOUNDS, together, strict=True):
        assert np.array_equal(engine.compute([sound])[0], rows)
    assert np.array_equal(together[0].shape, together[3].shape)


@pytest.mark.parametrize("name", ["wavlm", "wav2vec2-bert", "wav2vec2-group"])
def test_padded_batches_leave_no_padding(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on GPUs; the name of the device is all that differs."""
    folder = tiny.ctc(tmp_path / "model", name)
    alone = Embedder(setup(folder), dtype=torch.float32, wanted=WANTED).compute(SOUNDS)
    monkeypatch.setattr(mixed, "autocast", lambda device, dtype: nullcontext())
    engine = Embedder(setup(folder), dtype=torch.float32, wanted=WANTED)
    engine._acoustic.packed = None
    engine._acoustic.model = AutoModelForCTC.from_pretrained(folder).eval()
    engine._layers = type(engine._layers)(engine._acoustic.model, WANTED.layers)
    engine._acoustic.device = "cpu:0"
    for rows, expected in zip(engine.compute(SOUNDS), alone, strict=True):
        assert rows.shape == expected.shape
        np.testing.assert_allclose(rows, expected, atol=2e-4)


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm", "wav2vec2-bert"])
def test_quantised_models_have_the_same_layers(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "FEW", 64)  # these models are smaller than what is worth rounding
    folder = tiny.ctc(tmp_path / "model", family)
    made = make(source(folder), tmp_path, *TORCH)
    assert [one.status for one in made] == ["ok"] * len(TORCH)
    wanted = Embedder(setup(folder), dtype=torch.float32, wanted=WANTED).compute(SOUNDS)
    for name in TORCH:
        engine = Embedder(setup(tmp_path / "made" / name), dtype=torch.float32, wanted=WANTED)
        together = engine.compute(SOUNDS)
        assert off(together, wanted) < 0.15, name
        assert np.array_equal(engine.compute(SOUNDS[:1])[0], together[0])


def test_a_weighted_sum_is_the_sum_of_layers(tmp_path: Path) -> None:
    folder = tiny.ctc(tmp_path / "model", "wav2vec2")
    (parts,) = Embedder(setup(folder), dtype=torch.float32, wanted=WANTED).compute(SOUNDS[:1])
    shares = (0.5, -1.0, 2.0)
    engine = Embedder(setup(folder), dtype=torch.float32, wanted=replace(WANTED, weights=shares))
    (rows,) = engine.compute(SOUNDS[:1])
    expected = sum(w * parts[:, 32 * i : 32 * (i + 1)] for i, w in enumerate(shares))
    np.testing.assert_allclose(rows[:, :-1], expected, atol=1e-5)


def test_a_forward_that_failed_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.ctc(tmp_path / "model", "wav2vec2")
    engine = Embedder(setup(folder), dtype=torch.float32, wanted=WANTED)
    expected = engine.compute(SOUNDS)
    log_probs = engine._acoustic.log_probs

    def failing(windows: Any) -> Any:
        log_probs(windows)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine._acoustic, "log_probs", failing)
    with pytest.raises(torch.OutOfMemoryError):
        engine.compute(SOUNDS)
    monkeypatch.setattr(engine._acoustic, "log_probs", log_probs)
    assert all(np.array_equal(a, b) for a, b in zip(engine.compute(SOUNDS), expected, strict=True))


def reference(frames: NDArray[np.float64], heard: NDArray[np.bool_], pooling: Pooling) -> NDArray[np.float64]:
    spoken = frames[heard]
    each = {"mean": spoken.mean(axis=0), "std": spoken.std(axis=0), "max": spoken.max(axis=0)}
    return np.concatenate([each[name] for name in pooling.split("_")])[None]


@given(st.integers(1, 60), st.integers(0, 2**32 - 1), st.integers(1, 70), st.lists(st.integers(0, 60), max_size=5))
def test_pools_are_of_what_is_heard_in_any_windows_and_blocks(
    count: int, seed: int, block: int, cuts: list[int]
) -> None:
    random = np.random.default_rng(seed)
    frames = (100 * random.normal(size=(count, 5)) + 1000 * random.normal(size=5)).astype(np.float32)
    heard = random.random(count) < random.choice([0.1, 0.7])
    heard[random.integers(count)] = True
    edges = [0, *sorted(min(cut, count) for cut in cuts), count]  # windows may be empty
    windows = [slice(*pair) for pair in itertools.pairwise(edges)]
    poolings: list[Pooling] = ["mean", "std", "max", "mean_std"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed_pool, "BLOCK", block)
        for pooling in poolings:
            parts = np.stack([part(frames[window], heard[window], pooling) for window in windows])
            expected = reference(frames.astype(np.float64), heard, pooling)
            np.testing.assert_allclose(pooled(parts, pooling), expected, rtol=1e-9, atol=1e-9)


def test_spans_are_means_of_their_frames() -> None:
    frames = np.arange(12.0).reshape(6, 2)
    np.testing.assert_array_equal(over_spans(frames, [(0, 1), (2, 5)]), [[0, 1], [6, 7]])


def pooler(**changes: Any) -> Pooler:
    place = Source(folder="", rate=16_000, stride=320, receptive=400, waveform=True, normalise=True, mask=True)
    silent = {"precision": "fp32", "device": "cpu", "threads": 1, "beam_size": 1, "timestamps": "word"}
    loud = Setup(source=place, task="ctc", silence_db=-60.0, language=None, **silent)  # type: ignore[arg-type]
    return Pooler(loud, replace(WANTED, **changes), ALPHABET)


def test_what_fp16_cannot_hold_becomes_its_largest_number() -> None:
    rows = np.array([[1e6, -7e4, 0.1, 1], [0, 0, 0, 0]], np.float32)
    for dtype, most, least in (("fp16", 65504, -65504), ("fp32", 1e6, -7e4)):
        frames = pooler(dtype=dtype)
        made = frames.made(rows, None, first=0, samples=640)
        assert made is not None
        assert made.frames == 1
        (block,) = made.vectors
        assert block.dtype == DTYPES[dtype]
        np.testing.assert_array_equal(block[:, :2], [[most, least], [0, 0]])
        mean = pooler(dtype=dtype, pooling="mean")
        merged = mean.merged(mean.part(rows)[None])
        assert merged is not None
        np.testing.assert_array_equal(next(iter(merged.vectors))[:, :2], [[most, least]])


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("pooling", ["none", "mean", "std", "mean_std", "max"])
def test_states_that_are_no_numbers_are_the_recording_s_trouble(pooling: Pooling, wrong: float) -> None:
    rows = np.array([[1, 2, 1], [wrong, 2, 1], [3, 4, 1]], np.float32)
    found = pooler(pooling=pooling)
    with (
        pytest.raises(RecordingError, match="NaN or infinity; try precision: fp32") as error,
        np.errstate(all="ignore"),
    ):
        made = found.merged(found.part(rows)[None]) if found.in_parts else found.made(rows, None, first=0, samples=960)
        assert made is None or not list(made.vectors)
    assert (error.value.status, error.value.name) == ("failed", "NaN")


def test_what_nobody_can_hear_has_no_vector() -> None:
    rows = np.zeros((3, 4), np.float32)
    mean = pooler(pooling="mean")
    assert mean.merged(np.stack([mean.part(rows)] * 2)) is None
    assert pooler().made(rows, None, first=0, samples=960) is None


def test_vectors_survive_and_what_nobody_names_is_passed_over(tmp_path: Path) -> None:
    def blocks() -> Iterator[NDArray[np.floating]]:
        yield np.array([[1.0, 2.0]])
        yield np.array([[3.0, 4.0], [5.0, 65504.0]])

    spool = Spool(tmp_path, items=2, plan="p")
    vectors = Vectors(tmp_path, spool, np.dtype(np.float16))
    lost = vectors.put([np.ones((1, 7))])
    place = vectors.put(blocks())
    assert (place["rows"], place["width"], place["at"]) == (3, 2, lost["at"] + 14)
    spool.finish(0, {"status": "ok", "vectors": place}, {})
    spool.close()
    vectors.close()
    spool = Spool(tmp_path, items=2, plan="p")
    vectors = Vectors(tmp_path, spool, np.dtype(np.float16))
    assert vectors.put([np.ones((1, 2))])["at"] == place["at"] + 12
    found = vectors.get(spool.read(0)[0]["vectors"])
    np.testing.assert_array_equal(found, [[1, 2], [3, 4], [5, 65504]])
    spool.close()
    vectors.close()


def test_vectors_cut_short_by_a_full_disk_are_told(tmp_path: Path) -> None:
    """A limit on file sizes stands for the disk: the system takes the first part of a write and says so by a count."""
    spool = Spool(tmp_path, items=1, plan="one")
    vectors = Vectors(tmp_path, spool, np.dtype(np.float32))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            vectors.put([np.ones((10, 4), np.float32)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    place = vectors.put([np.full((2, 4), 7, np.float32)])
    assert place["at"] >= 160  # the rest of what was refused comes first
    np.testing.assert_array_equal(vectors.get(place), np.full((2, 4), 7, np.float32))
    spool.close()
    vectors.close()

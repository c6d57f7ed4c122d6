"""Every CTC family against transformers' own forward, alone and in batches."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoFeatureExtractor, AutoModelForCTC, Wav2Vec2Config, Wav2Vec2Model

from runner.asr import features, packed
from runner.asr.acoustic import Acoustic
from runner.asr.pieces import Source
from runner.registry.resolve import resolve
from runner.schema.errors import JobError
from tests.asr import parakeet_golden, tiny

LENGTHS = (1.3, 0.4, 2.2, 0.41, 3.1)  # seconds
TOLERANCE = 2e-4  # of log-probabilities whose scale is about 10


def source(folder: Path, **changes: Any) -> Source:
    """What the job would make of the folder."""
    found = resolve(str(folder), folder=folder)
    facts = found.facts
    return Source(
        folder=str(folder),
        rate=facts["sample_rate"],
        stride=facts["stride_samples"],
        receptive=facts["receptive_samples"],
        waveform=found.family.features == "waveform",
        normalise=facts["do_normalize"],
        mask=facts["mask"],
        **changes,
    )


@pytest.fixture(scope="module", params=sorted(tiny.CTC))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.ctc(tmp_path_factory.mktemp(name), name)


@pytest.fixture(scope="module")
def acoustic(folder: Path) -> Acoustic:
    return Acoustic(source(folder), device="cpu", dtype=torch.float32)


def sounds() -> list[np.ndarray]:
    return [tiny.sound(seconds, seed=i) for i, seconds in enumerate(LENGTHS)]


def test_one_window_is_what_transformers_gives(name: str, folder: Path, acoustic: Acoustic) -> None:
    model = AutoModelForCTC.from_pretrained(folder).eval()
    for samples in sounds():
        (ours,) = acoustic.log_probs([samples])
        made = _transformers_features(name, folder, samples)
        with torch.inference_mode():
            theirs = torch.log_softmax(model(**made).logits[0], dim=-1).numpy()
        assert ours.shape == theirs[: len(ours)].shape
        assert len(theirs) - len(ours) <= (name in tiny.PROCESSORS)  # a mel front end pads by up to a frame
        np.testing.assert_allclose(ours, theirs[: len(ours)], atol=TOLERANCE)
        assert len(set(ours.argmax(axis=1).tolist())) > 2, "the model says nothing: the test would prove nothing"


def _transformers_features(name: str, folder: Path, samples: np.ndarray) -> dict[str, torch.Tensor]:
    if name == "parakeet-ctc":  # transformers' own extractor needs librosa; ours is held against it below
        made = features.extractor(str(folder), rate=16000)(samples)
        return {"input_features": made[None]}
    extract = AutoFeatureExtractor.from_pretrained(folder)
    made = extract(samples, sampling_rate=16000, return_tensors="pt")
    if name not in tiny.PROCESSORS:
        return {"input_values": made["input_values"]}
    return {"input_features": made["input_features"], "attention_mask": made["attention_mask"]}


@pytest.mark.parametrize("case", parakeet_golden.CASES)
def test_parakeet_hears_what_transformers_own_extractor_would_give_it(case: str, tmp_path: Path) -> None:
    seconds, settings = parakeet_golden.CASES[case]
    tiny.write_json(
        tmp_path / "preprocessor_config.json", {"feature_extractor_type": "ParakeetFeatureExtractor", **settings}
    )
    made = features.extractor(str(tmp_path), rate=16000)(tiny.sound(seconds, seed=7))
    with np.load(parakeet_golden.FILE) as golden:
        np.testing.assert_allclose(made, golden[case], atol=2e-4)


def test_a_batch_of_any_size_and_order_gives_to_the_bit_what_windows_give_alone(acoustic: Acoustic) -> None:
    windows = sounds()
    alone = [acoustic.log_probs([w])[0] for w in windows]
    for order in ([0, 1, 2, 3, 4], [4, 2, 0], [3, 1], [1, 1, 4, 0, 0, 2]):
        for position, rows in zip(order, acoustic.log_probs([windows[i] for i in order]), strict=True):
            assert rows.tobytes() == alone[position].tobytes()


@pytest.mark.parametrize("name", ["wavlm", "wav2vec2-bert", "parakeet-ctc"])
def test_a_padded_batch_is_cut_to_true_length(name: str, tmp_path: Path) -> None:
    """What GPUs do with families that cannot be packed, here on the CPU.

    The tiny parakeet's output is noise blown up 1,000 times, so rounding shows.
    """
    folder = tiny.ctc(tmp_path, name)
    acoustic = Acoustic(source(folder), device="cpu", dtype=torch.float32)
    windows = [acoustic._features(w) for w in sounds()]
    acoustic.model = AutoModelForCTC.from_pretrained(folder).eval()
    with torch.inference_mode():
        alone = [acoustic.padded([w])[0].log_softmax(dim=-1) for w in windows]
        for one, row in zip(alone, acoustic.padded(windows), strict=True):
            tolerance = 0.2 if name == "parakeet-ctc" else TOLERANCE
            torch.testing.assert_close(row.log_softmax(dim=-1), one, atol=tolerance, rtol=0)


def test_packing_needs_no_onednn(name: str, folder: Path, acoustic: Acoustic) -> None:
    """What GPUs do, here on the CPU."""
    model = AutoModelForCTC.from_pretrained(folder).eval()
    if not acoustic.source.waveform or not packed.packable(model):
        pytest.skip("not packed on GPUs")
    windows = [acoustic._features(w) for w in sounds()]
    with torch.inference_mode():
        made = packed.Packed(model, onednn=False)(windows)
        for ours, plain in zip(acoustic.log_probs(sounds()), made, strict=True):
            np.testing.assert_allclose(ours, plain.log_softmax(dim=-1), atol=TOLERANCE)


def test_frames_are_as_many_as_the_registry_says(acoustic: Acoustic) -> None:
    facts = acoustic.source
    for samples in (facts.receptive, facts.receptive + 1, 16000, 16001, 50_000):
        (rows,) = acoustic.log_probs([tiny.sound(samples / 16000)])
        assert abs(len(rows) - samples / facts.stride) <= facts.receptive / facts.stride + 1
        assert len(rows) >= 1


def test_packing_is_for_families_that_are_known_to_bear_it(name: str, acoustic: Acoustic) -> None:
    alone = name in {"wavlm", "wav2vec2-bert", "parakeet-ctc"}
    assert acoustic.about["layout"] == ("one by one" if alone else "packed")


THREADS = """
import sys, torch, hashlib
from pathlib import Path
from tests.asr.test_acoustic import source, sounds, Acoustic
for name in sys.argv[2:]:
    acoustic = Acoustic(source(Path(sys.argv[1], name)), device="cpu", dtype=torch.float32)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        print(name, hashlib.sha256(b"".join(rows.tobytes() for rows in acoustic.log_probs(sounds()))).hexdigest())
"""


def test_the_number_of_threads_does_not_change_a_bit(tmp_path: Path) -> None:
    """In a process of its own: the arithmetic is settled at MKL's first call."""
    names = ["wav2vec2", "wav2vec2-group", "hubert", "data2vec-audio", "wavlm"]
    for name in names:
        tiny.ctc(tmp_path / name, name)
    command = [sys.executable, "-c", THREADS, str(tmp_path), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert len(done.stdout.splitlines()) == 3 * len(names)
    assert len(set(done.stdout.splitlines())) == len(names)


def test_an_adapter_brings_its_language(tmp_path: Path) -> None:
    folder = tiny.ctc(tmp_path, "mms")
    _save_adapter(folder, "spa")
    samples = tiny.sound(1.0)
    plain, spanish = (
        Acoustic(source(folder, adapter=adapter), device="cpu", dtype=torch.float32).log_probs([samples])[0]
        for adapter in (None, "spa")
    )
    assert plain.shape == spanish.shape
    assert abs(plain - spanish).max() > 0.1
    with pytest.raises(JobError, match=r"adapter 'xyz' cannot be loaded.*the folder has spa"):
        Acoustic(source(folder, adapter="xyz"), device="cpu", dtype=torch.float32)


def _save_adapter(folder: Path, language: str) -> None:
    model = AutoModelForCTC.from_pretrained(folder)
    torch.manual_seed(5)
    weights = {key: torch.randn_like(value) for key, value in model._get_adapters().items()}
    save_file(weights, folder / f"adapter.{language}.safetensors", metadata={"format": "pt"})


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    folder = tiny.ctc(tmp_path, "wav2vec2")
    Wav2Vec2Model(Wav2Vec2Config(**tiny.CTC["wav2vec2"][2])).save_pretrained(folder)
    facts = {"rate": 16000, "stride": 320, "receptive": 635, "waveform": True, "normalise": True, "mask": True}
    with pytest.raises(JobError, match=r"lacks 2 weights that transcribing needs, such as 'lm_head\.bias'"):
        Acoustic(Source(folder=str(folder), **facts), device="cpu", dtype=torch.float32)


def test_pickled_weights_are_refused_unless_asked_for(tmp_path: Path) -> None:
    folder = tiny.ctc(tmp_path, "wav2vec2")
    model = AutoModelForCTC.from_pretrained(folder)
    before = source(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(JobError, match="cannot be loaded"):
        Acoustic(before, device="cpu", dtype=torch.float32)
    allowed = Source(**{**vars(before), "allow_pickle": True})
    assert Acoustic(allowed, device="cpu", dtype=torch.float32).log_probs([tiny.sound(0.5)])


def test_damaged_pickle_weights_are_named_without_dangerous_advice(tmp_path: Path) -> None:
    folder = tiny.ctc(tmp_path / "model", "wav2vec2")
    facts = source(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(JobError, match="pickle weights are damaged") as found:
        Acoustic(replace(facts, allow_pickle=True), device="cpu", dtype=torch.float32)
    assert found.value.failure == "ModelInvalid"
    assert "weights_only" not in str(found.value)

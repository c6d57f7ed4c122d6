"""Every variant of every family: made, opened as any model is, and close to the unquantised model."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCTC

from runner.asr import header
from runner.asr.acoustic import Acoustic
from runner.asr.pieces import Piece, Source
from runner.asr.quantise import weights
from runner.asr.quantise.maker import Done, Maker, Making
from runner.registry import variant as variants
from runner.registry.resolve import resolve
from runner.schema.errors import JobError, PlanError
from runner.schema.jobs.asr_quantize import Variant
from tests.asr import tiny

QUICKSTART = Path(__file__).parents[3] / "specs" / "quickstart" / "model"
TORCH = ("fp16", "bf16", "int8-dynamic", "int8-static", "int8-weights", "int4-weights")
ONNX = ("onnx-fp32", "onnx-fp16", "onnx-int8")
FAMILIES = sorted(set(tiny.CTC) - {"parakeet-ctc", "wav2vec2-group", "mms"})
# parakeet's untrained output hardly changes with the sound, so that its sharpened head makes noise of any rounding
LENGTHS = (1.3, 0.6, 2.5)


def source(folder: Path, **changes: Any) -> Source:
    found = resolve(str(folder), folder=folder, adapter=changes.get("adapter"))
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


def sounds() -> list[np.ndarray]:
    return [tiny.sound(seconds, seed=i) for i, seconds in enumerate(LENGTHS)]


def piece(folder: Path) -> Piece:
    path = str(folder / "calibration.wav")
    soundfile.write(path, tiny.sound(4.0, seed=9), 16000)
    (found,) = header.probe([path], threads=1)
    assert isinstance(found, header.Header)
    place = {"first": 0, "last": 64000, "keep_from": 0, "keep_to": None}
    return Piece(item=0, window=0, alone=True, path=path, header=found, channel=None, **place)


def make(model: Source, folder: Path, *names: str) -> list[Done]:
    calibration = [piece(folder)]
    making = Making(source=model, parameters=7, threads=1, group=16, calibration=calibration, folder=folder / "made")
    maker = Maker(making)
    return [maker(name) for name in names]


def heard(model: Source, *, dtype: torch.dtype = torch.float32) -> list[np.ndarray]:
    return Acoustic(model, device="cpu", dtype=dtype).log_probs(sounds())


def off(got: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """Root mean square, as a share of the log-probabilities' deviation."""
    a, b = np.concatenate(got), np.concatenate(wanted)
    return float(np.sqrt(np.square(a - b).mean()) / b.std())


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All variants of the quickstart's model."""
    folder = tmp_path_factory.mktemp("quickstart")
    made = make(source(QUICKSTART), folder, *TORCH, *ONNX)
    assert [one.status for one in made] == ["ok"] * 9, made
    return folder / "made"


def test_the_schema_names_the_files_of_the_folder() -> None:
    assert sorted(get_args(Variant)) == variants.names()


@pytest.mark.parametrize(
    ("name", "smaller", "most"),
    [
        ("fp16", 1.99, 0.005),
        ("bf16", 1.99, 0.02),
        ("int8-dynamic", 3.6, 0.05),
        ("int8-static", 3.6, 0.08),
        ("int8-weights", 3.6, 0.03),
        ("int4-weights", 5.9, 0.2),
        ("onnx-fp32", 0.9, 1e-4),
        ("onnx-fp16", 1.8, 0.005),
        ("onnx-int8", 3.5, 0.06),
    ],
)
def test_a_variant_is_a_model_of_its_own(quickstart: Path, name: str, smaller: float, most: float) -> None:
    folder = quickstart / name
    found = resolve(str(folder), folder=folder)
    assert (found.facts["variant"], found.facts["parameters"]) == (name, 7)
    assert found.weights == ("onnx" if name in ONNX else "safetensors")
    assert found.facts["weights_bytes"] * smaller < (QUICKSTART / "model.safetensors").stat().st_size
    assert off(heard(source(folder)), heard(source(QUICKSTART))) < most


@pytest.mark.parametrize("name", [*TORCH, *ONNX])
def test_no_batch_changes_a_bit(quickstart: Path, name: str) -> None:
    acoustic = Acoustic(source(quickstart / name), device="cpu", dtype=torch.float32)
    alone = [acoustic.log_probs([window])[0] for window in sounds()]
    for one, together in zip(alone, acoustic.log_probs(sounds()), strict=True):
        assert np.array_equal(one, together)


def test_the_same_bytes_again(quickstart: Path, tmp_path: Path) -> None:
    make(source(QUICKSTART), tmp_path, *TORCH, *ONNX)
    for name in (*TORCH, *ONNX):
        files = sorted(path.name for path in (quickstart / name).iterdir())
        assert files == sorted(path.name for path in (tmp_path / "made" / name).iterdir())
        for file in files:
            assert (quickstart / name / file).read_bytes() == (tmp_path / "made" / name / file).read_bytes(), (
                name,
                file,
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "FEW", 64)  # these models are smaller than what is worth rounding
    model = source(tiny.ctc(tmp_path / "model", family))
    names = ("fp16", "int8-dynamic", "int8-static", "int4-weights", "onnx-fp32", "onnx-int8")
    made = make(model, tmp_path, *names)
    assert [one.status for one in made] == ["ok"] * len(names), made
    wanted = heard(model)
    for name, most in zip(names, (0.02, 0.25, 0.35, 0.6, 1e-3, 0.25), strict=True):
        assert off(heard(source(tmp_path / "made" / name)), wanted) < most, name


def test_a_language_adapter_becomes_part_of_the_weights(tmp_path: Path) -> None:
    folder = tiny.ctc(tmp_path / "model", "mms")
    adapter = AutoModelForCTC.from_pretrained(folder)._get_adapters()
    torch.manual_seed(5)
    moved = {name: weight + 0.1 * torch.randn_like(weight) for name, weight in adapter.items()}
    save_file(moved, folder / "adapter.por.safetensors", metadata={"format": "pt"})
    with_adapter = source(folder, adapter="por")
    (made,) = make(with_adapter, tmp_path, "fp16")
    assert made.status == "ok"
    own = tmp_path / "made" / "fp16"
    assert json.loads((own / "tokenizer_config.json").read_text())["target_lang"] == "por"
    assert off(heard(source(own)), heard(with_adapter)) < 0.02
    assert off(heard(source(own)), heard(source(folder))) > 0.05


def test_tensorrt_says_what_is_missing(tmp_path: Path) -> None:
    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("it is here")
    (made,) = make(source(QUICKSTART), tmp_path, "tensorrt")
    assert made.status == "not available here" and "CPUExecutionProvider" in made.why
    assert not list((tmp_path / "made").iterdir())


def test_a_package_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "runner.asr.variants.tensorrt", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    made, other = make(source(QUICKSTART), tmp_path, "tensorrt", "fp16")
    assert (made.status, other.status) == ("not available here", "ok")
    assert made.why == (
        "not available here: tensorrt needs onnxruntime, which is not installed: pip install onnx onnxruntime"
    )


def test_weights_beyond_fp16_fail_that_variant_only(tmp_path: Path) -> None:
    folder = tiny.ctc(tmp_path / "model", "wav2vec2")
    state = load_file(folder / "model.safetensors")
    state["lm_head.bias"][2] = 1e5
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    half, whole = make(source(folder), tmp_path, "fp16", "int8-weights")
    assert (half.status, whole.status) == ("failed", "ok")
    assert "lm_head.bias" in half.why


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"variant": "int3"}, "not known here"),
        ({"version": 9}, "not known here"),
        ({"weights": ["gone.safetensors"]}, "'gone.safetensors', which is not there"),
        ({"settings": None}, "is broken"),
        ({"weights": None}, "is broken"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_broken_description_is_refused(quickstart: Path, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    for file in (quickstart / "int8-weights").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / variants.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(PlanError, match=said):
        resolve(str(tmp_path), folder=tmp_path)


def test_weights_of_another_model_are_refused(quickstart: Path, tmp_path: Path) -> None:
    for file in (quickstart / "int8-weights").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 4}))
    with pytest.raises(JobError, match=r"does not fit config\.json"):
        Acoustic(source(tmp_path), device="cpu", dtype=torch.float32)

"""Models that bring their own code: never run without trust, run and used with it, and part of what is pinned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import dynamic_module_utils

from runner.asr import features
from runner.schema.errors import JobError
from tests.asr import tiny
from tests.e2e.helpers import ROOT, manifest, runner

QUICKSTART = ROOT / "specs" / "quickstart"
CODE = """
import pathlib
from transformers import Wav2Vec2ForCTC

pathlib.Path({marker!r}).touch()


class OwnForCTC(Wav2Vec2ForCTC):
    def forward(self, *args, **more):
        made = super().forward(*args, **more)
        made.logits[..., [{a}, {e}]] = made.logits[..., [{e}, {a}]]
        return made
"""
EXTRACTOR = """
import pathlib
from transformers import SeamlessM4TFeatureExtractor

pathlib.Path({marker!r}).touch()


class OwnExtractor(SeamlessM4TFeatureExtractor):
    pass
"""


def _patch(path: Path, **more: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The quickstart's model with code that takes `a` for `e`; the marker tells when that code was run."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))  # transformers copies a model's code there
    model = shutil.copytree(QUICKSTART / "model", tmp_path / "model")
    letters = json.loads((model / "vocab.json").read_text())
    _patch(model / "config.json", auto_map={"AutoModelForCTC": "modeling_own.OwnForCTC"})
    code = CODE.format(marker=str(tmp_path / "marker"), a=letters["a"], e=letters["e"])
    (model / "modeling_own.py").write_text(code)
    for name in ("wav-22k.wav", "flac-16k.flac"):
        shutil.copy(QUICKSTART / "clips" / name, tmp_path)
    return _write(tmp_path / "spec.yaml", trust=False)


def _write(path: Path, *, trust: bool, name: str = "own", model: str = "./model") -> Path:
    settings = {"id": model, **({"trust_remote_code": True} if trust else {})}
    content = {"kind": "asr-transcribe", "name": name, "model": settings, "data": {"audio": ["*.wav", "*.flac"]}}
    path.write_text(json.dumps({**content, "precision": "fp32", "compute": {"cpus": 1}}))
    return path


def _texts(folder: Path, name: str) -> list[str]:
    version = manifest(folder / "artifacts", name)["version"]
    lines = (folder / "artifacts" / name / version / "files" / "transcripts.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.mark.parametrize("words", [["plan"], ["apply", "--local"]], ids=["plan", "apply"])
def test_without_trust_nothing_of_it_is_run(spec: Path, tmp_path: Path, words: list[str]) -> None:
    done = runner(*words, str(spec), cwd=tmp_path, check=2)
    (line,) = done.stderr.splitlines()
    assert "model './model' brings its own code (config.json: auto_map)" in line
    assert "set model.trust_remote_code: true" in line
    assert "revision" not in line, "a folder has none"
    assert runner("models", "resolve", "./model", cwd=tmp_path, check=2).stderr.count("\n") == 1
    assert not (tmp_path / "marker").exists()


@pytest.mark.slow
def test_with_trust_it_is_run_by_the_job_alone_and_does_its_work(spec: Path, tmp_path: Path) -> None:
    _write(spec, trust=True)
    resolved = runner("models", "resolve", "./model", "--trust-remote-code", cwd=tmp_path).stdout
    assert "run the model's own code: modeling_own.py" in resolved
    planned = runner("plan", str(spec), cwd=tmp_path).stdout
    assert "create" in planned
    assert not (tmp_path / "marker").exists(), "who looks at a model need not trust it"

    runner("apply", "--local", str(spec), cwd=tmp_path)
    assert (tmp_path / "marker").exists()
    plain = _write(tmp_path / "plain.yaml", trust=False, name="plain", model=str(QUICKSTART / "model"))
    runner("apply", "--local", str(plain), cwd=tmp_path)
    expected = [text.translate(str.maketrans("ae", "ea")) for text in _texts(tmp_path, "plain")]
    assert _texts(tmp_path, "own") == expected != _texts(tmp_path, "plain")

    with (tmp_path / "model" / "modeling_own.py").open("a") as file:
        file.write("# changed\n")
    assert "model" in runner("plan", str(spec), "--exit-code", cwd=tmp_path, check=10).stdout, "code is an input"


def test_the_code_of_a_feature_extractor_is_run_with_trust_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = tiny.ctc(tmp_path / "model", "wav2vec2-bert")
    settings = model / "preprocessor_config.json"
    _patch(settings, feature_extractor_type="Own", auto_map={"AutoFeatureExtractor": "own.OwnExtractor"})
    (model / "own.py").write_text(EXTRACTOR.format(marker=str(tmp_path / "marker")))
    with pytest.raises(JobError, match=r"no usable feature extractor: .*custom code"):
        features.extractor(str(model), rate=16_000)
    assert not (tmp_path / "marker").exists()
    made = features.extractor(str(model), rate=16_000, trust_remote_code=True)(tiny.sound(1.0))
    assert (tmp_path / "marker").exists()
    assert made.shape[1] == 160

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.schema import discover
from tests.registry import models, tiny_llm
from tests.registry.hub_server import Hub, Repo, serving

COMMIT = "f" * 40


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    models.write(tmp_path / "model", models.files())
    return tmp_path


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["models", *words, "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("words", [[], ["ls"]])
def test_families_are_listed(here: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    found = asked(capsys, *words)
    assert [entry["family"] for entry in found] == discover.names("runner.registry.families")
    heard = {entry["family"]: entry["kinds"] for entry in found}
    assert heard["whisper"] == ["asr-transcribe"]
    assert heard["wav2vec2"] == ["asr-align", "asr-embed", "asr-finetune", "asr-quantize", "asr-transcribe"]
    assert main(["models", *words]) == 0
    assert "wav2vec2-bert    Wav2Vec2-BERT with a CTC head (asr-align, asr-embed, " in capsys.readouterr().out


def test_a_folder_is_resolved(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(capsys, "resolve", "./model")
    assert (found["family"], found["model_type"], found["source"]) == ("wav2vec2", "wav2vec2", "path")
    assert found["facts"]["parameters"] == 118
    assert found["patches"] == []
    assert found["commit"] is None
    assert found["forecast"]["estimate"] is True
    assert found["forecast"]["asr-transcribe"]["memory_gb"] > 0
    assert {entry["path"] for entry in found["files"]} >= {"config.json", "model.safetensors"}
    assert any("outputs trimmed to their true length" in text for text in found["actions"])
    assert main(["models", "resolve", "./model"]) == 0
    out = capsys.readouterr().out
    assert "wav2vec2 (model_type wav2vec2), for asr-align, asr-embed, " in out
    assert "(estimate)" in out


def test_a_base_without_a_head_is_told_what_it_lacks(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {**models.WAV2VEC2, "architectures": ["Wav2Vec2ForPreTraining"]}
    files = models.files(config, {"wav2vec2.encoder.layers.0.weight": ("F32", (8, 8))})
    models.write(here / "base", {name: one for name, one in files.items() if name != "vocab.json"})
    found = asked(capsys, "resolve", "./base")
    assert found["lack"].startswith("it has no CTC head (it is a Wav2Vec2ForPreTraining) and no vocabulary (")
    assert set(found["facts"]["lacks"]) == {"head", "vocabulary"}
    assert found["kinds"] == list(found["forecast"])[1:] == ["asr-finetune"]
    assert main(["models", "resolve", "./base"]) == 0
    out = capsys.readouterr().out
    assert "wav2vec2 (model_type wav2vec2), for asr-finetune\n" in out
    assert f"lacks                {found['lack']}\n" in out
    assert asked(capsys, "resolve", "./model")["lack"] is None


def test_a_hub_id_is_resolved_without_downloading_it(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Hub(repos={"someone/tiny": Repo(commit=COMMIT, files=models.files(), branches=("v2",))})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(here / "hf"))
        found = asked(capsys, "resolve", "someone/tiny", "--revision", "v2")
        assert (found["source"], found["commit"], found["path"]) == ("hub", COMMIT, None)
        assert found["ref"] == f"hf:someone/tiny@{COMMIT}"
        assert found["actions"][0].startswith("download 4 files, ")
        assert main(["models", "resolve", "someone/tiny"]) == 2
        assert capsys.readouterr().err.startswith("error: model 'someone/tiny' has no revision 'main'; ")


@pytest.mark.parametrize(
    "words, said",
    [
        (["resolve"], "models resolve needs an id or a folder"),
        (["ls", "x"], "models ls takes no model, got 'x'"),
        (["resolve", "./nothing"], "model './nothing' does not exist"),
        (["resolve", "artifact:none"], "no artifact is called 'none'"),
        (["resolve", "artifact:No!"], "'artifact:No!': the name in"),
        (["resolve", "./model", "--adapter", "por"], "family wav2vec2, which has no adapters"),
    ],
)
def test_errors_are_one_line(here: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["models", *words, "--store", str(here / "store")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert said in captured.err
    assert captured.err.count("\n") == 1


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llm.save(tiny_llm.model("llama"), tmp_path_factory.mktemp("llm") / "my-tune")


def test_a_language_model_is_resolved_with_a_forecast(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["resolve", str(llama), "--adapter", "lora:4", "--seq-len", "128", "--batch", "2", "--quantize", "nf4"]
    found = asked(capsys, *words)
    assert (found["family"], found["gguf"], found["kinds"], found["lack"]) == ("llama", "llama", ["llm-train"], None)
    assert {"patch": "swiglu", "wanted": True, "needs": "MLPs with a gate of silu outside experts"} in found["patches"]
    assert found["facts"]["lora_targets"][:2] == ["q_proj", "k_proj"]
    known = found["forecast"]["training"]
    assert (known["seq_len"], known["batch"], known["adapter"], known["quantize"]) == (128, 2, "lora:4", "nf4")
    assert known["trainable_parameters"] == 4 * found["facts"]["lora_width"]
    assert main(["models", *words]) == 0
    out = capsys.readouterr().out
    assert "patches wanted  attention, rms_norm, rope, swiglu, linear_cross_entropy, lora_linear\n" in out
    assert "2 x 128 tokens, adapter lora:4, bf16, weights quantised nf4 (estimate, one device)" in out
    assert "of this family </s> <|eot_id|> <|eom_id|>" in out


def test_patches_that_a_model_does_not_get_say_what_they_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_llm.save(tiny_llm.model("mixtral"), tmp_path / "my-mixture")
    capsys.readouterr()
    assert main(["models", "resolve", str(folder)]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    (wanted,), rest = ([line[2] for line in lines if line[:2] == ["patches", word]] for word in ("wanted", "not"))
    assert wanted == "attention, rms_norm, rope, linear_cross_entropy, lora_linear, experts"
    assert rest == ["swiglu (needs MLPs with a gate of silu outside experts)"]
    (quantisable,) = (line[1:] for line in lines if line[0] == "quantisable")
    assert quantisable == ["k_proj,", "o_proj, q_proj, v_proj"]  # none of experts


def test_a_forecast_without_an_adapter(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, quantised = (asked(capsys, "resolve", str(llama), *more) for more in ([], ["--quantize", "int8"]))
    assert plain["forecast"]["training"]["trainable_parameters"] == plain["facts"]["parameters"]
    assert quantised["forecast"]["training"]["adapter"] == "lora:16"


def test_a_checkpoint_whose_layers_are_packed_has_no_forecast(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = llama.parent / "packed"
    shutil.copytree(llama, packed)
    config = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes"}}))
    tensors = {"model.layers.0.self_attn.q_proj.weight": ("U8", (512, 1)), "lm_head.weight": ("F32", (40, 32))}
    (packed / "model.safetensors").write_bytes(models.safetensors(tensors))
    found = asked(capsys, "resolve", str(packed))
    assert found["forecast"]["training"] is None
    assert main(["models", "resolve", str(packed)]) == 0
    assert "forecast        none: its weights do not show the widths" in capsys.readouterr().out
    assert main(["models", "resolve", str(packed), "--adapter", "lora:8"]) == 2
    assert capsys.readouterr().err.startswith("error: its weights do not show the widths")


@pytest.mark.parametrize(
    "words, said",
    [
        (["--batch", "0"], "--batch must be a whole number above 0, got 0"),
        (["--adapter", "lora:x"], "adapter must be none or lora:RANK with a rank of 1 to 4096, got 'lora:x'"),
        (["--adapter", "none", "--quantize", "nf4"], "weights quantised to 'nf4' cannot be trained themselves"),
        (["--adapter", "por"], "of family llama, which has no adapters"),
    ],
)
def test_forecasts_that_make_no_sense(
    llama: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert main(["models", "resolve", str(llama), *words]) == 2
    assert said in capsys.readouterr().err

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.registry.recognise import families, guess
from runner.registry.resolve import resolve
from runner.schema import discover
from runner.schema.errors import PlanError
from tests.registry import models

ROOT = Path(__file__).parents[2]


def model(tmp_path: Path, *, drop: tuple[str, ...] = (), **changes: Any) -> Path:
    """A folder ``model`` whose config has ``changes`` (None removes a key), without the files in ``drop``."""
    config = {key: value for key, value in (models.WAV2VEC2 | changes).items() if value is not None}
    content = models.files(config)
    return models.write(tmp_path / "model", {k: v for k, v in content.items() if k not in drop})


def refusal(tmp_path: Path, id: str = "./model", **options: Any) -> str:  # noqa: A002
    with pytest.raises(PlanError) as error:
        resolve(id, folder=tmp_path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def lack(tmp_path: Path, **options: Any) -> str:
    """What a model that can be resolved still lacks."""
    found = resolve("./model", folder=tmp_path, **options).lack
    assert found is not None
    assert "\n" not in found
    return found


def test_a_folder_and_its_facts(tmp_path: Path) -> None:
    model(tmp_path)
    found = resolve("./model", folder=tmp_path)
    assert (found.family.name, found.model_type, found.source, found.ref) == ("wav2vec2", "wav2vec2", "path", "./model")
    assert found.path == str(tmp_path / "model")
    assert found.commit is None
    assert found.weights == "safetensors"
    facts = found.facts
    assert facts["parameters"] == 118
    assert facts["parameters_from"] == "safetensors header"
    assert (facts["stride_samples"], facts["receptive_samples"]) == (20, 10 + 7 * 5)
    assert facts["stride_ms"] == 1.25
    assert (facts["vocab_size"], facts["blank_id"], facts["hidden"], facts["layers"]) == (6, 0, 8, 1)
    assert facts["mask"] is True
    assert dict(found.files).keys() == {"config.json", "model.safetensors", "preprocessor_config.json", "vocab.json"}


def test_the_published_large_shape_has_the_known_frames(tmp_path: Path) -> None:
    model(tmp_path, conv_kernel=[10, 3, 3, 3, 3, 2, 2], conv_stride=[5, 2, 2, 2, 2, 2, 2])
    facts = resolve("./model", folder=tmp_path).facts
    assert (facts["stride_samples"], facts["stride_ms"], facts["receptive_samples"]) == (320, 20.0, 400)


def test_group_norm_models_take_no_mask(tmp_path: Path) -> None:
    model(tmp_path, feat_extract_norm="group")
    assert resolve("./model", folder=tmp_path).facts["mask"] is False


def test_keys_left_out_are_what_transformers_takes(tmp_path: Path) -> None:
    model(tmp_path, conv_kernel=None, conv_stride=None, feat_extract_norm=None, pad_token_id=None)
    facts = resolve("./model", folder=tmp_path).facts
    assert (facts["stride_samples"], facts["feat_extract_norm"], facts["blank_id"]) == (320, "group", 0)


@pytest.mark.parametrize("written", ["./model", "../here/model", "{absolute}"])
def test_ways_to_write_a_folder(tmp_path: Path, written: str) -> None:
    here = tmp_path / "here"
    model(here)
    found = resolve(written.format(absolute=here / "model"), folder=here)
    assert Path(found.path or "").resolve() == (here / "model").resolve()


def test_home_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    model(tmp_path)
    assert resolve("~/model", folder=Path("/")).path == str(tmp_path / "model")


@pytest.mark.parametrize("id", ["a/b/c", "artifact:x", "-x", "a b", "owner/", "", "a--b", "x/..", "hf:", "é/è"])
def test_what_is_neither_a_folder_nor_an_id(tmp_path: Path, id: str) -> None:  # noqa: A002
    assert "is neither a hub id (owner/name) nor a folder" in refusal(tmp_path, id)


def test_no_folder_no_config_no_file(tmp_path: Path) -> None:
    assert "'./nothing' does not exist" in refusal(tmp_path, "./nothing")
    (tmp_path / "file").write_text("x")
    assert "'./file' is a file; give the folder" in refusal(tmp_path, "./file")
    (tmp_path / "my-hubert").mkdir()
    assert "has no config.json; by its name it looks like hubert" in refusal(tmp_path, "./my-hubert")


def test_unknown_model_types_name_the_nearest(tmp_path: Path) -> None:
    model(tmp_path, model_type="wav2vec3")
    assert "unknown model_type 'wav2vec3', the nearest family is 'wav2vec2'; families: bert, data2vec-audio" in refusal(
        tmp_path
    )
    model(tmp_path, model_type="xlstm9")
    assert "unknown model_type 'xlstm9'; families: bert, data2vec-audio, " in refusal(tmp_path)
    model(tmp_path, model_type=None)
    assert "config.json has no model_type" in refusal(tmp_path)


def test_a_checkpoint_without_a_head_says_so(tmp_path: Path) -> None:
    model(tmp_path, architectures=["Wav2Vec2ForPreTraining"])
    tensors = {"wav2vec2.encoder.layers.0.weight": ("F32", (8, 8))}
    (tmp_path / "model" / "model.safetensors").write_bytes(models.safetensors(tensors))
    found = resolve("./model", folder=tmp_path)
    assert found.lack == (
        "it has no CTC head (it is a Wav2Vec2ForPreTraining); give a checkpoint of Wav2Vec2ForCTC with lm_head.weight, "
        "or fine-tune this one (asr-finetune with vocabulary: {source: build})"
    )
    assert (found.facts["vocab_size"], found.facts["blank_id"], found.facts["hidden"]) == (None, None, 8)
    model(tmp_path, architectures=None, pad_token_id=99)
    (tmp_path / "model" / "model.safetensors").write_bytes(models.safetensors(tensors))
    assert "it has no CTC head; give" in lack(tmp_path)
    (tmp_path / "model" / "vocab.json").unlink()
    both = "it has no CTC head and no vocabulary (tokenizer.json or vocab.json); give a checkpoint of Wav2Vec2ForCTC"
    assert both in lack(tmp_path)


def test_a_head_that_does_not_fit_the_config(tmp_path: Path) -> None:
    model(tmp_path, vocab_size=32)
    assert "its head has 6 rows but config.json says vocab_size 32" in refusal(tmp_path)
    model(tmp_path, pad_token_id=6)
    assert "pad_token_id 6, the CTC blank, must be a row of its head (vocab_size 6)" in refusal(tmp_path)


@pytest.mark.parametrize("kernel", [[], [10], [10, 0], [10, -8], [10, "8"], 5, [10, True]])
def test_convolutions_that_make_no_sense(tmp_path: Path, kernel: Any) -> None:
    model(tmp_path, conv_kernel=kernel)
    assert "must be lists of equally many positive numbers" in refusal(tmp_path)


def test_pickle_only_on_request(tmp_path: Path) -> None:
    folder = model(tmp_path, drop=("model.safetensors",))
    (folder / "pytorch_model.bin").write_bytes(b"\x80" * 4000)
    assert "only as pickle (pytorch_model.bin), which can run code" in refusal(tmp_path)
    found = resolve("./model", folder=tmp_path, allow_pickle=True)
    assert found.weights == "pickle"
    assert found.facts["parameters"] == 1000
    assert found.facts["parameters_from"].startswith("estimate")


def test_safetensors_come_before_pickle(tmp_path: Path) -> None:
    (model(tmp_path) / "pytorch_model.bin").write_bytes(b"\x80" * 4000)
    found = resolve("./model", folder=tmp_path, allow_pickle=True)
    assert found.weights == "safetensors"
    assert "pytorch_model.bin" not in dict(found.files)


def test_a_pickle_without_a_head_is_known_by_its_architecture(tmp_path: Path) -> None:
    folder = model(tmp_path, drop=("model.safetensors",), architectures=["Wav2Vec2Model"])
    (folder / "pytorch_model.bin").write_bytes(b"\x80" * 4000)
    assert "(it is a Wav2Vec2Model)" in lack(tmp_path, allow_pickle=True)


def test_weights_in_other_formats_are_named(tmp_path: Path) -> None:
    folder = model(tmp_path, drop=("model.safetensors",))
    assert "found no weights at all" in refusal(tmp_path)
    (folder / "model.onnx").write_bytes(b"x")
    assert "no model.safetensors (found 'model.onnx')" in refusal(tmp_path)


def test_shards(tmp_path: Path) -> None:
    folder = model(tmp_path, drop=("model.safetensors",))
    parts = [("lm_head.weight", "lm_head.bias"), ("wav2vec2.encoder.layers.0.weight",)]
    names = [f"model-0000{n + 1}-of-00002.safetensors" for n in range(2)]
    for name, part in zip(names, parts, strict=True):
        (folder / name).write_bytes(models.safetensors({key: models.TENSORS[key] for key in part}))
    index = {"weight_map": {key: name for name, part in zip(names, parts, strict=True) for key in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = resolve("./model", folder=tmp_path)
    assert found.facts["parameters"] == 118
    assert set(names) < dict(found.files).keys()
    (folder / names[1]).unlink()
    assert f"names {names[1]!r}, which is not there" in refusal(tmp_path)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": 5}')
    assert "has no weight_map" in refusal(tmp_path)


def test_damaged_weights_are_a_plan_error(tmp_path: Path) -> None:
    weights = model(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "it is cut short" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "\ufeff{}", "[" * 100_000, "{}" + " " * 20_000_000])
def test_damaged_json_is_a_plan_error(tmp_path: Path, text: str) -> None:
    (model(tmp_path) / "config.json").write_text(text)
    assert "model/config.json'" in refusal(tmp_path) or "no model_type" in refusal(tmp_path)


def test_own_code_needs_trust(tmp_path: Path) -> None:
    folder = model(tmp_path)
    (folder / "preprocessor_config.json").write_text(json.dumps({"auto_map": {"AutoFeatureExtractor": "x.Y"}}))
    (folder / "x.py").touch()
    assert "(preprocessor_config.json: auto_map)" in refusal(tmp_path)
    assert resolve("./model", folder=tmp_path, trust_remote_code=True).family.name == "wav2vec2"


def test_own_code_of_a_feature_extractor_inside_a_processor_needs_trust_too(tmp_path: Path) -> None:
    folder = model(tmp_path)
    inside = {"feature_extractor": {"auto_map": {"AutoFeatureExtractor": "x.Y"}}}
    (folder / "processor_config.json").write_text(json.dumps(inside))
    assert "(processor_config.json: auto_map); read it, then set model.trust_remote_code: true" in refusal(tmp_path)


@pytest.mark.parametrize("named", ["other/model--x.Y", ["other/model--x.Y", None]])
def test_code_of_another_repository_is_pinned_by_nothing(tmp_path: Path, named: Any) -> None:
    folder = model(tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": named}}))
    message = refusal(tmp_path, trust_remote_code=True)
    assert "takes its code from 'other/model' (tokenizer_config.json: auto_map), which nothing pins" in message
    assert "with 'x.py' in its folder, and 'x.Y' in auto_map" in message


def test_code_that_is_no_input_is_refused(tmp_path: Path) -> None:
    folder = model(tmp_path)
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": "sub/own.Own"}}))
    (folder / "sub").mkdir()
    (folder / "sub" / "own.py").touch()
    assert "takes its code from 'sub/own.py'" in refusal(tmp_path, trust_remote_code=True)


def test_configs_for_each_version_are_refused(tmp_path: Path) -> None:
    folder = model(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "configuration_files": ["config.4.0.0.json"]}))
    assert "another config for each version" in refusal(tmp_path)


def test_an_adapter_beside_the_weights_is_refused(tmp_path: Path) -> None:
    (model(tmp_path) / "adapter_config.json").write_text("{}")
    assert "PEFT adapter beside its weights" in refusal(tmp_path)


def test_no_vocabulary(tmp_path: Path) -> None:
    model(tmp_path, drop=("vocab.json",))
    said = "it has no vocabulary (tokenizer.json or vocab.json); save its processor beside it, or fine-tune this one"
    assert said in lack(tmp_path)


def test_mms_and_its_adapters(tmp_path: Path) -> None:
    folder = model(tmp_path, adapter_attn_dim=16)
    for language, rows in (("por", 9), ("spa", 7)):
        (folder / f"adapter.{language}.safetensors").write_bytes(
            models.safetensors({"lm_head.weight": ("F32", (rows, 8))})
        )
    found = resolve("./model", folder=tmp_path)
    assert found.family.name == "mms"
    assert found.facts["languages"] == ["por", "spa"]
    found = resolve("./model", folder=tmp_path, adapter="por")
    assert found.facts["vocab_size"] == 9
    assert "adapter.por.safetensors" in dict(found.files)
    assert "adapter.spa.safetensors" not in dict(found.files)
    message = refusal(tmp_path, adapter="pot")
    assert "no adapter.pot.safetensors for model.adapter 'pot'; did you mean 'por'" in message


def test_an_adapter_for_a_family_without(tmp_path: Path) -> None:
    model(tmp_path)
    assert "of family wav2vec2, which has no adapters" in refusal(tmp_path, adapter="por")


def test_the_folder_listing_is_the_registry() -> None:
    assert list(families()) == discover.names("runner.registry.families")
    assert all(family.name == name for name, family in families().items())
    assert {"wav2vec2", "hubert", "wavlm", "data2vec-audio", "wav2vec2-bert", "mms", "parakeet-ctc", "whisper"} <= set(
        families()
    )


@pytest.mark.parametrize(
    "name, family",
    [
        ("jonatasgrosman/wav2vec2-large-xlsr-53-portuguese", "wav2vec2"),
        ("facebook/wav2vec2-xls-r-300m", "wav2vec2"),
        ("facebook/hubert-large-ls960-ft", "hubert"),
        ("patrickvonplaten/wavlm-libri-clean-100h-base-plus", "wavlm"),
        ("facebook/data2vec-audio-base-960h", "data2vec-audio"),
        ("hf-audio/wav2vec2-bert-CV16-en", "wav2vec2-bert"),
        ("facebook/mms-1b-all", "mms"),
        ("nvidia/parakeet-ctc-1.1b", "parakeet-ctc"),
        ("openai/whisper-large-v3", "whisper"),
        ("meta-llama/Llama-3.2-1B", "llama"),
        ("meta-llama/Llama-3.2-11B-Vision", None),
        ("mistralai/Mistral-7B-v0.3", "mistral"),
        ("mistralai/Mixtral-8x7B-v0.1", "mixtral"),
        ("Qwen/Qwen2.5-7B-Instruct", "qwen2"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2-5-vl"),
        ("Qwen/Qwen2-VL-7B-Instruct", "qwen2-vl"),
        ("Qwen/Qwen3-8B", "qwen3"),
        ("Qwen/Qwen3-30B-A3B", "qwen3-moe"),
        ("google/gemma-7b", "gemma"),
        ("google/gemma-2-9b-it", "gemma2"),
        ("google/gemma-3-1b-it", "gemma3"),
        ("google/gemma-3-27b-it", "gemma3-vision"),
        ("microsoft/Phi-3.5-mini-instruct", "phi3"),
        ("microsoft/phi-4", "phi3"),
        ("deepseek-ai/DeepSeek-V2-Lite", "deepseek-v2"),
        ("deepseek-ai/DeepSeek-V3", "deepseek-v3"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-v3"),
        ("openai/gpt-oss-20b", "gpt-oss"),
        ("ibm-granite/granite-3.3-8b-instruct", "granite"),
        ("allenai/OLMo-2-1124-7B", "olmo2"),
        ("HuggingFaceTB/SmolLM3-3B", "smollm3"),
        ("llava-hf/llava-1.5-7b-hf", "llava"),
        ("google-bert/bert-base-uncased", "bert"),
        ("FacebookAI/roberta-base", "roberta"),
        ("FacebookAI/xlm-roberta-large", "xlm-roberta"),
        ("sentence-transformers/all-mpnet-base-v2", "mpnet"),
        ("answerdotai/ModernBERT-base", "modernbert"),
        ("someone/unknown-7b", None),
    ],
)
def test_names_hint_at_families(name: str, family: str | None) -> None:
    found = guess(name)
    assert (found and found.name) == family


def test_resolving_loads_nothing_heavy(tmp_path: Path) -> None:
    model(tmp_path)
    code = (
        "import sys; from pathlib import Path; from runner.registry.resolve import resolve; "
        f"resolve('./model', folder=Path({str(tmp_path)!r})); "
        "print({'torch', 'transformers', 'numpy', 'ray', 'huggingface_hub'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"

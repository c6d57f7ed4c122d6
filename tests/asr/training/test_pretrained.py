"""Models that were only pretrained: every weight of the encoder is the file's, what else it holds is passed over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from runner.asr.pieces import Source
from runner.asr.training import network, session, spelling
from runner.asr.training.network import Dropouts
from runner.asr.training.recipe import Masks
from runner.schema.errors import JobError
from tests.asr import tiny
from tests.asr.training import small

PRETRAINING = {"codevector_dim": 8, "proj_codevector_dim": 8, "num_codevectors_per_group": 4}
CONV = tiny.SMALL | tiny.CONV
# class as published, with its config: with and without the quantizer of its pretraining, with and without a prefix
BASES: dict[str, tuple[str, dict[str, Any]]] = {
    "Wav2Vec2ForPreTraining": ("Wav2Vec2Config", CONV | PRETRAINING),
    "Wav2Vec2Model": ("Wav2Vec2Config", CONV),
    "HubertModel": ("HubertConfig", CONV),
    "WavLMModel": ("WavLMConfig", CONV),
    "Data2VecAudioModel": ("Data2VecAudioConfig", CONV),
    "Wav2Vec2BertModel": ("Wav2Vec2BertConfig", tiny.SMALL),
}
OLD = ("weight_g", "weight_v")  # the two parts of a weight norm, as torch called them before 2.0
NEW = ("parametrizations.weight.original0", "parametrizations.weight.original1")
POSITIONS = "encoder.pos_conv_embed.conv."


def saved(folder: Path, name: str) -> Any:
    """A seeded model of class ``name`` in ``folder``."""
    config, values = BASES[name]
    torch.manual_seed(7)
    model = getattr(transformers, name)(getattr(transformers, config)(**values))
    model.save_pretrained(folder)
    return model


def source(folder: Path) -> Source:
    return Source(folder=str(folder), rate=16000, stride=320, receptive=795, waveform=True, normalise=True, mask=True)


def loaded(base: Source) -> tuple[Any, bool]:
    torch.manual_seed(0)
    return network.loaded(base, masks=Masks(), dropouts=Dropouts(values=0.0, layers=0.0))


@pytest.mark.parametrize("name", BASES)
def test_the_encoder_is_the_files(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Also of a file whose names lack the model's prefix, as an encoder saved by itself has them."""
    wanted = saved(tmp_path, name).base_model.state_dict()
    capfd.readouterr()
    model, trained = loaded(source(tmp_path))
    assert not trained
    assert capfd.readouterr() == ("", "")
    found = model.base_model.state_dict()
    assert found.keys() == wanted.keys()
    assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []


@pytest.mark.parametrize("normalise", [True, False])
def test_a_base_without_a_processor_gets_that_which_it_was_heard_with(tmp_path: Path, normalise: bool) -> None:
    saved(tmp_path / "base", "Wav2Vec2Model")
    base = replace(source(tmp_path / "base"), normalise=normalise, mask=False)
    model, _ = loaded(base)
    network.save(model, tmp_path / "out", base=base)
    found = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    assert (found.do_normalize, found.return_attention_mask, found.sampling_rate) == (normalise, False, 16000)


def test_a_pickle_loads_as_well(tmp_path: Path) -> None:
    """As many published ones are; read by torch's weights-only loading."""
    wanted = saved(tmp_path, "Wav2Vec2ForPreTraining").base_model.state_dict()
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    found = loaded(replace(source(tmp_path), allow_pickle=True))[0].base_model.state_dict()
    assert [key for key in wanted if not torch.equal(found[key], wanted[key])] == []


@pytest.mark.parametrize("parts", [OLD, NEW])
def test_positions_load_by_their_old_names_and_their_new(tmp_path: Path, parts: tuple[str, str]) -> None:
    wanted = saved(tmp_path, "Wav2Vec2ForPreTraining").base_model.state_dict()
    names = {f"wav2vec2.{POSITIONS}{was}": part for some in (OLD, NEW) for was, part in zip(some, parts, strict=True)}
    file = load_file(tmp_path / "model.safetensors")
    there = {f"wav2vec2.{POSITIONS}{names[key]}" if key in names else key: one for key, one in file.items()}
    assert {f"wav2vec2.{POSITIONS}{part}" for part in parts} < there.keys()
    save_file(there, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = loaded(source(tmp_path))[0].base_model.state_dict()
    assert all(torch.equal(found[f"{POSITIONS}{part}"], wanted[f"{POSITIONS}{part}"]) for part in NEW)


def test_a_trained_head_without_a_vocabulary_is_not_kept(tmp_path: Path) -> None:
    base = tiny.ctc(tmp_path / "base", "wav2vec2")
    (base / "vocab.json").unlink()
    learner = small.begin(source(base), wanted=lambda _: spelling.built(["abc"], why="the texts"))
    assert (learner.was, learner.comparable) == (None, False)
    session.save(learner, tmp_path / "model", masks=Masks())
    assert transformers.AutoProcessor.from_pretrained(tmp_path / "model").tokenizer.vocab_size == 8


def test_a_vocabulary_that_belongs_to_another_head_is_still_said(tmp_path: Path) -> None:
    base = tiny.ctc(tmp_path / "base", "wav2vec2")
    tiny.write_json(base / "vocab.json", {"<pad>": 0, "a": 99})
    with pytest.raises(JobError, match="the tokenizer belongs to another model"):
        small.begin(source(base))

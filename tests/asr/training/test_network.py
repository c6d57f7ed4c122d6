"""The model: rows that move with their characters, masks on short clips, LoRA merged, files that load again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCTC, AutoProcessor
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

from runner.asr import alphabet
from runner.asr.acoustic import Acoustic
from runner.asr.pieces import Source
from runner.asr.training import network, session, spelling
from runner.asr.training.corpus import Corpus
from runner.asr.training.recipe import Lora, Masks
from runner.asr.training.spelling import Spelling
from runner.schema.errors import JobError
from tests.asr import tiny
from tests.asr.training import small, tones


def source(folder: Path, **changes: Any) -> Source:
    plain = {"rate": 16000, "stride": 320, "receptive": 795, "waveform": True, "normalise": True, "mask": True}
    return Source(folder=str(folder), **(plain | changes))


def build(text: str) -> Any:
    return lambda _: spelling.built([text], why="the texts")


def heard_by_itself(seconds: float, *, labels: Sequence[int] = (5,)) -> dict[str, torch.Tensor]:
    """A batch of one clip, with no padding."""
    x = torch.from_numpy(tiny.sound(seconds))[None]
    return {"input_values": x, "attention_mask": torch.ones_like(x).long(), "labels": torch.tensor([list(labels)])}


def test_a_new_alphabet_keeps_the_rows_of_shared_characters(tmp_path: Path) -> None:
    base = tiny.ctc(tmp_path / "base", "wav2vec2")
    old = AutoModelForCTC.from_pretrained(base).lm_head
    learner = small.begin(source(base), wanted=build("zãbé"))
    assert learner.was is not None
    head, names = learner.model.lm_head, learner.spelling.alphabet.texts
    assert names == ("", "", "", "", "", "b", "z", "ã", "é")
    for row, character in enumerate(names):
        if character in learner.was.characters:
            before = learner.was.characters[character]
            assert torch.equal(head.weight[row], old.weight[before])
            assert head.bias[row] == old.bias[before]
    assert torch.equal(head.weight[0], old.weight[0])  # the blank
    assert torch.equal(head.weight[4], old.weight[4])  # between words
    assert not any(torch.equal(head.weight[8], row) for row in old.weight)  # new
    assert learner.model.config.vocab_size == 9
    assert not learner.comparable


def test_characters_in_another_order_give_the_same_texts(tmp_path: Path) -> None:
    base = tiny.ctc(tmp_path / "base", "wav2vec2")
    same = "".join(tiny.SYMBOLS[5:])
    kept, moved = small.begin(source(base)), small.begin(source(base), wanted=build(same[::-1] + "'"))
    assert kept.was is kept.spelling
    assert moved.spelling.characters["a"] != moved.was.characters["a"]  # type: ignore[union-attr]
    x = torch.from_numpy(tiny.sound(2.0))[None]
    with torch.inference_mode():
        before, after = (learner.model.eval()(x).logits[0] for learner in (kept, moved))
    for character, row in kept.spelling.characters.items():
        assert torch.allclose(before[:, row], after[:, moved.spelling.characters[character]])


def test_a_model_without_a_head_gets_a_new_one(tmp_path: Path) -> None:
    base = tiny.ctc(tmp_path / "base", "wav2vec2")
    AutoModelForCTC.from_pretrained(base).wav2vec2.save_pretrained(base)
    (base / "vocab.json").unlink()
    learner = small.begin(source(base), wanted=build("abc"))
    assert learner.was is None
    assert learner.model.lm_head.out_features == 8


def test_a_model_without_an_encoder_is_refused(tmp_path: Path) -> None:
    base = tiny.ctc(tmp_path / "base", "wav2vec2")
    head = {name: one for name, one in load_file(base / "model.safetensors").items() if "lm_head" in name}
    save_file(head, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(JobError, match=r"lacks \d+ weights, such as 'wav2vec2\.encoder") as caught:
        small.begin(source(base))
    assert caught.value.failure == "ModelInvalid"


@pytest.mark.parametrize("name", ["wav2vec2", "wav2vec2-group", "hubert", "wavlm", "data2vec-audio"])
@pytest.mark.parametrize("seconds", [0.05, 0.2, 1.0])
def test_masks_longer_than_a_clip_are_shortened(tmp_path: Path, name: str, seconds: float) -> None:
    """transformers refuses a batch whose frames are fewer than one mask."""
    base = tiny.ctc(tmp_path / "base", name)
    masks = Masks(time=0.5, time_frames=20, feature=0.2, feature_width=64)
    learner = small.begin(source(base), masks=masks)
    model = learner.model.train()
    batch = heard_by_itself(seconds)
    frames = int(model._get_feat_extract_output_lengths(batch["input_values"].shape[1]))
    torch.autograd.backward(network.heard(model, batch).loss)
    assert model.config.mask_time_length == min(20, frames)
    session.save(learner, tmp_path / "out", masks=masks)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["mask_time_length"] == 20


@pytest.mark.parametrize("masks", [Masks(time=0.5, time_frames=5), Masks(feature=0.5, feature_width=8)])
def test_masks_hide_something_while_training_only(masks: Masks) -> None:
    batch = heard_by_itself(1.0)
    plain, masked = small.begin(dropout=0.0).model, small.begin(masks=masks, dropout=0.0).model
    with torch.no_grad():
        wanted = network.heard(plain.train(), batch).logits
        assert not torch.allclose(network.heard(masked.train(), batch).logits, wanted, atol=1e-3)
        assert torch.equal(network.heard(masked.eval(), batch).logits, wanted)


@pytest.mark.parametrize("seconds", [1, 5])
def test_masks_hide_the_share_asked_for_of_short_clips_too(seconds: int) -> None:
    config = small.begin(masks=Masks(time=0.05, time_frames=10)).model.config
    np.random.seed(0)  # transformers draws from it
    share, length, least = config.mask_time_prob, config.mask_time_length, config.mask_time_min_masks
    hidden = [_compute_mask_indices((1, 50 * seconds), share, length, min_masks=least).mean() for _ in range(1000)]
    assert np.mean(hidden) == pytest.approx(0.05, abs=0.01)


def test_a_text_that_does_not_fit_costs_nothing() -> None:
    """Speed may shorten a clip below what its text needs, after the lint."""
    batch = heard_by_itself(0.3, labels=[5] * 99)
    assert network.heard(small.begin().model, batch).loss == 0


@pytest.mark.parametrize(("name", "layers"), [("wav2vec2", 6), ("wav2vec2-group", 6), ("wavlm", 2), ("hubert", 6)])
def test_lora_trains_only_itself_and_the_head_and_is_merged(tmp_path: Path, name: str, layers: int) -> None:
    base = tiny.ctc(tmp_path / "base", name)
    learner = small.begin(source(base))
    before = {name: one.detach().clone() for name, one in learner.model.state_dict().items()}
    tuner = network.add_lora(learner.model, Lora(r=2, alpha=4, dropout=0.0))
    trained = {name for name, one in learner.model.named_parameters() if one.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {"lm_head.weight", "lm_head.bias"}
    assert sum("lora_A" in name for name in trained) == 2 * layers
    with torch.no_grad():
        for weight, one in learner.model.named_parameters():
            if "lora_B" in weight:
                one.normal_()
    batch = heard_by_itself(1.0)
    torch.autograd.backward(network.heard(learner.model, batch).loss)
    silent = [weight for weight, one in learner.model.named_parameters() if one.requires_grad and not one.grad.any()]
    assert silent == []  # every one of them is heard
    with torch.inference_mode():
        beside = learner.model.eval()(batch["input_values"]).logits
        tuner.merge_and_unload()
        merged = learner.model(batch["input_values"]).logits
    assert torch.allclose(beside, merged, atol=1e-3)
    after = learner.model.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert all(name.rpartition(".")[0].endswith((*network.ATTENTION, *network.FEED_FORWARD)) for name in changed)


def test_the_feature_encoder_stays_as_it_is(tmp_path: Path) -> None:
    data = small.read(tmp_path, "train", 8, seed=1)
    learner = small.begin()
    before = {name: one.detach().clone() for name, one in learner.model.named_parameters()}
    small.fit(tmp_path / "run", learner, data, data, steps=2, freeze=True)
    same = {name for name, one in learner.model.named_parameters() if torch.equal(one, before[name])}
    assert same == {name for name in before if "feature_extractor" in name or "masked_spec" in name}


def test_what_is_saved_is_what_was_measured(tmp_path: Path) -> None:
    """Through transformers' own processor, and through the engine of asr-transcribe."""
    data = small.read(tmp_path, "train", 6, seed=1)
    learner = small.begin(dropout=0.3)
    session.save(learner, tmp_path / "model", masks=Masks())
    samples = data.samples(0)
    normalised = learner.features(samples)
    with torch.inference_mode():
        mine = torch.log_softmax(learner.model.eval()(normalised[None]).logits[0], dim=-1).numpy()
        processor = AutoProcessor.from_pretrained(tmp_path / "model")
        model = AutoModelForCTC.from_pretrained(tmp_path / "model").eval()
        inputs = processor(samples, sampling_rate=16000, return_tensors="pt")
        theirs = torch.log_softmax(model(**inputs).logits[0], dim=-1).numpy()
    assert np.allclose(mine, theirs, atol=1e-4)
    receptive = small.ARCHITECTURE.receptive
    engine = Acoustic(source(tmp_path / "model", receptive=receptive), device="cpu", dtype=torch.float32)
    assert np.allclose(mine, engine.log_probs([samples])[0], atol=1e-4)
    read = alphabet.load(tmp_path / "model", vocab_size=engine.vocab_size, blank=engine.blank)
    assert read == learner.spelling.alphabet
    for file in (tmp_path / "model").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name


def test_a_kept_vocabulary_keeps_its_files(tmp_path: Path) -> None:
    base = tiny.ctc(tmp_path / "base", "hubert")
    session.save(small.begin(source(base)), tmp_path / "model", masks=Masks())
    for name in ("vocab.json", "tokenizer_config.json", "preprocessor_config.json"):
        assert (tmp_path / "model" / name).read_bytes() == (base / name).read_bytes()


def test_a_language_of_many_becomes_a_model_by_itself(tmp_path: Path) -> None:
    """MMS: adapter and head of one language are trained on, and its vocabulary is written flat."""
    base = tiny.ctc(tmp_path / "base", "mms")
    model = AutoModelForCTC.from_pretrained(base)
    spanish = {key: torch.randn_like(value) for key, value in model._get_adapters().items()}
    save_file(spanish, base / "adapter.spa.safetensors", metadata={"format": "pt"})
    symbols = {symbol: place for place, symbol in enumerate([*tiny.SYMBOLS[:-1], "ñ"])}
    tiny.write_json(base / "vocab.json", {"por": {s: i for i, s in enumerate(tiny.SYMBOLS)}, "spa": symbols})
    learner = small.begin(source(base, adapter="spa"))
    assert learner.spelling.ids("ñ") == [len(tiny.SYMBOLS) - 1]
    session.save(learner, tmp_path / "model", masks=Masks())
    saved = AutoModelForCTC.from_pretrained(tmp_path / "model")
    assert torch.equal(saved.lm_head.weight, spanish["lm_head.weight"])
    read = alphabet.load(tmp_path / "model", vocab_size=len(symbols), blank=0)
    assert read == learner.spelling.alphabet


@pytest.mark.parametrize("name", ["wav2vec2-group", "wavlm", "wav2vec2-bert"])
def test_every_family_of_characters_learns(tmp_path: Path, name: str) -> None:
    base = tiny.ctc(tmp_path / "base", name)
    corpus = small.read(tmp_path, "train", 6, seed=1)
    data = Corpus(utterances=corpus.utterances, rate=16000)
    waveform = name != "wav2vec2-bert"
    start = source(base, waveform=waveform, mask=name != "wav2vec2-group")
    learner = small.begin(start, wanted=build(tones.LETTERS), dropout=0.0)
    done = small.fit(tmp_path / "run", learner, data, data, steps=6, every_steps=1, clips=2)
    losses = [row["loss"] for row in done.history]
    assert np.mean(losses[3:]) < np.mean(losses[:3])


def test_a_model_of_pieces_is_refused(tmp_path: Path) -> None:
    base = tiny.ctc(tmp_path / "base", "parakeet-ctc")
    with pytest.raises(JobError, match="parakeet_ctc model has no head of characters") as caught:
        small.begin(source(base, waveform=False))
    assert caught.value.failure == "ModelInvalid"


def test_a_spelling_is_what_it_was(tmp_path: Path) -> None:
    learner = small.begin(source(tiny.ctc(tmp_path / "base", "wav2vec2")))
    assert isinstance(learner.was, Spelling)
    assert learner.comparable


def test_dropouts_are_those_asked_for() -> None:
    asked = network.Dropouts(values=0.3, layers=0.2)
    config = network.made(small.ARCHITECTURE, vocabulary=8, masks=Masks(), dropouts=asked).config
    names = ("attention", "hidden", "activation", "feat_proj", "final")
    assert ({getattr(config, f"{name}_dropout") for name in names}, config.layerdrop) == ({0.3}, 0.2)

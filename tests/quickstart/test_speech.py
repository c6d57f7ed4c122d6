"""The quickstart's speech, clips and model are what their cards say."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from transformers import AutoModelForCTC, AutoProcessor, AutoTokenizer

from tests.quickstart import corpus, score
from tests.quickstart.clips import RECIPES
from tests.quickstart.sentences import LETTERS, VOCABULARY, all_sentences, split
from tests.quickstart.speech import Samples, add_noise, say

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "specs" / "quickstart"
MODEL = QUICKSTART / "model"
SENTENCE = "o cachorro comprou três maçãs"

# transformers leaves the JSON files it reads to the collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def manifest() -> list[dict[str, str]]:
    lines = (QUICKSTART / "clips.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def load(name: str) -> Samples:
    """A committed clip as the mean of its channels at 16 kHz, shape (n,)."""
    samples, hertz = soundfile.read(QUICKSTART / "clips" / name, dtype="float32", always_2d=True)
    return corpus.resample(samples.mean(axis=1), hertz, corpus.HERTZ)


@pytest.mark.parametrize("voice", ["pt-br", "pt", "pt-br+f2", "pt-br+klatt4"])
def test_the_same_words_are_the_same_samples_whatever_was_said_before(voice: str) -> None:
    first, hertz = say(SENTENCE, voice=voice)
    say("ninguém", voice="pt+m3", rate=210, pitch=80)
    again, _ = say(SENTENCE, voice=voice)
    assert hertz == 22_050
    assert first.dtype == np.float32
    assert np.array_equal(first, again)


def test_another_process_says_the_same_samples() -> None:
    code = (
        f"import sys; from tests.quickstart.speech import say; sys.stdout.buffer.write(say({SENTENCE!r})[0].tobytes())"
    )
    there = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=60)
    assert there.stdout == say(SENTENCE)[0].tobytes()


def test_voice_rate_and_pitch_are_heard() -> None:
    plain, _ = say(SENTENCE)
    assert len(say(SENTENCE, rate=210)[0]) < len(plain)
    assert not np.array_equal(say(SENTENCE, pitch=80)[0], plain)
    assert not np.array_equal(say(SENTENCE, voice="pt")[0], plain)


@pytest.mark.parametrize("voice", ["xx", "pt-br+nobody", "pt-br+"])
def test_an_unknown_voice_is_refused(voice: str) -> None:
    with pytest.raises(ValueError, match="no voice"):
        say(SENTENCE, voice=voice)


def test_noise_has_the_asked_level_and_seed() -> None:
    samples = np.sin(np.arange(16_000, dtype=np.float32)) * np.float32(0.1)
    noisy = add_noise(samples, 10.0, seed=1)
    power = np.mean(samples**2) / np.mean((noisy - samples) ** 2)
    assert 10 * np.log10(power) == pytest.approx(10.0, abs=0.1)
    assert np.array_equal(noisy, add_noise(samples, 10.0, seed=1))
    assert not np.array_equal(noisy, add_noise(samples, 10.0, seed=2))


def test_held_out_sentences_were_never_trained_on() -> None:
    train, held_out = split(train=3000, held_out=300)
    assert not set(train) & set(held_out)
    assert held_out == split(train=100, held_out=300)[1]
    assert set("".join(all_sentences())) <= set(LETTERS) | {" "}


def test_the_manifest_names_the_clips_and_nothing_else() -> None:
    listed = [line["audio"] for line in manifest()]
    present = {f"clips/{path.name}" for path in (QUICKSTART / "clips").iterdir()}
    assert set(listed) == present
    assert len({line["id"] for line in manifest()}) == len(listed) >= 24


def test_the_texts_are_held_out_and_in_the_alphabet_of_the_model() -> None:
    _, held_out = split(train=0, held_out=300)
    texts = {line["audio"]: line["text"] for line in manifest()}
    assert {texts[f"clips/{recipe.name}"] for recipe in RECIPES} <= set(held_out)
    assert set("".join(texts.values())) <= set(VOCABULARY) | {" "}


def test_every_clip_decodes_as_its_name_says() -> None:
    for recipe in RECIPES:
        info = soundfile.info(QUICKSTART / "clips" / recipe.name)
        assert (info.samplerate, info.channels) == (recipe.hertz, 1), recipe.name
        assert info.subtype == recipe.subtype or recipe.subtype is None, recipe.name
    assert soundfile.info(QUICKSTART / "clips" / "long-90s.opus").duration == pytest.approx(90.0)
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.read(QUICKSTART / "clips" / "corrupt.flac")


def test_the_folders_stay_small_and_hold_no_pickles() -> None:
    assert sum(path.stat().st_size for path in (QUICKSTART / "clips").iterdir()) <= 2_000_000
    assert (MODEL / "model.safetensors").stat().st_size <= 3_000_000
    assert {path.suffix for path in MODEL.iterdir()} == {".json", ".safetensors", ".md"}


def test_the_model_stores_no_path() -> None:
    for path in MODEL.glob("*.json"):
        text = path.read_text("utf-8")
        assert "name_or_path" not in text
        assert '"/' not in text, f"{path.name} holds an absolute path"


def test_the_model_loads_as_any_published_one_does() -> None:
    model = AutoModelForCTC.from_pretrained(MODEL)
    processor = AutoProcessor.from_pretrained(MODEL)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    assert tokenizer.get_vocab() == VOCABULARY
    assert tokenizer.pad_token_id == model.config.pad_token_id == 0
    assert tokenizer.word_delimiter_token == "|"
    assert processor.feature_extractor.return_attention_mask
    assert processor.feature_extractor.do_normalize
    assert model.config.vocab_size == len(VOCABULARY)


def test_ten_clean_clips_are_read_almost_without_error() -> None:
    model = AutoModelForCTC.from_pretrained(MODEL)
    texts = {line["audio"]: line["text"] for line in manifest()}
    clips = [(texts[f"clips/{recipe.name}"], load(recipe.name)) for recipe in RECIPES[:10]]
    assert score.word_errors(model, clips).word_error_rate <= 0.10


def test_near_silence_is_read_as_nothing() -> None:
    model = AutoModelForCTC.from_pretrained(MODEL)
    assert score.read(model, load("near-silence.flac")) == ""

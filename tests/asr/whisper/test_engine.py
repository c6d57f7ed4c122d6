"""Whisper from a folder to a transcript: tiny models, so the words mean little and the mechanics are real."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.models.whisper.generation_whisper import _dynamic_time_warping

from runner.asr import confidence, sequence, windows
from runner.asr.header import Header
from runner.asr.pieces import Outcome, Piece, Said, Setup, Source
from runner.asr.whisper import times as whisper_times
from runner.asr.whisper.engine import Heard, Whisper
from runner.registry.resolve import resolve
from runner.schema.errors import JobError
from tests.asr import tiny
from tests.asr.whisper import tiny_whisper
from tests.jobs.helpers import clips, manifest, transcribe

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # transformers leaves JSON files open
NAMES = ("wav-22k.wav", "flac-16k.flac", "long-90s.opus", "near-silence.flac", "corrupt.flac")
SOUNDS = [tiny.sound(seconds, seed=at) for at, seconds in enumerate((1.5, 4.0, 20.0, 0.7))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_whisper.save(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_whisper.taught(tmp_path_factory.mktemp("taught"))


def engine_setup(folder: Path, *, language: str | None = "pt", beam_size: int = 1, trusted: bool = False) -> Setup:
    source = Source(
        folder=str(folder),
        rate=16000,
        stride=320,
        receptive=1040,
        waveform=False,
        normalise=False,
        mask=True,
        trust_remote_code=trusted,
    )
    return Setup(
        source=source,
        task="seq2seq",
        precision="fp32",
        device="cpu",
        threads=1,
        beam_size=beam_size,
        timestamps="word",
        silence_db=-60,
        language=language,
    )


def engine(folder: Path, **options: Any) -> Whisper:
    return Whisper(engine_setup(folder, **options), dtype=torch.float32)


def reference(folder: Path, sound: Any, **options: Any) -> tuple[Any, Any, Any]:
    """The model, features and what transformers' own `generate` gives, kept from time tokens too."""
    model: Any = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    special = range(tiny_whisper.END + 1, model.config.vocab_size)
    options["suppress_tokens"] = sorted({*model.generation_config.suppress_tokens, *special})
    features = WhisperFeatureExtractor.from_pretrained(folder)(sound, sampling_rate=16000, return_tensors="pt")
    made = model.generate(features["input_features"], task="transcribe", return_dict_in_generate=True, **options)
    return model, features["input_features"], made


def test_the_registry_knows_it(folder: Path) -> None:
    found = resolve(str(folder), folder=folder)
    assert (found.family.name, found.family.task) == ("whisper", "seq2seq")


def test_words_have_times_inside_the_recording(folder: Path, tmp_path: Path) -> None:
    data = {"manifest": manifest(tmp_path, clips(*NAMES))}
    made = transcribe(tmp_path, model={"id": str(folder)}, data=data, decode={"language": "pt"}, outputs=["srt"])
    assert made.result.exit_code == 0, made.result.message
    by_name = {Path(row["path"]).name: row for row in made.rows}
    assert by_name["corrupt.flac"]["status"] == "decode_error"
    assert by_name["near-silence.flac"]["status"] == "empty"
    words = by_name["long-90s.opus"]["words"]
    assert words
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert times[0] >= 0
    assert 60 < times[-1] <= by_name["long-90s.opus"]["duration_s"]  # the last window of the recording has its say
    assert all(0 <= w["confidence"] <= 1 for w in words)
    assert " ".join(w["word"] for w in words) == by_name["long-90s.opus"]["text"]


@pytest.mark.parametrize("decode", [{}, {"beam_size": 2, "language": "pt"}], ids=["greedy", "beams"])
def test_no_batch_changes_a_byte(folder: Path, tmp_path: Path, decode: dict[str, Any]) -> None:
    rows = manifest(tmp_path, clips("wav-22k.wav", "flac-16k.flac", "wav-48k.wav", "long-90s.opus"))
    model = {"id": str(folder)}
    made = [
        transcribe(tmp_path, name=name, model=model, data={"manifest": rows}, batch=batch, decode=decode, store=name)
        for name, batch in (("one", {"files": 1}), ("all", {"files": 64}))
    ]
    assert made[0].transcripts == made[1].transcripts
    assert any(row["words"] for row in made[0].rows)


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("language", [None, "pt"])
def test_windows_computed_together_say_what_each_says_alone(folder: Path, beam_size: int, language: str | None) -> None:
    """The way of GPUs, on this CPU by another name: texts of different lengths, padded."""
    ours = engine(folder, beam_size=beam_size, language=language)
    alone = ours.compute(SOUNDS)
    ours._setup = replace(ours._setup, device="cpu:0")
    for one, other in zip(ours.compute(SOUNDS), alone, strict=True):
        assert (one.texts, one.language) == (other.texts, other.language)
        np.testing.assert_array_equal([one.first, one.last], [other.first, other.last])
        np.testing.assert_allclose(one.sure, other.sure, atol=1e-4)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_texts_are_those_of_generate(folder: Path, beam_size: int) -> None:
    read = AutoTokenizer.from_pretrained(folder)
    for sound, heard in zip(SOUNDS, engine(folder, beam_size=beam_size).compute(SOUNDS), strict=True):
        _, _, made = reference(folder, sound, language="pt", num_beams=beam_size)
        text = read.decode(made["sequences"][0], skip_special_tokens=True)
        assert "".join(heard.texts) == f" {text.removeprefix(' ')}"


def test_confidence_is_the_certainty_of_what_each_token_was_chosen_from(folder: Path) -> None:
    sound = SOUNDS[1]
    _, _, made = reference(folder, sound, language="pt", output_scores=True)
    text = made["sequences"][0, 4:].tolist()
    certain = confidence.certainty(torch.log_softmax(torch.cat(made["scores"]), dim=-1).numpy())
    ours = engine(folder)
    (heard,) = ours.compute([sound])
    words = ours._tokens.words(ours._tokens.text(text), language="pt")
    assert [word.text for word in words] == list(heard.texts)
    wanted = [certain[word.first : word.last].mean() for word in words]
    np.testing.assert_allclose(heard.sure[1:], wanted[1:], atol=1e-4)  # the first could not have been the end


def test_each_word_has_its_own_confidence_with_beams(folder: Path) -> None:
    for heard in engine(folder, beam_size=3).compute(SOUNDS):
        assert len(set(heard.sure)) == len({*zip(heard.texts, heard.sure, strict=True)})
        assert len(set(heard.sure)) > 1


@pytest.mark.parametrize("hears", ["ja", "pt"])
def test_a_language_that_it_detects_is_used(tmp_path: Path, hears: str) -> None:
    folder = tiny_whisper.save(tmp_path, hears=hears)
    model, features, _ = reference(folder, SOUNDS[1], language=hears)
    assert model.detect_language(features).item() == model.generation_config.lang_to_id[f"<|{hears}|>"]
    detected, told = (engine(folder, language=language).compute(SOUNDS) for language in (None, hears))
    assert [one.language for one in detected] == [hears] * len(SOUNDS)
    assert [one.texts for one in detected] == [one.texts for one in told]
    letters = [sum(c in tiny_whisper.LETTERS for c in text) for one in detected for text in one.texts]
    assert (max(letters) == 1) == (hears == "ja")  # written without spaces: each letter is a word


def test_each_recording_says_which_language_was_detected(tmp_path: Path) -> None:
    folder = tiny_whisper.save(tmp_path / "hears", hears="ja")
    rows = manifest(tmp_path, clips("wav-22k.wav", "long-90s.opus", "near-silence.flac"))
    made = transcribe(tmp_path, model={"id": str(folder)}, data={"manifest": rows})
    languages = {Path(row["path"]).name: row.get("language") for row in made.rows}
    assert languages == {"wav-22k.wav": "ja", "long-90s.opus": "ja", "near-silence.flac": None}


def test_languages_reach_the_model(folder: Path, tmp_path: Path) -> None:
    rows = manifest(tmp_path, clips("wav-22k.wav", "flac-16k.flac", "wav-48k.wav"))
    texts = [
        transcribe(tmp_path, name=name, model={"id": str(folder)}, data={"manifest": rows}, decode={"language": name})
        for name in ("pt", "ja")
    ]
    assert texts[0].texts != texts[1].texts


@pytest.mark.parametrize(
    ("decode", "said"),
    [
        ({"language": "xx"}, "decode.language 'xx' is unknown to this model; it knows en, ja, pt"),
        ({"timestamps": "char"}, "decode.timestamps is 'char', but whisper spells in pieces: take word or none"),
    ],
    ids=["language", "char"],
)
def test_what_it_cannot_do_is_said(folder: Path, tmp_path: Path, decode: dict[str, str], said: str) -> None:
    rows = manifest(tmp_path, clips("wav-22k.wav"))
    made = transcribe(tmp_path, model={"id": str(folder)}, data={"manifest": rows}, decode=decode)
    assert made.result.failure == "ModelInvalid"
    assert said in made.result.message


def test_an_english_model_is_not_told_another_language(tmp_path: Path) -> None:
    folder = tiny_whisper.save(tmp_path / "english", multilingual=False)
    with pytest.raises(JobError, match="knows English only"):
        engine(folder, language="pt")
    heard = engine(folder, language=None).compute(SOUNDS)
    assert [one.texts for one in heard] == [one.texts for one in engine(folder, language="en").compute(SOUNDS)]
    assert {one.language for one in heard} == {None}


def test_without_named_heads_times_come_from_the_upper_half(tmp_path: Path) -> None:
    ours = engine(tiny_whisper.save(tmp_path / "plain", heads=False))
    assert ours._heads == {1: [0, 1, 2, 3]}
    (heard,) = ours.compute([SOUNDS[2]])
    assert len(set(heard.first.tolist())) > 1


def test_a_head_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    made = tiny_whisper.save(tmp_path / "odd")
    settings = json.loads((made / "generation_config.json").read_text("utf-8"))
    tiny.write_json(made / "generation_config.json", {**settings, "alignment_heads": [[2, 0]]})
    with pytest.raises(JobError, match=r"names alignment head \[2, 0\], but the decoder has 2 layers of 4 heads"):
        engine(made)


def test_only_the_second_reading_shows_its_attention(folder: Path) -> None:
    ours = engine(folder)
    assert ours.about["attention"] == "sdpa"
    used: list[tuple[int, str]] = []
    layers = ours._model.get_decoder().layers
    for layer in layers:
        layer.encoder_attn.register_forward_pre_hook(
            lambda part, args, kwargs: used.append((args[0].shape[1], part.config._attn_implementation)),
            with_kwargs=True,
        )
    ours.compute([SOUNDS[1]])
    *written, _, _ = used
    assert {attention for _, attention in written} == {"sdpa"}
    assert [attention for _, attention in used[-2:]] == ["eager", "eager"]
    assert all(layer.encoder_attn.config is ours._model.config for layer in layers)


def test_nan_is_said_and_nothing_breaks(tmp_path: Path) -> None:
    folder = tiny_whisper.save(tmp_path / "broken")
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        model.get_decoder().layer_norm.weight.fill_(float("nan"))
    model.save_pretrained(folder)
    made = transcribe(tmp_path, model={"id": str(folder)}, data={"manifest": manifest(tmp_path, clips("wav-22k.wav"))})
    assert [row["error"]["class"] for row in made.rows] == ["NaN"]


@pytest.mark.parametrize("part", ["FeatureExtractor", "Tokenizer"])
def test_code_of_the_folder_runs_only_when_trusted(tmp_path: Path, part: str) -> None:
    folder = tiny_whisper.save(tmp_path)
    mark = tmp_path / "ran"
    (folder / "own.py").write_text(
        f"from transformers import Whisper{part}\nopen({str(mark)!r}, 'w').close()\n\n\n"
        f"class Own(Whisper{part}):\n    pass\n",
        "utf-8",
    )
    (folder / "processor_config.json").unlink()
    extract: dict[str, Any] = WhisperFeatureExtractor(feature_size=80).to_dict()
    tokens: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    if part == "Tokenizer":
        tokens |= {"auto_map": {"AutoTokenizer": ["own.Own", None]}}
    else:
        extract |= {"auto_map": {"AutoFeatureExtractor": "own.Own"}, "feature_extractor_type": "Own"}
    tiny.write_json(folder / "preprocessor_config.json", extract)
    tiny.write_json(folder / "tokenizer_config.json", tokens)
    if part == "Tokenizer":  # transformers has its own for this model
        engine(folder)
    else:
        with pytest.raises(JobError, match="custom code"):
            engine(folder)
    assert not mark.exists()
    assert engine(folder, trusted=True).compute([SOUNDS[0]])[0].texts
    assert mark.exists()


def test_paths_are_those_of_transformers() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        costs = random.normal(size=(random.integers(1, 30), random.integers(1, 90)))
        for ours, theirs in zip(whisper_times.path(costs), _dynamic_time_warping(costs), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_times_follow_the_attention() -> None:
    weights = torch.full((2, 6, 60), 0.001)
    edges = [0, 8, 20, 31, 45, 60]
    for row, (first, last) in enumerate(pairwise(edges), start=1):
        weights[:, row, first:last] = 0.1
    found = whisper_times.begins(weights, skip=1, median=7)
    assert np.abs(found - edges[:-1]).max() <= 1


def said(words: Sequence[tuple[str, float, float]], *, confidence: float = 0.9) -> list[Said]:
    return [Said(text=f" {word}", start=a, end=b, confidence=confidence, language=None) for word, a, b in words]


@pytest.mark.parametrize("length_s", [6.0, 20.0])
def test_no_word_is_doubled_or_lost_where_windows_meet(length_s: float) -> None:
    """Each window hears the words wholly inside it, puts them up to 0.25 s off, and may mishear one it cut through."""
    random = np.random.default_rng(0)
    cut = windows.cut(length_s=length_s, context_s=1, rate=16000, stride=320, receptive=1040)
    setup = engine_setup(Path("nowhere"))
    for _ in range(100):
        ends = np.cumsum(random.uniform(0.15, 0.9, size=150))
        words = [(f"w{random.integers(300)}", a, b) for a, b in pairwise(ends)]
        samples = round(16000 * (ends[-1] + 0.5))
        heard: list[Said] = []
        for index in range(cut.count(samples)):
            window = cut.window(samples, index)
            low, high = window.first / 16000, window.last / 16000
            places = np.sort(random.uniform(-0.25, 0.25, size=len(words)) + [b for _, _, b in words])
            moved = [
                (word if low <= a and b <= high else "cut", max(low, start), min(high, max(low, end)))
                for (word, a, b), (start, end) in zip(words[1:], pairwise(places), strict=True)
                if a < high and low < b
            ]
            heard += sequence.kept(said(moved), window, first=0, setup=setup)
        found = sequence.decoded_of(heard, setup=setup)
        assert found.text.split() == [word for word, _, _ in words[1:]]
        times = [time for word in found.words for time in (word.start, word.end)]
        assert times == sorted(times)


def test_windows_that_share_no_word_are_joined_by_their_times() -> None:
    cut = windows.cut(length_s=6, context_s=1, rate=16000, stride=320, receptive=1040)
    setup, second = engine_setup(Path("nowhere")), cut.window(160000, 1)
    at = second.keep_from / 50
    left = said([("a", at - 2, at - 0.9), ("b", at - 0.3, at + 0.1), ("x", at + 0.2, at + 0.5)])
    right = said([("y", at - 0.8, at - 0.6), ("c", at - 0.15, at + 0.2), ("d", at + 0.2, at + 1)])
    joined = [*left, *sequence.kept(right, second, first=0, setup=setup)]
    assert sequence.decoded_of(joined, setup=setup).text == "a b d"  # b and c are one sound, heard differently


def test_only_words_of_spaced_languages_get_a_space(folder: Path) -> None:
    tokens, read = engine(folder)._tokens, AutoTokenizer.from_pretrained(folder)
    for language, text, words in (
        ("pt", "ab c", [" ab", " c"]),
        ("pt", " ab c", [" ab", " c"]),
        (None, "ab\nc", [" ab", "\nc"]),
        ("ja", "ab c", ["a", "b ", "c"]),
        ("pt", " ", []),
    ):
        ids = read(text, add_special_tokens=False)["input_ids"]
        assert [word.text for word in tokens.words(ids, language=language)] == words


def test_a_word_in_a_pause_moves_to_the_sound_beside_it() -> None:
    loud = ~np.isin(np.arange(500), range(200, 280))
    spans = [(100, 150), (180, 250), (205, 230), (215, 230), (250, 270), (264, 264), (265, 265)]
    found = [whisper_times.audible(loud, first=first, last=last, reach=15) for first, last in spans]
    assert found == [(100, 150), (180, 200), (190, 200), None, (280, 285), None, (280, 281)]
    assert whisper_times.audible(loud & False, first=100, last=150, reach=15) is None


def test_only_a_word_far_from_all_sound_is_dropped(folder: Path) -> None:
    first, last = np.array([100, 205, 235, 300]), np.array([150, 235, 245, 340])
    texts = (" um", " dois", " nada", " três")
    heard = Heard(language="pt", texts=texts, first=first, last=last, sure=np.full(4, 0.9))
    header = Header(frames=176000, rate=16000, channels=1, reader="soundfile", slack_s=0.1)
    place: dict[str, Any] = {"first": 16000, "last": 176000, "keep_from": 0, "keep_to": None}
    piece = Piece(item=0, window=0, alone=True, path="", header=header, channel=None, **place)
    loud = ~np.isin(np.arange(500), range(200, 280))
    outcome = engine(folder).finish(Outcome(item=0, window=0, samples=160000), piece, heard, loud)
    times = [(one.text, round(one.start, 6), round(one.end, 6)) for one in outcome.said or ()]
    assert times == [(" um", 3.0, 4.0), (" dois", 4.8, 5.0), (" três", 7.0, 7.8)]


def test_nothing_is_said_where_nothing_can_be_heard(folder: Path, tmp_path: Path) -> None:
    samples = np.concatenate([np.zeros(32000), tiny.sound(3.0, seed=3), np.zeros(160000)])
    soundfile.write(tmp_path / "pause.wav", samples, 16000)
    made = transcribe(tmp_path, model={"id": str(folder)}, data={"audio": ["pause.wav"]})
    (row,) = made.rows
    assert row["words"]
    assert min(word["start"] for word in row["words"]) >= 1.8  # 0.2 s before the sound may still belong to it
    assert max(word["end"] for word in row["words"]) <= 5.2


@pytest.mark.slow
@pytest.mark.parametrize("length_s", [10.0, 6.0])
def test_what_is_said_is_written_once_at_its_place(taught: Path, tmp_path: Path, length_s: float) -> None:
    """Three recordings of 90 s and 12 s of silence: no word twice, none lost, none in the silence."""
    rows = []
    for seed in range(3):
        samples, tones = tiny_whisper.tones(90, seed=100 + seed)
        soundfile.write(tmp_path / f"{seed}.wav", np.append(samples, np.zeros(12 * 16000)), 16000)
        rows.append({"audio": f"{seed}.wav", "text": " ".join(tone.letter for tone in tones), "id": str(seed)})
    data = {"manifest": manifest(tmp_path, rows)}
    made = transcribe(tmp_path, model={"id": str(taught)}, data=data, window={"length_s": length_s})
    assert made.manifest["metrics"]["wer"] < 0.02  # 0.037 and 0.064 when joined by the middles of words
    assert max(word["end"] for row in made.rows for word in row["words"]) < 90.3

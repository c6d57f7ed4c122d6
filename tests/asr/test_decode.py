"""Greedy decoding: the text of transformers' tokenizers, times on the frame grid."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from runner.asr.alphabet import load
from runner.asr.decode import Decoded, decode
from runner.schema.errors import JobError
from tests.asr.signals import ALPHABET, SYMBOLS, noise, spoken

QUICKSTART = Path(__file__).parents[2] / "specs" / "quickstart"
PATHS = st.text(alphabet="_|?abl", max_size=60)


def heard(path: str, **options: Any) -> Decoded:
    return decode(spoken(path), alphabet=ALPHABET, **{"frame_s": 0.02, **options})


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("", ""),
        ("____", ""),
        ("||||", ""),
        ("aabb", "ab"),
        ("l_l", "ll"),
        ("l?l", "ll"),
        ("ll", "l"),
        ("_a__|__b_", "a b"),
        ("a|_|b", "a b"),
        ("|a|", "a"),
        ("a?|?b", "a b"),
    ],
)
def test_text(path: str, text: str) -> None:
    assert heard(path).text == text


def test_times_are_whole_frames() -> None:
    decoded = heard("_aa_b_|l__", timestamps="char", offset_s=10.0)
    first, second = decoded.words
    assert (first.word, first.start, first.end) == ("ab", 10.02, 10.10)
    assert [(char.char, char.start, char.end) for char in first.chars] == [("a", 10.02, 10.06), ("b", 10.08, 10.10)]
    assert (second.word, second.start, second.end) == ("l", 10.14, 10.16)


def test_last_frame_may_reach_over_the_end() -> None:
    assert heard("_a", frame_s=0.08, end_s=0.1).words[0].end == 0.1


def test_granularity() -> None:
    assert heard("ab", timestamps="none").words == ()
    assert heard("ab", timestamps="none").text == "ab"
    assert heard("ab", timestamps="none").confidence == heard("ab").confidence
    assert heard("ab").words[0].chars == ()


def test_silence_has_no_confidence() -> None:
    assert heard("____") == Decoded(text="", confidence=None)
    assert heard("") == Decoded(text="", confidence=None)


def test_lower_case_is_of_the_whole_word(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "|": 1, "Ο": 2, "Σ": 3}), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}', encoding="utf-8")
    alphabet = load(tmp_path, vocab_size=4, blank=0)
    sure = np.log(np.eye(4)[[3, 2, 3, 1, 2]] * 0.96 + 0.01).astype(np.float32)
    assert decode(sure, alphabet=alphabet, frame_s=0.02).text == "σος ο"  # a sigma that ends a word has its own form


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_broken_output_is_an_error(value: float) -> None:
    broken = spoken("abab")
    broken[2] = value
    with pytest.raises(JobError, match="NaN") as error:
        decode(broken, alphabet=ALPHABET, frame_s=0.02)
    assert error.value.failure == "NaN"


@given(path=PATHS, offset_s=st.integers(0, 360_000), frame_s=st.sampled_from([0.02, 0.04, 0.08]))
def test_times_are_monotonic_and_inside(path: str, offset_s: int, frame_s: float) -> None:
    decoded = heard(path, timestamps="char", offset_s=float(offset_s), frame_s=frame_s)
    clock = float(offset_s)
    for word in decoded.words:
        assert clock <= word.start < word.end <= round(offset_s + len(path) * frame_s, 3)
        clock = word.end
        assert "".join(char.char for char in word.chars) == word.word
        assert word.chars[0].start == word.start
        assert word.chars[-1].end == word.end
        assert all(left.end <= right.start for left, right in zip(word.chars, word.chars[1:], strict=False))
        assert 0 <= word.confidence <= 1
    assert decoded.text == " ".join(word.word for word in decoded.words)


@given(path=PATHS)
def test_frames_may_be_stretched(path: str) -> None:
    assert heard("".join(sign * 2 for sign in path)).text == heard(path).text


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import Wav2Vec2CTCTokenizer  # 2 s; only the tests against it need it

    file = tmp_path_factory.mktemp("letters") / "vocab.json"
    file.write_text(json.dumps({symbol: id_ for id_, symbol in enumerate(SYMBOLS)}), encoding="utf-8")
    return Wav2Vec2CTCTokenizer(str(file))


def plain(text: str) -> str:
    """Without special tokens, runs of spaces as one: what we show of their text."""
    return " ".join(re.sub(r"<s>|</s>|<unk>", "", text).split())


@pytest.mark.parametrize("seed", range(40))
def test_text_is_that_of_transformers(theirs: Any, seed: int) -> None:
    output = noise(seed, frames=200 + seed, vocab=len(SYMBOLS))
    output[:, :5] += seed % 5  # more blanks, gaps and special tokens than letters, as in speech
    expected = plain(theirs.decode(output.argmax(axis=1)))
    assert expected
    assert decode(output, alphabet=ALPHABET, frame_s=0.02).text == expected


@pytest.mark.parametrize("seed", range(10))
def test_words_and_times_are_those_of_transformers(theirs: Any, seed: int) -> None:
    output = noise(seed, frames=300, vocab=len(SYMBOLS))
    output[:, 1:4] = -50.0  # they show special tokens, we do not
    expected = theirs.decode(output.argmax(axis=1), output_word_offsets=True, output_char_offsets=True)
    words = decode(output, alphabet=ALPHABET, frame_s=0.02, timestamps="char").words
    frames = [(word.word, round(word.start / 0.02), round(word.end / 0.02)) for word in words]
    assert frames == [
        (word["word"].strip(), word["start_offset"], word["end_offset"]) for word in expected.word_offsets
    ]
    chars = [(char.char, round(char.start / 0.02), round(char.end / 0.02)) for word in words for char in word.chars]
    letters = [char for char in expected.char_offsets if char["char"] != " "]
    assert chars == [(char["char"], char["start_offset"], char["end_offset"]) for char in letters]


def test_text_of_pieces_is_that_of_transformers(tmp_path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers.models.parakeet.tokenization_parakeet import ParakeetTokenizer

    pieces = ["<unk>", "▁", "▁o", "l", "á", "▁mundo", "s", "c", "ão"]
    inner = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    inner.add_special_tokens([AddedToken("<pad>")])
    tokenizer = ParakeetTokenizer(tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>")
    tokenizer.save_pretrained(tmp_path)
    alphabet = load(tmp_path, vocab_size=10, blank=9)
    for seed in range(30):
        output: NDArray[np.float32] = noise(seed, frames=120, vocab=10)
        expected = plain(tokenizer.decode(output.argmax(axis=1).tolist()))
        assert decode(output, alphabet=alphabet, frame_s=0.08).text == expected


def test_text_of_real_output_is_that_of_transformers() -> None:
    """The quickstart's model on those of its clips that are 16 kHz and mono as they are."""
    import soundfile
    import torch
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

    model = Wav2Vec2ForCTC.from_pretrained(QUICKSTART / "model")
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(QUICKSTART / "model")
    alphabet = load(QUICKSTART / "model", vocab_size=model.config.vocab_size, blank=model.config.pad_token_id)
    compared = 0
    for clip in sorted((QUICKSTART / "clips").glob("*-16k.*")):
        samples, _ = soundfile.read(clip, dtype="float32")
        with torch.inference_mode():
            scores = model.eval()(torch.from_numpy((samples - samples.mean()) / samples.std())[None]).logits
        output = scores.log_softmax(-1)[0].numpy()
        expected = plain(tokenizer.decode(output.argmax(axis=1)))
        assert decode(output, alphabet=alphabet, frame_s=0.02).text == expected
        compared += len(expected) > 0
    assert compared >= 2

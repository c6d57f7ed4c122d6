"""Reads clips with a CTC model and counts the wrong words: plain, batch 1, greedy.

    python -m tests.quickstart.score specs/quickstart/model

prints the table of that folder's README: sentences and voices that were never trained on, nor chose the checkpoint.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import torch
from transformers import Wav2Vec2ForCTC

from tests.quickstart import corpus
from tests.quickstart.corpus import HERTZ
from tests.quickstart.sentences import VOCABULARY, split
from tests.quickstart.speech import Samples, add_noise

FRAME = 320  # samples between two frames: 20 ms
BLANK = VOCABULARY["<pad>"]
WINDOWS = ((6.0, 0.5), (10.0, 1.0), (5.0, 0.0))  # seconds of each, and of the context on both sides
_CHARACTERS = {index: token for token, index in VOCABULARY.items()}


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Word and character errors with the counts they come from."""

    words_wrong: int
    words: int
    characters_wrong: int
    characters: int

    @property
    def word_error_rate(self) -> float:
        """Substitutions, deletions and insertions per reference word."""
        return self.words_wrong / self.words

    def __str__(self) -> str:
        words = f"WER {self.word_error_rate:.2%} ({self.words_wrong}/{self.words})"
        rate = self.characters_wrong / self.characters
        return f"{words} CER {rate:.2%} ({self.characters_wrong}/{self.characters})"


def word_errors(model: Wav2Vec2ForCTC, clips: Sequence[tuple[str, Samples]]) -> Errors:
    """Read (text, 16 kHz samples) pairs one by one and count the errors over all of them."""
    return compare([text for text, _ in clips], [read(model, samples) for _, samples in clips])


def compare(references: list[str], hypotheses: list[str]) -> Errors:
    """Count word and character errors of the same clips in the same order."""
    words = jiwer.process_words(references, hypotheses)
    letters = jiwer.process_characters(references, hypotheses)
    return Errors(
        words_wrong=words.substitutions + words.deletions + words.insertions,
        words=words.hits + words.substitutions + words.deletions,
        characters_wrong=letters.substitutions + letters.deletions + letters.insertions,
        characters=letters.hits + letters.substitutions + letters.deletions,
    )


def read(model: Wav2Vec2ForCTC, samples: Samples) -> str:
    """Greedy text of one 16 kHz clip, shape (n,), in one pass."""
    return spell(frame_ids(model, samples))


def read_windows(model: Wav2Vec2ForCTC, samples: Samples, *, window_s: float, context_s: float) -> str:
    """Greedy text of a long clip: windows of `window_s`, `context_s` on each side thrown away."""
    context = round(context_s * HERTZ / FRAME)
    step = round(window_s * HERTZ / FRAME) - 2 * context
    kept: list[int] = []
    for first in range(0, max(1, len(samples) // FRAME), step):
        start = max(0, first - context)
        piece = samples[start * FRAME : (first + step + context) * FRAME]
        if len(piece) < 2 * FRAME:
            break
        ids = frame_ids(model, piece)
        kept += ids[first - start : first - start + step]
    return spell(kept)


@torch.inference_mode()
def frame_ids(model: Wav2Vec2ForCTC, samples: Samples) -> list[int]:
    """Likeliest token of each 20 ms frame."""
    model.eval()
    inputs, mask = padded([samples])
    best: list[int] = model(inputs, attention_mask=mask).logits[0].argmax(-1).tolist()
    return best


def spell(ids: Sequence[int]) -> str:
    """CTC collapse: merge repeats, drop blanks, `|` becomes a space."""
    pairs = zip(ids, [BLANK, *ids], strict=False)
    tokens = [_CHARACTERS[now] for now, before in pairs if now not in (before, BLANK)]
    return " ".join("".join(tokens).replace("|", " ").split())


def padded(clips: Sequence[Samples]) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero-mean unit-variance clips padded to (batch, longest), and their mask of 0 and 1."""
    longest = max(len(clip) for clip in clips)
    values = np.zeros((len(clips), longest), dtype=np.float32)
    mask = np.zeros((len(clips), longest), dtype=np.int64)
    for row, clip in enumerate(clips):
        values[row, : len(clip)] = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
        mask[row, : len(clip)] = 1
    return torch.from_numpy(values), torch.from_numpy(mask)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="folder of the model")
    torch.set_num_threads(1)
    model = Wav2Vec2ForCTC.from_pretrained(parser.parse_args().model)
    _, sentences = split(train=0, held_out=corpus.HELD_OUT_SENTENCES)
    clips = corpus.render(sentences, voices=corpus.HELD_OUT_VOICES, seed=2)[corpus.VALIDATION_CLIPS :]
    read_all = [read(model, clip.samples) for clip in clips]
    print(f"{len(clips)} clips: {compare([clip.text for clip in clips], read_all)}")
    for voice in corpus.HELD_OUT_VOICES:
        said = [(clip.text, text) for clip, text in zip(clips, read_all, strict=True) if clip.voice == voice]
        print(f"voice {voice}: {compare([text for text, _ in said], [text for _, text in said])}")
    _changed(model, clips[:100])
    _joined(model, clips[:150])


def _changed(model: Wav2Vec2ForCTC, clips: Sequence[corpus.Utterance]) -> None:
    """The same clips through a telephone, and in noise."""
    changes: dict[str, Callable[[Samples, int], Samples]] = {
        "telephone band": lambda s, _: corpus.resample(corpus.resample(s, HERTZ, 8_000), 8_000, HERTZ)
    }
    for level in (20.0, 15.0, 10.0, 5.0):
        changes[f"noise at {level:g} dB"] = lambda s, seed, level=level: add_noise(s, level, seed)
    for name, change in changes.items():
        changed = [(clip.text, change(clip.samples, seed)) for seed, clip in enumerate(clips)]
        print(f"{len(clips)} clips, {name}: {word_errors(model, changed)}")


def _joined(model: Wav2Vec2ForCTC, clips: Sequence[corpus.Utterance]) -> None:
    """Files of thirty clips, 0.3 s apart."""
    groups = [clips[first : first + 30] for first in range(0, len(clips), 30)]
    texts = [" ".join(clip.text for clip in group) for group in groups]
    files = [corpus.join([clip.samples for clip in group], gap_s=0.3) for group in groups]
    print(f"{len(files)} files, one pass: {compare(texts, [read(model, file) for file in files])}")
    for window_s, context_s in WINDOWS:
        heard = [read_windows(model, file, window_s=window_s, context_s=context_s) for file in files]
        print(f"{len(files)} files, windows of {window_s:g} s, {context_s:g} s of context: {compare(texts, heard)}")


if __name__ == "__main__":
    main()

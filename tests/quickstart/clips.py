"""Renders the quickstart's clips and their manifest: held-out sentences, held-out voices.

    python -m tests.quickstart.clips --out specs/quickstart

Two dozen files in every format people send, and the ones that break careless readers.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from tests.quickstart import corpus
from tests.quickstart.corpus import HERTZ, Utterance
from tests.quickstart.sentences import split
from tests.quickstart.speech import Samples, add_noise, say

SEED = 3
LONG_S = 90.0
SPARE = 40  # the long clip takes its sentences after the short ones have had theirs


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One readable clip of a single voice."""

    name: str
    """File name; its ending chooses the container."""
    voice: str
    hertz: int
    """Sampling rate of the file, in Hz."""
    subtype: str | None = None
    """soundfile's encoding; None takes the container's default."""
    snr_db: float | None = None
    """Level of added white noise in decibels; None adds none."""


RECIPES = (
    Recipe(name="wav-22k.wav", voice="pt-br+m5", hertz=22_050),
    Recipe(name="wav-16k.wav", voice="pt+f3", hertz=16_000),
    Recipe(name="wav-8k-telephone.wav", voice="pt-br+f5", hertz=8_000),
    Recipe(name="wav-24bit-44k.wav", voice="pt+m6", hertz=44_100, subtype="PCM_24"),
    Recipe(name="wav-48k.wav", voice="pt-br+m5", hertz=48_000),
    Recipe(name="flac-16k.flac", voice="pt-br+f5", hertz=16_000),
    Recipe(name="flac-22k.flac", voice="pt+f3", hertz=22_050),
    Recipe(name="flac-24bit-48k.flac", voice="pt-br+m5", hertz=48_000, subtype="PCM_24"),
    Recipe(name="vorbis-22k.ogg", voice="pt-br+f5", hertz=22_050),
    Recipe(name="vorbis-44k.ogg", voice="pt+m6", hertz=44_100),
    Recipe(name="opus-16k.opus", voice="pt-br+m5", hertz=16_000),
    Recipe(name="opus-48k.opus", voice="pt+f3", hertz=48_000),
    Recipe(name="mp3-16k.mp3", voice="pt-br+f5", hertz=16_000),
    Recipe(name="mp3-44k.mp3", voice="pt-br+m5", hertz=44_100),
    Recipe(name="três maçãs à noite.flac", voice="pt+f3", hertz=16_000),
    Recipe(name="noise-25db.flac", voice="pt-br+m5", hertz=16_000, snr_db=25),
    Recipe(name="noise-20db.mp3", voice="pt+m6", hertz=22_050, snr_db=20),
    Recipe(name="noise-15db.opus", voice="pt-br+f5", hertz=16_000, snr_db=15),
    Recipe(name="noise-10db.ogg", voice="pt+f3", hertz=16_000, snr_db=10),
    Recipe(name="noise-5db.flac", voice="pt-br+m5", hertz=16_000, snr_db=5),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="gets clips/ and clips.jsonl")
    folder: Path = parser.parse_args().out
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    _, sentences = split(train=0, held_out=300)
    texts = {recipe.name: text for recipe, text in zip(RECIPES, sentences, strict=False)}
    for seed, recipe in enumerate(RECIPES):
        write_clip(folder / "clips" / recipe.name, recipe, texts[recipe.name], seed=seed)
    texts |= write_odd_ones(folder / "clips", sentences[len(RECIPES) : SPARE])
    texts["long-90s.opus"] = write_long(folder / "clips" / "long-90s.opus", sentences[SPARE:])
    lines = [
        {"audio": f"clips/{name}", "text": text, "id": f"{number:02}-{Path(name).stem}"}
        for number, (name, text) in enumerate(texts.items(), start=1)
    ]
    rows = [json.dumps(line, ensure_ascii=False) + "\n" for line in lines]
    (folder / "clips.jsonl").write_text("".join(rows), "utf-8")


def write_clip(path: Path, recipe: Recipe, text: str, *, seed: int) -> None:
    """Speak, add noise, resample and encode one clip; `seed` decides rate, pitch and noise."""
    generator = np.random.default_rng((SEED, seed))
    rate, pitch = int(generator.integers(145, 206)), int(generator.integers(38, 63))
    samples, hertz = say(text, voice=recipe.voice, rate=rate, pitch=pitch)
    samples = corpus.resample(samples, hertz, recipe.hertz)
    if recipe.snr_db is not None:
        samples = add_noise(samples, recipe.snr_db, seed)
    write(path, samples, recipe.hertz, subtype=recipe.subtype)


def write_odd_ones(folder: Path, sentences: list[str]) -> dict[str, str]:
    """Write the clips that need care; returns the text of each by file name."""
    first, second, third, fourth = corpus.render(sentences[:4], voices=corpus.HELD_OUT_VOICES, seed=SEED)
    hush = np.zeros_like(first.samples)
    write(folder / "stereo-right-silent.flac", np.stack([first.samples, hush], axis=1), HERTZ)
    write(folder / "stereo-dialogue.wav", dialogue(second, third), HERTZ)
    faint = np.random.default_rng(SEED).standard_normal(3 * HERTZ) * 10 ** (-70 / 20)
    write(folder / "near-silence.flac", faint.astype(np.float32), HERTZ)
    write(folder / "too-short.wav", fourth.samples[HERTZ : HERTZ + 300], HERTZ)
    rubbish = np.random.default_rng(SEED).bytes(4_000)
    (folder / "corrupt.flac").write_bytes(b"fLaC" + rubbish)
    return {
        "stereo-right-silent.flac": first.text,
        "stereo-dialogue.wav": f"{second.text} {third.text}",
        "near-silence.flac": "",
        "too-short.wav": "",
        "corrupt.flac": fourth.text,
    }


def dialogue(left: Utterance, right: Utterance) -> Samples:
    """Two speakers taking turns, one on each channel; shape (n, 2)."""
    gap = round(0.3 * HERTZ)
    channels = np.zeros((len(left.samples) + gap + len(right.samples), 2), dtype=np.float32)
    channels[: len(left.samples), 0] = left.samples
    channels[len(left.samples) + gap :, 1] = right.samples
    return channels


def write_long(path: Path, sentences: list[str]) -> str:
    """Join clips up to `LONG_S` seconds with pauses of 0.4 s; returns the whole text."""
    spoken = corpus.render(sentences, voices=corpus.HELD_OUT_VOICES, seed=SEED + 1)
    ends = np.cumsum([len(clip.samples) / HERTZ + 0.4 for clip in spoken])
    used = spoken[: int(np.searchsorted(ends, LONG_S))]
    samples = corpus.join([clip.samples for clip in used], gap_s=0.4)
    samples = np.pad(samples, (0, round(LONG_S * HERTZ) - len(samples)))
    write(path, samples, HERTZ)
    return " ".join(clip.text for clip in used)


def write(path: Path, samples: Samples, hertz: int, *, subtype: str | None = None) -> None:
    """Encode (n,) or (n, channels) samples; the ending chooses the container."""
    lossy = {".opus": ("OGG", "OPUS"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", None)}
    container, encoding = lossy.get(path.suffix, (None, subtype))
    soundfile.write(path, samples, hertz, encoding, format=container)


if __name__ == "__main__":
    main()

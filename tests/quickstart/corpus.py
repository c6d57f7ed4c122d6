"""Speaks sentences with many voices at 16 kHz: what the model is trained and scored on.

    python -m tests.quickstart.corpus --out specs/training

writes speech/ beside the tables of specs/training/train.yaml, train.jsonl and validation.jsonl, and writes those
anew: the same bytes each time. Sentences and voices of the validation are in no training clip.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from tests.quickstart.sentences import split
from tests.quickstart.speech import Samples, add_noise, say

HERTZ = 16_000
TRAIN_VOICES = (
    "pt-br", "pt-br+m1", "pt-br+m3", "pt-br+m7", "pt-br+f1", "pt-br+f2", "pt-br+linda",
    "pt", "pt+m2", "pt+m4", "pt+m7", "pt+f1", "pt+f2", "pt+f4",
)  # fmt: skip
HELD_OUT_VOICES = ("pt-br+m5", "pt-br+f5", "pt+f3", "pt+m6")
TELEPHONE_SHARE = 0.15
TRAIN_CLIPS, VALIDATION_CLIPS, HELD_OUT_SENTENCES = 6000, 100, 300
NOISY, NOISE_DB = 4, 20.0  # every fourth validation clip has white noise, so many dB below the speech


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One spoken sentence; `samples` has shape (n,) at 16 kHz, peak at most 1."""

    text: str
    voice: str
    samples: Samples


def render(
    sentences: Sequence[str],
    *,
    voices: Sequence[str],
    seed: int,
    telephone_share: float = 0.0,
    timbre: float = 0.0,
) -> list[Utterance]:
    """Speak each sentence with a seeded voice, rate (140..210 words a minute) and pitch (35..65).

    `telephone_share` of them, between 0 and 1, lose what a telephone's 8 kHz sampling loses.
    `timbre` is the largest share by which a clip is played faster or slower, which makes the
    speaker smaller or larger: a cheap crowd of further voices.
    """
    generator = random.Random(seed)
    spoken = []
    for text in sentences:
        voice = generator.choice(voices)
        rate, pitch = generator.randint(140, 210), generator.randint(35, 65)
        samples, hertz = say(text, voice=voice, rate=rate, pitch=pitch)
        if timbre > 0:
            hertz = round(hertz * generator.uniform(1.0 - timbre, 1.0 + timbre))
        if generator.random() < telephone_share:
            samples, hertz = resample(samples, hertz, 8_000), 8_000
        heard = resample(samples, hertz, HERTZ)
        spoken.append(Utterance(text=text, voice=voice, samples=heard))
    return spoken


def resample(samples: Samples, source: int, target: int) -> Samples:
    """Change the rate from `source` to `target` Hz; mono (n,) or (n, channels)."""
    changed: Samples = soxr.resample(samples, source, target, quality="HQ")
    return np.clip(changed, -1.0, 1.0)


def join(parts: Sequence[Samples], *, gap_s: float) -> Samples:
    """Concatenate 16 kHz clips with `gap_s` seconds of digital silence between them."""
    gap = np.zeros(round(gap_s * HERTZ), dtype=np.float32)
    pieces = [piece for part in parts for piece in (part, gap)]
    return np.concatenate(pieces[:-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="gets speech/, train.jsonl and validation.jsonl")
    folder: Path = parser.parse_args().out
    train, held_out = split(train=TRAIN_CLIPS, held_out=HELD_OUT_SENTENCES)
    spoken = render(train, voices=TRAIN_VOICES, seed=1, telephone_share=TELEPHONE_SHARE)
    write(folder, "train", [(clip, {"voice": clip.voice}) for clip in spoken])
    spoken = render(held_out[:VALIDATION_CLIPS], voices=HELD_OUT_VOICES, seed=2)
    write(folder, "validation", [noisy(clip, seed) for seed, clip in enumerate(spoken)])


def noisy(clip: Utterance, seed: int) -> tuple[Utterance, dict[str, str]]:
    """The clip, every fourth one with noise, and the columns that say so."""
    if seed % NOISY:
        return clip, {"voice": clip.voice, "noise": "none"}
    made = add_noise(clip.samples, NOISE_DB, seed)
    return Utterance(text=clip.text, voice=clip.voice, samples=made), {"voice": clip.voice, "noise": f"{NOISE_DB:g} dB"}


def write(folder: Path, name: str, clips: list[tuple[Utterance, dict[str, str]]]) -> None:
    """One table and its recordings; git leaves those alone."""
    speech = folder / "speech"
    speech.mkdir(parents=True, exist_ok=True)
    (speech / ".gitignore").write_text("*\n", "utf-8")
    lines = []
    for number, (clip, columns) in enumerate(clips):
        audio = f"speech/{name}-{number:04}.wav"
        soundfile.write(folder / audio, clip.samples, HERTZ)
        lines.append(json.dumps({"audio": audio, "text": clip.text, **columns}, ensure_ascii=False) + "\n")
    (folder / f"{name}.jsonl").write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main()

"""Speaks sentences with many voices at 16 kHz: what the model is trained and scored on."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import soxr

from tests.quickstart.speech import Samples, say

HERTZ = 16_000
TRAIN_VOICES = (
    "pt-br", "pt-br+m1", "pt-br+m3", "pt-br+m7", "pt-br+f1", "pt-br+f2", "pt-br+linda",
    "pt", "pt+m2", "pt+m4", "pt+m7", "pt+f1", "pt+f2", "pt+f4",
)  # fmt: skip
HELD_OUT_VOICES = ("pt-br+m5", "pt-br+f5", "pt+f3", "pt+m6")
TELEPHONE_SHARE = 0.15


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

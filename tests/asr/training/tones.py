"""A language that a tiny model learns in seconds: each letter is a tone, a space is a pause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

RATE = 16000
LETTERS = "abdeilmorã"
LETTER_S, GAP_S, SPACE_S = 0.09, 0.03, 0.15


def say(text: str, *, seed: int = 0) -> NDArray[np.float32]:
    """``text`` as tones with a little noise, [samples]."""
    random = np.random.default_rng(seed)
    parts = [np.zeros(round(GAP_S * RATE))]
    for character in text:
        if character == " ":
            parts.append(np.zeros(round(SPACE_S * RATE)))
            continue
        t = np.arange(round(LETTER_S * RATE)) / RATE
        hertz = 250 * 1.3 ** LETTERS.index(character) * random.uniform(0.98, 1.02)
        parts += [0.3 * np.sin(2 * np.pi * hertz * t) * np.hanning(len(t)), np.zeros(round(GAP_S * RATE))]
    samples = np.concatenate(parts)
    return (samples + 0.002 * random.standard_normal(len(samples))).astype(np.float32)


def texts(count: int, *, seed: int) -> list[str]:
    """Random words of 2 to 4 letters, 1 to 4 of them."""
    random = np.random.default_rng(seed)
    words = [["".join(random.choice(list(LETTERS), random.integers(2, 5))) for _ in range(4)] for _ in range(count)]
    return [" ".join(some[: random.integers(1, 5)]) for some in words]


def table(folder: Path, name: str, said: list[str], **columns: list[Any]) -> str:
    """Write a table ``name``.jsonl and its recordings into ``folder``; its file name."""
    folder.mkdir(exist_ok=True)
    rows = []
    for place, text in enumerate(said):
        audio = f"{name}-{place}.wav"
        soundfile.write(folder / audio, say(text, seed=place), RATE, subtype="FLOAT")
        rows.append({"audio": audio, "text": text, **{key: values[place] for key, values in columns.items()}})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(lines, "utf-8")
    return f"{name}.jsonl"

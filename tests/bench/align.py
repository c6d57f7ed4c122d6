"""Cells of the lattice per CPU-second: `python -m tests.bench.align`.

A cell is a state in a frame; a text of L symbols has 2L + 1 states. The plain loop visits all of them, and so does ours
where the lattice is small; of a long one it leaves out what cannot be on the best path, and counts as if it had not.
`python -m tests.bench.align --hour` adds an hour with its 50,000 letters (18 billion cells), some of them misheard.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from runner.asr.align import by_torchaudio as align_torchaudio
from runner.asr.align.search import align
from tests.asr.align.plain_viterbi import plain

VOCAB = 32
SIZES = ((150, 30), (500, 100), (1500, 300), (6000, 1500), (18_000, 5000))  # frames and letters: 3 s to 6 minutes
WIDTHS = (8, 8, 8, 8, 9, 9, 11, 13, 11)
LONGEST_PLAIN = 1500  # frames: the loop takes half a minute for them

Rows = NDArray[np.float32]
Symbols = NDArray[np.intp]


def speech(frames: int, letters: int, *, wrong: float) -> tuple[Rows, Symbols]:
    """Output as sharp as that of trained models; ``wrong`` of the letters were misheard."""
    random = np.random.default_rng(0)
    said = random.integers(1, VOCAB, size=letters)
    heard = np.where(random.random(letters) < wrong, random.integers(1, VOCAB, size=letters), said)
    scores = random.normal(size=(frames, VOCAB)).astype(np.float32)
    scores[:, 0] += 10
    scores[np.sort(random.choice(frames // 2, size=letters, replace=False)) * 2, heard] += 18
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True), said


def spent(search: Callable[..., object], rows: Rows, said: Symbols, *, times: int) -> float:
    """CPU-seconds, the best of ``times``."""
    found = []
    for _ in range(times):
        began = time.process_time()
        search(rows, said, blank=0)
        found.append(time.process_time() - began)
    return min(found)


def main() -> None:
    """Print one line for each length, then the hours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hour", action="store_true", help="align an hour, too: a minute or two")
    args = parser.parse_args()
    columns = (
        "frames",
        "letters",
        "Mcells",
        "ours s",
        "Mcells/s",
        "plain s",
        "times ours",
        "torchaudio s",
        "times ours",
    )
    print("CPU-seconds, the best of three; the plain loop once")
    print(" ".join(f"{name:>{width}}" for name, width in zip(columns, WIDTHS, strict=True)))
    for frames, letters in SIZES:
        rows, said = speech(frames, letters, wrong=0.1)
        cells = frames * (2 * letters + 1) / 1e6
        ours = spent(align, rows, said, times=3)
        figures = [f"{frames}", f"{letters}", f"{cells:.1f}", f"{ours:.4f}", f"{cells / ours:.0f}"]
        loop = spent(plain, rows, said, times=1) if frames <= LONGEST_PLAIN else None
        theirs = None if align_torchaudio.MISSING else spent(align_torchaudio.align, rows, said, times=3)
        for other in (loop, theirs):
            figures += ["-", "-"] if other is None else [f"{other:.4f}", f"{other / ours:.2f}"]
        print(" ".join(f"{figure:>{width}}" for figure, width in zip(figures, WIDTHS, strict=True)), flush=True)
    if align_torchaudio.MISSING:
        print(f"torchaudio is not here: {align_torchaudio.MISSING}")
    for wrong in (0.0, 0.05, 0.3) if args.hour else ():
        rows, said = speech(180_000, 50_000, wrong=wrong)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds = spent(align, rows, said, times=1)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
        print(f"an hour, {wrong:.0%} of the letters wrong: {seconds:.1f} CPU-s, {grown:.2f} GB more", flush=True)


if __name__ == "__main__":
    main()

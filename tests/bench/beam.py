"""CPU-seconds of decoding: `python -m tests.bench.beam`.

Random output is the worst case: every symbol is likely in every frame, so the beam stays full and nothing can be cut.
Peaky output is what trained models give: between letters only the blank is likely.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from runner.asr.alphabet import Alphabet
from runner.asr.decode import decode

FRAMES, VOCAB = 1500, 45  # 30 s of wav2vec2
ALPHABET = Alphabet(texts=("", "", *(chr(97 + letter) for letter in range(VOCAB - 2))), breaks=frozenset({1}), blank=0)


def output(*, peaky: bool) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    scores = random.normal(size=(FRAMES, VOCAB))
    if peaky:
        scores[:, 0] += 12
        letters = np.arange(0, FRAMES, 4)
        scores[letters, random.integers(1, VOCAB, size=len(letters))] += 13
    return (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).astype(np.float32)


def main() -> None:
    print(f"{'output':<8} {'beam':>5} {'CPU-s':>8}   {FRAMES} frames x {VOCAB} symbols, best of 3")
    for peaky in (False, True):
        log_probs = output(peaky=peaky)
        for beam_size in (1, 10, 100):
            spent = []
            for _ in range(3):
                start = time.process_time()
                decode(log_probs, alphabet=ALPHABET, beam_size=beam_size, frame_s=0.02)
                spent.append(time.process_time() - start)
            print(f"{'peaky' if peaky else 'random':<8} {beam_size:>5} {min(spent):>8.3f}")


if __name__ == "__main__":
    main()

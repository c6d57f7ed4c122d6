"""CPU-seconds of decoding 30 s: `python -m tests.bench.beam`.

Random output is the worst case: every symbol is likely in every frame, so the beam stays full and nothing can be cut.
Peaky output is what trained models give: between letters only the blank is likely. The language model has 20,000
made-up words and 3-grams of 200,000 words of text; the peaky output spells such text. The ratio is against the same
beam with nothing. `--arpa MB` instead writes an ARPA file of about that size, and reads it in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import resource
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runner.asr.alphabet import Alphabet
from runner.asr.decode import decode
from runner.asr.language import arpa
from runner.asr.language.fusion import Fusion
from runner.asr.language.hotwords import Hotwords
from runner.asr.language.ngram_train import train

FRAMES, VOCAB = 1500, 45  # 30 s of wav2vec2
ALPHABET = Alphabet(texts=("", "", *(chr(97 + letter) for letter in range(VOCAB - 2))), breaks=frozenset({1}), blank=0)


def text(*, words: int = 20_000, length: int = 200_000) -> list[str]:
    """Made-up words as often as words of a language are."""
    random = np.random.default_rng(1)
    letters = random.integers(2, VOCAB, size=(words, 10))
    known = ["".join(ALPHABET.texts[id_] for id_ in row[: 2 + i % 9]) for i, row in enumerate(letters)]
    return [known[rank % words] for rank in random.zipf(1.3, size=length)]


def output(*, peaky: bool, spoken: list[str]) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    scores = random.normal(size=(FRAMES, VOCAB))
    if peaky:
        scores[:, 0] += 12
        letters = np.arange(0, FRAMES, 4)
        signs = ["" if sign == " " else sign for sign in " ".join(spoken)[: len(letters)]]
        ids = [ALPHABET.texts.index(sign, 1) for sign in signs]
        scores[letters, ids] += 13
        scores[letters, random.integers(1, VOCAB, size=len(letters))] += 12.5  # another letter is almost as likely
    return (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).astype(np.float32)


def write_arpa(path: Path, megabytes: float) -> None:
    """A model of made-up text, as long as it takes."""
    words = round(megabytes * 12_000)
    random = np.random.default_rng(2)
    letters = random.integers(2, VOCAB, size=(words // 20, 10))
    known = ["".join(ALPHABET.texts[id_] for id_ in row) for row in letters]
    said = [known[rank % len(known)] for rank in random.zipf(1.1, size=words)]
    made = train((said[at : at + 10] for at in range(0, words, 10)), order=3)
    arpa.write(path, made.words, made.orders)


def read_arpa(path: Path) -> None:
    before, began = peak_mb(), time.process_time()
    model = arpa.read(path)
    spent, grams = time.process_time() - began, sum(model.sizes)
    print(
        f"{path.stat().st_size / 1e6:.0f} MB, {grams / 1e6:.1f} million n-grams: {spent:.1f} CPU-s "
        f"({grams / spent / 1e3:.0f} thousand a second), {peak_mb() - before:.0f} MB more memory at its peak "
        f"({1e6 * (peak_mb() - before) / grams:.0f} bytes an n-gram)"
    )


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arpa", type=float, metavar="MB", help="time the reader instead")
    megabytes = parser.parse_args().arpa
    print(f"python {platform.python_version()}, numpy {version('numpy')}")
    if megabytes is None:
        search()
        return
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        for task, inputs in ((write_arpa, (Path(name) / "lm.arpa", megabytes)), (read_arpa, (Path(name) / "lm.arpa",))):
            process = context.Process(target=task, args=inputs)
            process.start()
            process.join()


def search() -> None:
    said = text()
    began = time.process_time()
    model = train((said[at : at + 10] for at in range(0, len(said), 10)), order=3).model()
    print(f"trained a model of {' '.join(map(str, model.sizes))} n-grams in {time.process_time() - began:.1f} CPU-s")
    hotwords = Hotwords(sorted(set(said))[:100], weight=5.0)
    fusions = {
        "nothing": None,
        "hotwords": Fusion(ALPHABET, hotwords=hotwords),
        "model": Fusion(ALPHABET, model=model, alpha=0.5, beta=1.5),
        "both": Fusion(ALPHABET, model=model, alpha=0.5, beta=1.5, hotwords=hotwords),
    }
    head = f"{'output':<8} {'beam':>5} {'with':<9} {'CPU-s':>8} {'ratio':>6} {'first':>8}"
    print(f"{head}   {FRAMES} frames x {VOCAB} symbols")
    for peaky in (False, True):
        log_probs = output(peaky=peaky, spoken=said)
        for beam_size in (1, 10, 100):
            plain = 0.0
            for name, fusion in fusions.items() if beam_size > 1 else [("nothing", None)]:
                spent = []
                for _ in range(3):
                    start = time.process_time()
                    decode(log_probs, alphabet=ALPHABET, beam_size=beam_size, fusion=fusion, frame_s=0.02)
                    spent.append(time.process_time() - start)
                kind = "peaky" if peaky else "random"
                plain = min(spent) if name == "nothing" else plain
                row = f"{kind:<8} {beam_size:>5} {name:<9} {min(spent):>8.3f} {min(spent) / plain:>6.2f}"
                print(f"{row} {spent[0]:>8.3f}")


if __name__ == "__main__":
    main()

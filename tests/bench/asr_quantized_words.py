"""What asr-quantize costs in words: every variant of the quickstart's model on sentences and voices it never met.

    python -m tests.bench.asr_quantized_words [--clips 200] [--threads 1] [--save FILE]

The job itself does the work, as `runner apply` would: it speaks the held-out sentences that chose no checkpoint, every
fourth with noise, and prints size, WER, its rise with the 95% interval, and speed against plain transformers. Synthetic
speech with a closed vocabulary: only the differences mean anything.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.asr_quantized import SMALLER, WEIGHED
from tests.jobs import helpers
from tests.quickstart import corpus
from tests.quickstart.sentences import split

RISE = 0.01  # most, absolute
Fields = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=200, choices=range(1, 201), metavar="1..200")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", metavar="FILE", help="write the job's comparison and speed as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        speak(folder, clips=args.clips)
        spec = {
            "kind": "asr-quantize",
            "name": "words",
            "model": str(helpers.QUICKSTART / "model"),
            "data": {"validation": "held-out.jsonl"},
            "variants": list(WEIGHED),
            "compute": {"cpus": args.threads},
        }
        (result,), store = helpers.apply(folder, spec)
        done = helpers.ran(result, store)
        said = json.loads((done.files / "comparison.json").read_text("utf-8"))
        speed = json.loads((done.records / "speed.json").read_text("utf-8"))
    for line in lines(said, speed):
        print(line)
    if args.save:
        Path(args.save).write_text(json.dumps({"comparison": said, "speed": speed}, indent=1) + "\n", "utf-8")


def speak(folder: Path, *, clips: int) -> None:
    """held-out.jsonl and its recordings: of the held-out sentences those that are in no table of the quickstart."""
    _, held_out = split(train=0, held_out=corpus.HELD_OUT_SENTENCES)
    sentences = held_out[corpus.VALIDATION_CLIPS :][:clips]
    spoken = corpus.render(sentences, voices=corpus.HELD_OUT_VOICES, seed=5)
    corpus.write(folder, "held-out", [corpus.noisy(clip, seed) for seed, clip in enumerate(spoken)])


def lines(said: Fields, speed: Fields) -> Iterator[str]:
    """The table, then each target and whether it is reached."""
    before, rows = said["unquantised"], said["variants"]
    yield f"{before['words']} words, {speed['threads']} threads; times faster than {speed['baseline']['what']}"
    yield f"{'':14}{'kB':>8}{'smaller':>9}{'WER %':>8}{'rise, points':>14}{'95%':>16}{'faster':>8}"
    yield f"{'unquantised':14}{before['bytes'] / 1e3:8.0f}{1:9.2f}{100 * before['wer']:8.2f}"
    for row in rows:
        low, high = (100 * end for end in row["wer_rise_interval"])
        yield (
            f"{row['variant']:14}{row['bytes'] / 1e3:8.0f}{row['compression']:9.2f}{100 * row['wer']:8.2f}"
            f"{100 * row['wer_rise']:14.2f}{f'{low:.2f} to {high:.2f}':>16}"
            f"{speed['variants'][row['variant']]['speedup']:8.2f}"
        )
    for row in rows:
        if least := SMALLER.get(row["variant"]):
            verdict = "reached" if row["compression"] >= least else "MISSED"
            yield f"{row['variant']}: {row['compression']:.2f} times smaller, target {least:g}: {verdict}"
    worst = max(rows, key=lambda row: row["wer_rise"])
    verdict = "reached" if worst["wer_rise"] <= RISE else "MISSED"
    yield f"most WER rises with {worst['variant']}: {100 * worst['wer_rise']:.2f} points, at most 1: {verdict}"


if __name__ == "__main__":
    main()

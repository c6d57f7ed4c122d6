"""Speaks what the quickstart's fine-tuning hears: a voice that its model misreads, among voices that it knows.

    python -m tests.quickstart.finetune --out specs/quickstart

writes finetune/ beside specs/quickstart/finetune.yaml: train.jsonl, validation.jsonl and their clips. No sentence of
theirs was ever trained or measured on before, and the two tables share none; columns say whose voice it is, and
whether the model knew it or one like it.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

from tests.quickstart import corpus
from tests.quickstart.clips import write
from tests.quickstart.corpus import HERTZ, Utterance
from tests.quickstart.sentences import split

NEW_VOICE = "pt-br+Andrea"
SPENT, HELD_OUT = 9000, 300  # sentences of the grammar that the model may have met
TRAIN_CLIPS, VALIDATION_CLIPS = 240, 100
KNOWN = 4  # every fourth clip is spoken by a voice that the model reads well: it is not to forget them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="gets finetune/")
    folder: Path = parser.parse_args().out / "finetune"
    sentences, _ = split(train=SPENT + TRAIN_CLIPS + VALIDATION_CLIPS, held_out=HELD_OUT)
    fresh = sentences[SPENT:]
    write_table(folder, "train", spoken(fresh[:TRAIN_CLIPS], corpus.TRAIN_VOICES, seed=21))
    write_table(folder, "validation", spoken(fresh[TRAIN_CLIPS:], corpus.HELD_OUT_VOICES, seed=22))


def spoken(sentences: Sequence[str], known: Sequence[str], *, seed: int) -> list[Utterance]:
    """The sentences in their order: every fourth by one of the `known` voices, the others by the new one."""
    generator = random.Random(seed)
    voices = [generator.choice(known) if place % KNOWN == 0 else NEW_VOICE for place in range(len(sentences))]
    return [
        corpus.render([text], voices=[voice], seed=generator.randrange(2**31))[0]
        for text, voice in zip(sentences, voices, strict=True)
    ]


def write_table(folder: Path, name: str, clips: Sequence[Utterance]) -> None:
    """One table and its clips, in Opus: 3 kB a second."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    lines = []
    for number, clip in enumerate(clips):
        audio = f"{name}/{number:03}.opus"
        write(folder / audio, clip.samples, HERTZ)
        known = "no" if clip.voice == NEW_VOICE else "yes"
        row = {"audio": audio, "text": clip.text, "voice": clip.voice, "known": known}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    (folder / f"{name}.jsonl").write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    main()

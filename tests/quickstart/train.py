"""Trains the quickstart's wav2vec2-CTC model from random weights, on one thread of one CPU.

    python -m tests.quickstart.train --out specs/quickstart/model

Stage 1 hears single clips, shortest first for an epoch and then in buckets of like length;
stage 2 hears 1 to 4 clips joined, without which files longer than a sentence are misread.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
)

from tests.quickstart import corpus, score
from tests.quickstart.corpus import HERTZ, Utterance
from tests.quickstart.sentences import VOCABULARY, split
from tests.quickstart.speech import Samples, add_noise

SEED = 7
TRAIN_SENTENCES, HELD_OUT_SENTENCES = 6000, 300
EASY = 2000  # clips of the first epoch, shortest first
TIMBRE = 0.08
SILENCE_SHARE = 0.03  # clips of faint noise and no text: a normaliser makes silence loud

CONFIG = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "conv_dim": [32, 64, 96, 128],
    "conv_kernel": [10, 8, 8, 4],
    "conv_stride": [5, 4, 4, 4],
    "num_feat_extract_layers": 4,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 8,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "hidden_dropout": 0.0,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "ctc_loss_reduction": "mean",
    "ctc_zero_infinity": True,
    "pad_token_id": VOCABULARY["<pad>"],
    "bos_token_id": VOCABULARY["<s>"],
    "eos_token_id": VOCABULARY["</s>"],
}
"""666 thousand weights; the strides multiply to 320 samples, so a frame is 20 ms as usual."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of the optimiser."""

    steps: int
    learning_rate: float
    warmup: int
    batch: int
    most_joined: int


STAGES = (
    Stage(steps=1500, learning_rate=2e-3, warmup=150, batch=8, most_joined=1),
    Stage(steps=600, learning_rate=8e-4, warmup=30, batch=4, most_joined=4),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--quick", type=float, default=1.0, help="share of the steps to take")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    sentences, held_out = split(train=TRAIN_SENTENCES, held_out=HELD_OUT_SENTENCES)
    train = corpus.render(
        sentences,
        voices=corpus.TRAIN_VOICES,
        seed=1,
        telephone_share=corpus.TELEPHONE_SHARE,
        timbre=TIMBRE,
    )
    test = corpus.render(held_out[:100], voices=corpus.HELD_OUT_VOICES, seed=2)
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**CONFIG))
    for stage in STAGES:
        run_stage(model, stage, train=train, test=test, share=arguments.quick)
        save(model, arguments.out)


def run_stage(
    model: Wav2Vec2ForCTC,
    stage: Stage,
    *,
    train: list[Utterance],
    test: list[Utterance],
    share: float,
) -> None:
    """Train in place and print loss and held-out WER on the way; `share` scales the steps."""
    steps = max(1, round(stage.steps * share))
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_at(step, steps=steps, warmup=stage.warmup)
    )
    started = time.process_time()
    batches = joined_batches(train, stage)
    for step in range(1, steps + 1):
        model.train()
        loss = batch_loss(model, next(batches))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 150 == 0 or step == steps:
            found = score.word_errors(model, [(clip.text, clip.samples) for clip in test])
            spent = time.process_time() - started
            print(f"{spent:6.0f} s  step {step}  loss {loss.item():.3f}  {found}", flush=True)


def rate_at(step: int, *, steps: int, warmup: int) -> float:
    """Share of the learning rate: a ramp, level to half way, then linear down to 2%."""
    falling = min(1.0, 2.0 * (1.0 - step / steps))
    return min((step + 1) / warmup, 1.0) * max(falling, 0.02)


def joined_batches(train: list[Utterance], stage: Stage) -> Iterator[list[tuple[str, Samples]]]:
    """Endless batches of (text, samples); the first epoch of single clips is sorted by length."""
    generator = random.Random(SEED + stage.most_joined)
    items = sorted(generator.sample(train, EASY), key=lambda clip: len(clip.samples))
    epoch = 0
    while True:
        groups = [items[i : i + stage.batch] for i in range(0, len(items), stage.batch)]
        if stage.most_joined > 1:
            groups = shuffled_groups(train, stage, generator)
        elif epoch > 0:
            groups = length_buckets(train, stage.batch, generator)
        for group in groups:
            yield [augmented(clip, train, stage.most_joined, generator) for clip in group]
        epoch += 1


def shuffled_groups(train: list[Utterance], stage: Stage, generator: random.Random) -> list[list[Utterance]]:
    mixed = generator.sample(train, len(train))
    return [mixed[i : i + stage.batch] for i in range(0, len(mixed), stage.batch)]


def length_buckets(train: list[Utterance], batch: int, generator: random.Random) -> list[list[Utterance]]:
    """Batches of like length (jittered by up to a fifth), in random order."""
    order = sorted(train, key=lambda clip: len(clip.samples) * generator.uniform(0.9, 1.1))
    groups = [order[i : i + batch] for i in range(0, len(order), batch)]
    generator.shuffle(groups)
    return groups


def augmented(
    clip: Utterance, train: list[Utterance], most_joined: int, generator: random.Random
) -> tuple[str, Samples]:
    """Join the clip with others, pad it with pauses, and add noise at 12 to 40 dB."""
    seed = generator.randrange(2**31)
    if generator.random() < SILENCE_SHARE:
        hush = np.random.default_rng(seed).standard_normal(len(clip.samples), dtype=np.float32)
        return "", hush / np.float32(1000)
    others = generator.choices(train, k=generator.randint(1, most_joined) - 1)
    parts = [clip, *others]
    samples = corpus.join([part.samples for part in parts], gap_s=generator.uniform(0.0, 0.5))
    # half of the ends come without a pause: a model that never met one misreads the first word
    ends = [round(max(0.0, generator.uniform(-0.3, 0.3)) * HERTZ) for _ in range(2)]
    samples = np.pad(samples, (ends[0], ends[1]))
    text = " ".join(part.text for part in parts)
    return text, add_noise(samples, generator.uniform(12.0, 40.0), seed)


def batch_loss(model: Wav2Vec2ForCTC, batch: list[tuple[str, Samples]]) -> torch.Tensor:
    """Mean CTC loss of (text, samples) pairs, each normalised over its own samples."""
    inputs, mask = score.padded([samples for _, samples in batch])
    ids = [[VOCABULARY["|" if c == " " else c] for c in text] for text, _ in batch]
    longest = max(len(row) for row in ids)
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in ids])
    loss: torch.Tensor = model(inputs, attention_mask=mask, labels=labels).loss
    return loss


def save(model: Wav2Vec2ForCTC, folder: Path) -> None:
    """Write weights, configuration, tokenizer and feature extractor in transformers' layout."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps(VOCABULARY, ensure_ascii=False) + "\n", "utf-8")
    extractor = Wav2Vec2FeatureExtractor(
        feature_size=1, sampling_rate=HERTZ, do_normalize=True, return_attention_mask=True
    )
    # two files rather than 5.x's processor_config.json: what every published wav2vec2 model has
    extractor.save_pretrained(folder)
    Wav2Vec2CTCTokenizer(str(vocabulary)).save_pretrained(folder)
    model.save_pretrained(folder)
    rewrite(folder / "preprocessor_config.json", processor_class="Wav2Vec2Processor")
    rewrite(folder / "tokenizer_config.json", processor_class="Wav2Vec2Processor")
    (folder / "model.safetensors").chmod(0o644)


def rewrite(path: Path, **extra: str) -> None:
    """Add keys to a JSON file and drop those that only tell where it was made."""
    stored = json.loads(path.read_text("utf-8")) | extra
    kept = {k: v for k, v in stored.items() if k not in ("is_local", "local_files_only")}
    path.write_text(json.dumps(kept, ensure_ascii=False, indent=2, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    main()

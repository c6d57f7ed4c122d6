"""What a spec of `asr-finetune` says reaches the training."""

from __future__ import annotations

import json
from pathlib import Path

from runner.asr.training.recipe import Augmentation, Lora, Masks, Rate, Recipe
from runner.jobs import asr_finetune
from runner.schema.jobs.asr_finetune import AsrFinetune
from tests.jobs.helpers import QUICKSTART
from tests.jobs.test_asr_finetune import NONE, data, finetune, spec


def test_every_setting_of_a_training_reaches_it() -> None:
    """Each is another than its default, and than those beside it."""
    wanted = AsrFinetune.model_validate(
        spec(
            model={"id": str(QUICKSTART / "model")},
            architecture=NONE,
            adapter={"type": "lora", "r": 3, "alpha": 5.0, "dropout": 0.15},
            train={
                "steps": 7,
                "learning_rate": 0.03,
                "warmup": 0.11,
                "hold": 0.22,
                "decay": "cosine",
                "floor": 0.33,
                "weight_decay": 0.04,
                "betas": [0.81, 0.92],
                "clip_norm": 2.5,
                "accumulate": 3,
                "seed": 6,
                "shortest_first": True,
                "checkpointing": True,
            },
            batch={"seconds": 8.0, "clips": 9},
            augment={
                "noise_snr_db": [10.0, 20.0],
                "speed": 0.12,
                "pause_s": 0.3,
                "join": 2,
                "silence": 0.21,
                "time_masks": 0.06,
                "time_mask_frames": 13,
                "feature_masks": 0.07,
                "feature_mask_width": 14,
            },
            evaluation={"every_steps": 4, "patience": 5},
        )
    )
    assert asr_finetune._recipe(wanted, "bf16") == Recipe(
        epochs=None,
        steps=7,
        rate=Rate(highest=0.03, warmup=0.11, hold=0.22, decay="cosine", floor=0.33),
        weight_decay=0.04,
        betas=(0.81, 0.92),
        clip_norm=2.5,
        accumulate=3,
        seconds=8.0,
        clips=9,
        shortest_first=True,
        augmentation=Augmentation(noise_snr_db=(10.0, 20.0), speed=0.12, pause_s=0.3, join=2, silence=0.21),
        checkpointing=True,
        precision="bf16",
        every_steps=4,
        patience=5,
        seed=6,
    )
    assert asr_finetune._masks(wanted) == Masks(time=0.06, time_frames=13, feature=0.07, feature_width=14)
    assert asr_finetune._lora(wanted) == Lora(r=3, alpha=5.0, dropout=0.15)


def test_the_vocabulary_is_of_the_training_texts_as_they_are_said(tmp_path: Path) -> None:
    data(tmp_path, train=4, validation=2)
    for name, text in (("train", "A 2!"), ("validation", "ab ñ")):
        table = tmp_path / f"{name}.jsonl"
        first, *others = table.read_text("utf-8").splitlines()
        table.write_text("\n".join([json.dumps(json.loads(first) | {"text": text}), *others]), "utf-8")
    made = finetune(tmp_path)
    assert made.result.action == "created", made.result.message
    vocabulary = json.loads((made.files / "model" / "vocab.json").read_text("utf-8")).keys()
    assert {"a", "d", "o", "i", "s"} <= vocabulary, "2 is said dois"
    assert not vocabulary & {"A", "2", "!", "ñ"}

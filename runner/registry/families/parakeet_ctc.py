"""Parakeet CTC (NVIDIA, FastConformer encoder with 8x subsampling)."""

from __future__ import annotations

from runner.registry.family import Family

FAMILY = Family(
    name="parakeet-ctc",
    title="Parakeet CTC, a FastConformer with 80 ms frames",
    model_types=("parakeet_ctc",),
    architectures=("ParakeetForCTC",),
    name_pattern=r"parakeet.*ctc",
    task="ctc",
    features="features",
    mask="always",
    normalise="each mel bin to zero mean and unit variance over the utterance, by the feature extractor",
    limits=(".nemo checkpoints must be converted first",),
    head=("ctc_head.weight",),
    keys={
        "vocab_size": "vocab_size",
        "hidden": "encoder_config.hidden_size",
        "layers": "encoder_config.num_hidden_layers",
        "blank_id": "pad_token_id",
    },
    defaults={
        "vocab_size": 1025,
        "pad_token_id": 1024,
        "encoder_config.hidden_size": 1024,
        "encoder_config.num_hidden_layers": 24,
        "encoder_config.subsampling_factor": 8,
    },
    frontend="mel",
    subsampling="encoder_config.subsampling_factor",
    receptive_frames=15,  # three convolutions of width 3 and stride 2
)

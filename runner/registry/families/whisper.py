"""Whisper (Radford et al. 2022): an encoder over 30 s of mel frames and a text decoder."""

from __future__ import annotations

from runner.registry.family import Family

FAMILY = Family(
    name="whisper",
    title="Whisper, encoder and decoder",
    model_types=("whisper",),
    architectures=("WhisperForConditionalGeneration",),
    name_pattern=r"whisper",
    task="seq2seq",
    features="features",
    mask="always",
    normalise="log mel, clipped 8 below its maximum and scaled, by the feature extractor",
    languages="decode.language, or detected",
    limits=(
        "windows are computed as 30 s whatever their content",
        "it may write text for noise, and repeat itself",
        "word times come from attention and are off by some tenths of a second; letters have none",
    ),
    head=("proj_out.weight", "model.decoder.embed_tokens.weight"),
    keys={
        "vocab_size": "vocab_size",
        "hidden": "d_model",
        "layers": "encoder_layers",
        "decoder_layers": "decoder_layers",
    },
    defaults={"vocab_size": 51865, "d_model": 384, "encoder_layers": 4, "decoder_layers": 4},
    frontend="mel",
    subsampling=2,
    receptive_frames=5,  # convolutions of width 3, the second with stride 2
)

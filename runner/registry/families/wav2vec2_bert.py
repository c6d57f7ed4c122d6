"""Wav2Vec2-BERT with a CTC head (Seamless, 2023): mel features in pairs of frames."""

from __future__ import annotations

from runner.registry.family import Family

FAMILY = Family(
    name="wav2vec2-bert",
    title="Wav2Vec2-BERT with a CTC head",
    model_types=("wav2vec2-bert",),
    architectures=("Wav2Vec2BertForCTC",),
    name_pattern=r"w(av)?2v(ec2)?-bert",
    task="ctc",
    features="features",
    mask="always",
    normalise="each mel bin to zero mean and unit variance over the utterance, by the feature extractor",
    limits=("add_adapter halves the frame rate once for each adapter layer",),
    defaults={
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "pad_token_id": 0,
        "num_adapter_layers": 1,
        "adapter_stride": 2,
    },
    frontend="mel",
    subsampling=2,  # SeamlessM4TFeatureExtractor puts two frames into one
    receptive_frames=2,
)

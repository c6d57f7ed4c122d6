"""MMS (Pratap et al. 2023): wav2vec 2.0 with an attention adapter and a head for each language."""

from __future__ import annotations

from runner.registry.family import Family

FAMILY = Family(
    name="mms",
    title="MMS: wav2vec 2.0 with an adapter and a head for each language",
    model_types=("wav2vec2",),
    architectures=("Wav2Vec2ForCTC",),
    name_pattern=r"mms-",
    task="ctc",
    features="waveform",
    mask="by_feat_extract_norm",
    normalise="per utterance to zero mean and unit variance over the unpadded part, where do_normalize is set",
    languages="adapters by ISO 639-3 code: model.adapter",
    limits=("one language per job", "without model.adapter the head in the weights file is used, mostly English"),
    structure="adapter_attn_dim",
)

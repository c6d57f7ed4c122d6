"""WavLM with a CTC head (Chen et al. 2022)."""

from __future__ import annotations

from runner.registry.family import Family

FAMILY = Family(
    name="wavlm",
    title="WavLM with a CTC head",
    model_types=("wavlm",),
    architectures=("WavLMForCTC",),
    name_pattern=r"wavlm",
    task="ctc",
    features="waveform",
    mask="by_feat_extract_norm",
    normalise="per utterance to zero mean and unit variance over the unpadded part, where do_normalize is set",
    limits=("its position bias needs the whole attention matrix: memory grows with the square of the window",),
)

"""HuBERT with a CTC head (Hsu et al. 2021)."""

from __future__ import annotations

from runner.registry.family import Family

FAMILY = Family(
    name="hubert",
    title="HuBERT with a CTC head",
    model_types=("hubert",),
    architectures=("HubertForCTC",),
    name_pattern=r"hubert",
    task="ctc",
    features="waveform",
    mask="by_feat_extract_norm",
    normalise="per utterance to zero mean and unit variance over the unpadded part, where do_normalize is set",
    limits=("recordings shorter than the receptive field have no frames",),
)

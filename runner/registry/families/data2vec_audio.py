"""data2vec-audio with a CTC head (Baevski et al. 2022)."""

from __future__ import annotations

from runner.registry.family import Family

FAMILY = Family(
    name="data2vec-audio",
    title="data2vec-audio with a CTC head",
    model_types=("data2vec-audio",),
    architectures=("Data2VecAudioForCTC",),
    name_pattern=r"data2vec.*audio",
    task="ctc",
    features="waveform",
    mask="always",  # its convolutions carry layer norm whatever the config says
    normalise="per utterance to zero mean and unit variance over the unpadded part, where do_normalize is set",
    limits=("recordings shorter than the receptive field have no frames",),
)

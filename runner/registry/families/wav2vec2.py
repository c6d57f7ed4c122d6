"""wav2vec 2.0 with a CTC head (Baevski et al. 2020; XLSR-53, XLS-R)."""

from __future__ import annotations

from runner.registry.family import Family

FAMILY = Family(
    name="wav2vec2",
    title="wav2vec 2.0 with a CTC head, XLSR-53 and XLS-R among them",
    model_types=("wav2vec2",),
    architectures=("Wav2Vec2ForCTC",),
    name_pattern=r"wav2?vec2?(?!.*(bert|conformer|mms))|xlsr|xls-r",
    task="ctc",
    features="waveform",
    mask="by_feat_extract_norm",
    normalise="per utterance to zero mean and unit variance over the unpadded part, where do_normalize is set",
    limits=(
        "an n-gram language model beside the weights is not used",
        "recordings shorter than the receptive field have no frames",
    ),
)

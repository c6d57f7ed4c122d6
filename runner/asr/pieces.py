"""What travels to a worker and back: windows in, what was heard in them out. Plain and picklable."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runner.asr.calibration import Calibration
from runner.asr.decode import Decoded, Timestamps
from runner.asr.header import Header
from runner.asr.language.fusion import Wording
from runner.asr.trouble import RecordingError


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model lies and what the registry knows about it."""

    folder: str
    rate: int  # Hz
    stride: int  # samples per frame
    receptive: int  # samples that one frame sees
    waveform: bool  # whether it takes samples, or features made by its extractor
    normalise: bool  # waveform models: zero mean and unit variance
    mask: bool  # whether padded batches carry an attention mask
    adapter: str | None = None
    allow_pickle: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class Setup:
    """All that a worker must know."""

    source: Source
    task: str  # of its family: "ctc" or "seq2seq"
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    device: str  # "cpu" or "cuda"
    threads: int
    silence_db: float
    beam_size: int = 1
    timestamps: Timestamps = "none"
    language: str | None = None  # of sequence models
    wording: Wording | None = None  # of CTC models, with a beam
    calibration: Calibration | None = None  # of confidence; None leaves the model's own
    most: int | None = None  # padded samples of a batch that an earlier worker had to keep to: memory had run out


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One window of one recording. Samples are counted at the model's rate from the file's start."""

    item: int  # position of the recording in the job's input
    window: int
    alone: bool  # the recording has no other window
    path: str  # absolute
    header: Header
    channel: int | None  # None mixes
    first: int  # sample
    last: int  # sample, exclusive
    keep_from: int  # frame of the window
    keep_to: int | None  # frame of the window, exclusive; None: to its end
    text: str | None = None  # of a recording that has no other window: what is said in it, where that is known

    @property
    def samples(self) -> int:
        return self.last - self.first


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A stretch of text that a sequence model put at a time. Seconds from the file's start."""

    text: str  # with the space before it, where the language has one
    start: float
    end: float
    confidence: float
    language: str | None  # that it is in; None where the model knows only one


@dataclass(kw_only=True, slots=True)
class Timing:
    """Seconds of work on one window; ``infer`` is its share of the batch by length."""

    decode: float = 0.0
    resample: float = 0.0
    infer: float = 0.0
    postprocess: float = 0.0
    attempts: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What was heard in one window. At most one of ``decoded``, ``rows``, ``said`` and ``made`` is there; none for
    silence."""

    item: int
    window: int
    samples: int  # heard; fewer than asked for where a header's length was an estimate
    trouble: RecordingError | None = None
    decoded: Decoded | None = None  # the recording's only window, CTC
    rows: NDArray[np.float32] | None = None  # one window of several, CTC: log-probabilities of the kept frames
    said: tuple[Said, ...] | None = None  # sequence models
    made: Any = None  # what another kind makes of the recording's only window
    timing: Timing = field(default_factory=Timing)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a worker says of one deal: the outcomes, and what is worth the ledger."""

    outcomes: tuple[Outcome, ...]
    about: dict[str, str]  # what was chosen in the worker: precision, attention, device, ...
    blank: int  # of the model's output; 0 for sequence models
    vocab: int
    padded: int  # samples computed, padding included
    again: int = 0  # windows computed again in fp32
    halvings: int = 0  # times that memory ran out and the batch was halved
    most: int | None = None  # padded samples of a batch that are kept to after that

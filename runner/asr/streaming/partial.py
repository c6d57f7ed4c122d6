"""What a stream says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from runner.asr.decode import Decoded
from runner.asr.words import Word

End = Literal["pause", "longest", "close"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Final:
    """One utterance after its end. Times in seconds since the stream began."""

    start: float
    end: float
    ended_by: End
    decided: float  # how much of the stream had been heard when the end was found
    committed: tuple[Word, ...]  # all its words as they were committed, never empty
    final: Decoded  # by the decoder asked for, of the surer of two readings: as settled, and as a whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Partial:
    """What came since the last one."""

    heard: float  # seconds of the stream that this is based on
    committed: tuple[Word, ...]  # further words; nothing takes them back
    tail: str  # what seems to follow them; the next one may say otherwise
    finals: tuple[Final, ...]  # utterances that ended; their words were among the committed

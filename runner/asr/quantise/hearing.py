"""The sound that variants are calibrated with and timed on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runner.asr import audio
from runner.asr.pieces import Piece, Source
from runner.asr.trouble import RecordingError
from runner.schema.errors import JobError

Samples = NDArray[np.float32]


def heard(pieces: Sequence[Piece], source: Source, *, purpose: str) -> list[Samples]:
    """The sound of each of ``pieces``, without those that cannot be read or are too short for one frame.

    Headers were sound when windows were cut; what lies behind them is only known now. Raises JobError (DataInvalid)
    naming the first where none is left.
    """
    found, troubles = [], []
    for p in pieces:
        try:
            read = audio.read(p.path, header=p.header, first=p.first, last=p.last, rate=source.rate, channel=p.channel)
        except RecordingError as error:
            troubles.append(f"{Path(p.path).name}: {error.message}")
            continue
        if len(read.samples) >= source.receptive:
            found.append(read.samples)
        else:
            troubles.append(f"{Path(p.path).name}: too short for one frame")
    if not found:
        first = f": {troubles[0]}" if troubles else ""
        raise JobError(f"none of the {len(pieces)} recordings to {purpose} can be heard{first}", failure="DataInvalid")
    return found

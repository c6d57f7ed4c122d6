"""A document: one sample as tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Document:
    """Shapes: T tokens. ``learned`` says which tokens are targets; the first never is, since nothing predicts it."""

    place: str
    ids: NDArray[np.int32]  # [T]
    learned: NDArray[np.bool_]  # [T]

"""Out of memory: halve the batch, go on, and keep to the size that worked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runner.asr.trouble import RecordingError
from runner.schema.errors import JobError

Samples = NDArray[np.float32]
SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")


class Halving:
    """Wraps the model; what cannot be computed even alone becomes that window's trouble.

    ``most`` is what an earlier worker had to keep to: padded samples of a batch of several windows; None: no limit.
    """

    def __init__(self, compute: Callable[[Sequence[Samples]], list[Any]], *, most: int | None = None) -> None:
        self._compute = compute
        self.most = most
        self.count = 0

    def __call__(self, windows: Sequence[Samples]) -> list[Any]:
        """The model's output for each window, in order."""
        if len(windows) > 1 and self.most is not None and _padded(windows) > self.most:
            return self._halves(windows)
        try:
            return list(self._compute(windows)) if windows else []
        except JobError:
            raise  # of the model, not of these windows
        except Exception as error:  # whatever a library finds to object to in one window must not stop the job
            if not out_of_memory(error):
                return self._alone(windows, error)
        return self._halve(windows)

    def _halve(self, windows: Sequence[Samples]) -> list[Any]:
        self.count += 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(windows) == 1:
            message = f"{len(windows[0])} samples do not fit into memory: shorten window.length_s"
            return [RecordingError("out_of_memory", "out_of_memory", message)]
        self.most = max(map(len, windows)) * ((len(windows) + 1) // 2)
        return self._halves(windows)

    def _halves(self, windows: Sequence[Samples]) -> list[Any]:
        half = (len(windows) + 1) // 2
        return [*self(windows[:half]), *self(windows[half:])]

    def _alone(self, windows: Sequence[Samples], error: Exception) -> list[Any]:
        """Another failure: find the windows that it comes from."""
        if len(windows) == 1:
            first_line = str(error).strip().partition("\n")[0]
            return [RecordingError("failed", type(error).__name__, first_line[:300] or "no reason given")]
        return [result for window in windows for result in self([window])]


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, of the device or of the host."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def _padded(windows: Sequence[Samples]) -> int:
    return max(map(len, windows)) * len(windows)

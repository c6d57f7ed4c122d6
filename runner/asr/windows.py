"""Long recordings in overlapping windows, and the frames that each of them gives to the whole.

    n samples:   |-------------------------------------------|
    window 0     |===============]----|                            ] ends the kept part
    window 1                 |----[==============]----|            ---- is context: heard, not kept
    window 2                                 |----[==========|

The clock is absolute. Frame f of a recording stands for the samples from f * stride on; windows start on multiples of
the stride, so frame j of the window that starts at sample a is frame a / stride + j of the recording, whatever number
of frames the convolutions make of the window's length. A window's last frames see less than the kept part needs only
if the context is shorter than receptive - stride samples (5 ms for wav2vec2), which ``cut`` rules out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """One stretch of a recording, in samples and frames counted from the recording's (or part's) start."""

    first: int  # sample, a multiple of the stride
    last: int  # sample, exclusive
    keep_from: int  # frame
    keep_to: int | None  # frame, exclusive; None for the last window: to its end


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How recordings are cut: everything in samples, multiples of ``stride``."""

    length: int
    context: int
    stride: int

    def count(self, samples: int) -> int:
        """Number of windows of a recording."""
        if samples <= self.length:
            return 1
        return -(-(samples - 2 * self.context) // (self.length - 2 * self.context))

    def window(self, samples: int, index: int) -> Window:
        """Window ``index`` of a recording; all are about equally long, so that none is a sliver."""
        count = self.count(samples)
        if count == 1:
            return Window(first=0, last=samples, keep_from=0, keep_to=None)
        step = -(-(samples - 2 * self.context) // (count * self.stride)) * self.stride
        first = index * step
        last = first + step + 2 * self.context
        return Window(
            first=first,
            last=min(last, samples),
            keep_from=(first + self.context) // self.stride if index else 0,
            keep_to=None if index == count - 1 else (last - self.context) // self.stride,
        )


def cut(*, length_s: float, context_s: float, rate: int, stride: int, receptive: int) -> Cut:
    """The cut nearest to what was asked: whole frames, at least one kept, and context beyond the receptive field."""
    context = max(round(context_s * rate / stride), -(-receptive // stride)) * stride
    length = max(round(length_s * rate / stride) * stride, 2 * context + stride)
    return Cut(length=length, context=context, stride=stride)

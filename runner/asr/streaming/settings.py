"""How a stream is cut and where an utterance ends, in frames of the model."""

from __future__ import annotations

from dataclasses import dataclass

WORD_GAP_S = 0.6  # a word has ended when nothing was written for so long, also without a word delimiter
# Silence around an utterance in its final reading. Windows are normalised, so silence changes how loud speech is: of
# 300 utterances 2 s apart the quickstart's first model read 3.1, 3.5, 4.9 and 14.0% of the words wrong with 0.2, 0.3,
# 0.5 s and with all of the pause; 4.2% of the committed ones were wrong
MARGIN_S = 0.3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All but ``stride`` and ``rate`` in frames."""

    chunk: int  # settled at once
    left: int  # heard before it
    lookahead: int  # heard behind it
    word_gap: int
    after_text: int  # a pause of so many frames ends an utterance
    longest: int  # an utterance
    refine: bool
    margin: int  # of silence around an utterance
    stride: int  # samples per frame
    rate: int  # Hz

    @property
    def buffer_s(self) -> float:
        """Length of one window."""
        return self.seconds(self.left + self.chunk + self.lookahead)

    def seconds(self, frames: int) -> float:
        """The time at which frame ``frames`` begins."""
        return round(frames * self.stride / self.rate, 3)


def settings(
    *,
    chunk_s: float,
    left_s: float,
    lookahead_s: float,
    after_text_s: float,
    longest_s: float,
    refine: bool,
    rate: int,
    stride: int,
    receptive: int,
) -> Settings:
    """Whole frames nearest to what was asked: at least one a chunk, and each with all the samples that it sees."""

    def frames(seconds: float) -> int:
        return max(1, round(seconds * rate / stride))

    return Settings(
        chunk=frames(chunk_s),
        left=round(left_s * rate / stride),
        lookahead=max(round(lookahead_s * rate / stride), -(-(receptive - stride) // stride), 1),
        word_gap=frames(min(WORD_GAP_S, after_text_s)),
        after_text=frames(after_text_s),
        longest=frames(longest_s),
        refine=refine,
        margin=frames(MARGIN_S),
        stride=stride,
        rate=rate,
    )

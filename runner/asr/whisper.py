"""Whisper in the worker: windows of at most 30 s through `generate`, words with times and probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, AutoTokenizer

from runner.asr.acoustic import load, settle_arithmetic
from runner.asr.pieces import Outcome, Piece, Said, Setup
from runner.schema.errors import JobError

Samples = NDArray[np.float32]
UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})  # written without spaces: each piece is a word


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token of text. Seconds from the window's start; ``probability`` as the model gave it."""

    id: int
    start: float
    end: float
    probability: float


class Whisper:
    """The engine of whisper. Words have times where the generation config names the heads that align."""

    blank = 0
    vocab = 0
    again = 0

    def __init__(self, setup: Setup, *, dtype: torch.dtype) -> None:
        settle_arithmetic()
        self._setup, self._dtype = setup, dtype
        folder = setup.source.folder
        self._model = load(AutoModelForSpeechSeq2Seq, setup.source, dtype=dtype).eval().to(setup.device)
        try:
            self._extract: Any = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise JobError(f"{folder} has no usable processor: {reason}", failure="ModelInvalid") from None
        self._config = self._model.generation_config
        self._aligns = getattr(self._config, "alignment_heads", None) is not None
        if self._aligns:
            self._model.set_attn_implementation("eager")  # the others do not give the attention that aligns
        self._options = self._generate_options()
        self.about = {
            "layout": "one by one" if setup.device == "cpu" else "padded",
            "attention": str(self._model.config._attn_implementation),
            "mask": "not needed",
        }

    def _generate_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "return_timestamps": True,
            "return_segments": True,
            "num_beams": self._setup.beam_size,
        }
        options |= {"return_token_timestamps": self._aligns, "return_dict_in_generate": True, "output_scores": True}
        languages = getattr(self._config, "lang_to_id", None) or {}
        language = self._setup.language
        if getattr(self._config, "no_timestamps_token_id", None) is None:
            raise JobError(
                f"{self._setup.source.folder}: generation_config.json has no no_timestamps_token_id, without which "
                "there are no times; take the file from the model that this one was fine-tuned from",
                failure="ModelInvalid",
            )
        if not getattr(self._config, "is_multilingual", False):
            if language not in {None, "en"}:
                raise JobError(
                    f"decode.language is {language!r}, but this whisper model knows English only",
                    failure="ModelInvalid",
                )
            return options
        if language is not None and f"<|{language}|>" not in languages:
            known = ", ".join(sorted(key.strip("<|>") for key in languages))
            raise JobError(
                f"decode.language {language!r} is unknown to this model; it knows {known}", failure="ModelInvalid"
            )
        return options | {"task": "transcribe", "language": language}

    @torch.inference_mode()
    def compute(self, windows: Sequence[Samples]) -> list[list[Said]]:
        """What was said in each window, timed from the window's start; on CPUs one by one."""
        if self._setup.device == "cpu" and len(windows) > 1:
            return [self.compute([window])[0] for window in windows]
        made = self._extract(
            list(windows), sampling_rate=self._setup.source.rate, return_tensors="pt", return_attention_mask=True
        )
        found = self._model.generate(
            input_features=made["input_features"].to(self._setup.device, self._dtype),
            attention_mask=made["attention_mask"].to(self._setup.device),
            **self._options,
        )
        return [self._said(segments) for segments in found["segments"]]

    def finish(self, outcome: Outcome, piece: Piece, result: list[Said], loud: NDArray[np.bool_]) -> Outcome:
        """The same on the file's clock, without what was "said" where nothing can be heard."""
        source = self._setup.source
        frame_s, first_s = source.stride / source.rate, piece.first / source.rate
        end_s = outcome.samples / source.rate
        heard = [s for s in result if loud[int(s.start / frame_s) : math.ceil(s.end / frame_s) + 1].any()]
        said = tuple(
            replace(s, start=first_s + min(s.start, end_s), end=first_s + min(max(s.end, s.start), end_s))
            for s in heard
        )
        return replace(outcome, said=said)

    def unheard(self, outcome: Outcome, piece: Piece) -> Outcome:
        """A window that is all silence."""
        return outcome

    def _said(self, segments: Sequence[dict[str, Any]]) -> list[Said]:
        return [said for segment in segments for said in self._words(list(self._tokens(segment)))]

    def _tokens(self, segment: dict[str, Any]) -> Iterator[Token]:
        """Tokens of text of one segment, as `generate` returns it; every special id lies above the end token's."""
        tokens = segment["tokens"].tolist()
        texts = [i for i, token in enumerate(tokens) if token < self._model.config.eos_token_id]
        times = self._aligned(segment, texts) if self._aligns else self._spread(segment, [tokens[i] for i in texts])
        for i, (start, end), sure in zip(texts, times, self._probabilities(segment, texts), strict=True):
            yield Token(id=tokens[i], start=start, end=end, probability=sure)

    def _aligned(self, segment: dict[str, Any], texts: list[int]) -> list[tuple[float, float]]:
        """A token lasts until the next one begins, the last one until the segment ends."""
        starts = [*segment["token_timestamps"].tolist(), float(segment["end"])]
        return [(starts[i], max(starts[i], starts[i + 1])) for i in texts]

    def _spread(self, segment: dict[str, Any], tokens: list[int]) -> list[tuple[float, float]]:
        """Without alignment only the segment's times are known; letters are taken to be equally long."""
        lengths = [max(1, len(self._tokenizer.decode([token]))) for token in tokens]
        ends = np.cumsum(lengths) / max(1, sum(lengths))
        first, last = float(segment["start"]), float(segment["end"])
        points = [first, *(first + ends * (last - first)).tolist()]
        return list(pairwise(points))

    def _probabilities(self, segment: dict[str, Any], texts: list[int]) -> list[float]:
        """The model's probability of each token; with several beams that of the whole sequence, per token."""
        result, first = segment["result"], segment["idxs"][0]
        if self._setup.beam_size > 1:
            return [float(torch.exp(result["sequences_scores"]))] * len(texts)
        sequence, scores = result["sequences"], result["scores"]
        before = len(sequence) - len(scores)  # the prompt has no scores
        steps = [first + i for i in texts]
        return [float(torch.softmax(scores[at - before].float(), dim=-1)[sequence[at]]) for at in steps]

    def _words(self, tokens: list[Token]) -> list[Said]:
        """Tokens put together to words: one begins at a space, and a letter may take several tokens."""
        words: list[list[Token]] = []
        pending: list[Token] = []
        for token in tokens:
            pending.append(token)
            text = self._tokenizer.decode([t.id for t in pending])
            if "\ufffd" in text:  # the bytes of a letter are not all there
                continue
            begins = text.startswith(" ") or self._setup.language in UNSPACED
            if begins or not words:
                words.append(pending)
            else:
                words[-1] += pending
            pending = []
        if pending and words:  # a letter cut off at the end: its bytes belong to the last word
            words[-1] += pending
        return [self._word(word) for word in words]

    def _word(self, tokens: list[Token]) -> Said:
        return Said(
            text=self._tokenizer.decode([token.id for token in tokens]),
            start=tokens[0].start,
            end=tokens[-1].end,
            confidence=math.exp(sum(math.log(max(t.probability, 1e-9)) for t in tokens) / len(tokens)),
            timed=self._aligns,
        )

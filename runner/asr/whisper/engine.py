"""Whisper in the worker: text by generation, then times and confidence of its words by reading it once more.

A window is encoded once. Its text is written by greedy or beam search, nothing carried over from another window, then
put through the decoder again, all of it at once: that gives the distribution from which each token was chosen, and
where the decoder looked meanwhile (``whisper_times``), the same way for any beam and any batch.

The confidence of a word is the mean certainty of its tokens (``confidence``), not calibrated: it stays high where
whisper repeats itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoFeatureExtractor,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    GenerationMixin,
)
from transformers.modeling_outputs import BaseModelOutput

from runner.asr import confidence
from runner.asr.acoustic import load, settle_arithmetic
from runner.asr.pieces import Outcome, Piece, Said, Setup
from runner.asr.whisper import times as whisper_times
from runner.asr.whisper.text import Tokens
from runner.schema.errors import JobError

Samples = NDArray[np.float32]
JITTER_S = 0.3  # attention may put a word about this far off, into a pause beside it


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """One window's words in order, and the language they are in (None: the model knows only one).

    Frames are half-open spans, counted from the window's start; a confidence may be NaN.
    """

    language: str | None
    texts: tuple[str, ...]
    first: NDArray[np.intp]
    last: NDArray[np.intp]
    sure: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sound:
    """What the encoder made of some windows."""

    states: torch.Tensor  # [windows, frames, width]
    cross: DynamicCache  # keys and values that the decoder makes of them: filled by its first call, used by all


class Whisper:
    """The engine of whisper, multilingual or English only."""

    blank = 0
    vocab = 0
    again = 0

    def __init__(self, setup: Setup, *, dtype: torch.dtype) -> None:
        settle_arithmetic()
        self._setup, self._dtype = setup, dtype
        self._model = load(AutoModelForSpeechSeq2Seq, setup.source, dtype=dtype).eval().to(setup.device)
        self._extract = _part(AutoFeatureExtractor, setup, "feature extractor")
        self._check_features()
        self._tokens = Tokens(_part(AutoTokenizer, setup, "tokenizer"), self._model, folder=setup.source.folder)
        self._tokens.check(setup.language)
        self._heads = whisper_times.alignment_heads(self._model)
        given = self._model.generation_config
        suppressed = sorted({*(given.suppress_tokens or ()), *self._tokens.special} - {self._tokens.end})
        self._suppressed = torch.tensor(suppressed, device=setup.device)
        self._model.generation_config = GenerationConfig(  # of the model's own only what it must not write is kept
            num_beams=setup.beam_size,
            max_length=self._model.config.max_target_positions,
            suppress_tokens=suppressed,
            begin_suppress_tokens=given.begin_suppress_tokens,
            decoder_start_token_id=self._tokens.start,
            eos_token_id=self._tokens.end,
            pad_token_id=self._tokens.end,
        )
        self.about = {
            "layout": "one by one" if setup.device == "cpu" else "padded",
            "attention": str(self._model.config._attn_implementation),
            "mask": "not needed",
        }

    def _check_features(self) -> None:
        config = self._model.config
        made = (self._extract.feature_size, self._extract.nb_max_frames)
        taken = (config.num_mel_bins, 2 * config.max_source_positions)
        if made != taken:
            raise JobError(
                f"the feature extractor of {self._setup.source.folder} makes {made[0]} x {made[1]} features, but the "
                f"model takes {taken[0]} x {taken[1]}: take the one that the model was trained with",
                failure="ModelInvalid",
            )

    @torch.inference_mode()
    def compute(self, windows: Sequence[Samples]) -> list[Heard]:
        """What was said in each window of at most 30 s; on CPUs one by one, so that no batch changes a bit."""
        if self._setup.device == "cpu" and len(windows) > 1:
            return [self.compute([window])[0] for window in windows]
        if not windows:
            return []
        features = torch.stack([self._features(window) for window in windows])
        sound = Sound(states=self._model.get_encoder()(features).last_hidden_state, cross=DynamicCache())
        languages = self._languages(sound)
        prompts = [self._tokens.prompt(language) for language in languages]
        texts = self._written(sound, prompts)
        with whisper_times.watched(self._model, self._heads) as seen:
            logits = self._decode(sound, [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)])
        skip = len(prompts[0]) - 1  # the prompt's last token chooses the text's first one
        heard = []
        for at, (text, window) in enumerate(zip(texts, windows, strict=True)):
            rows, frames = skip + len(text), math.ceil(len(window) / self._setup.source.stride)
            looked = torch.cat([one[at, :, : rows + 1, :frames] for one in seen.values()])
            begins = whisper_times.begins(looked, skip=skip, median=self._model.config.median_filter_width)
            heard.append(self._heard(text, languages[at], logits[at, skip:rows].float(), begins))
        return heard

    def finish(self, outcome: Outcome, piece: Piece, result: Heard, loud: NDArray[np.bool_]) -> Outcome:
        """The words on the file's clock, cut or moved to what can be heard; without those "said" in silence."""
        if not np.isfinite(result.sure).all():
            raise JobError("the model's output holds NaN; try precision: fp32", failure="NaN")
        source = self._setup.source
        start, end = piece.first / source.rate, outcome.samples / source.rate
        reach = round(JITTER_S * source.rate / source.stride)
        said = []
        for text, first, last, sure in zip(result.texts, result.first, result.last, result.sure, strict=True):
            frames = whisper_times.audible(loud, first=first, last=last, reach=reach)
            if frames:
                low, high = (min(frame * source.stride / source.rate, end) for frame in frames)
                said.append(
                    Said(
                        text=text,
                        start=start + low,
                        end=start + high,
                        confidence=float(sure),
                        language=result.language,
                    )
                )
        return replace(outcome, said=tuple(said))

    def unheard(self, outcome: Outcome, piece: Piece) -> Outcome:
        """A window that is all silence."""
        return outcome

    def _features(self, samples: Samples) -> torch.Tensor:
        """[bins, 3000]: padded to 30 s."""
        made = self._extract(samples, sampling_rate=self._setup.source.rate, return_tensors="pt")
        features: torch.Tensor = made["input_features"][0].to(self._setup.device, self._dtype)
        return features

    def _languages(self, sound: Sound) -> list[str | None]:
        """The language of each window: the one given, or the likeliest by the model; None where it knows only one."""
        known, count = self._tokens.languages, len(sound.states)
        if self._setup.language is not None or not known:
            return [self._setup.language if known else None] * count
        logits = self._decode(sound, [[self._tokens.start]] * count)[:, -1, list(known.values())]
        names = list(known)
        return [names[at] for at in logits.argmax(dim=-1).tolist()]

    def _written(self, sound: Sound, prompts: list[list[int]]) -> list[list[int]]:
        """Tokens of text of each window."""
        beams = self._setup.beam_size
        if beams > 1 and sound.cross.get_seq_length():
            sound.cross.batch_repeat_interleave(beams)
        written = GenerationMixin.generate(
            self._model,
            encoder_outputs=BaseModelOutput(last_hidden_state=sound.states),
            decoder_input_ids=torch.tensor(prompts, device=self._setup.device),
            past_key_values=EncoderDecoderCache(DynamicCache(), sound.cross),
        )
        if beams > 1:
            first = torch.arange(0, beams * len(prompts), beams, device=self._setup.device)
            sound.cross.batch_select_indices(first)
        return [self._tokens.text(row[len(prompts[0]) :]) for row in written.tolist()]

    def _decode(self, sound: Sound, tokens: list[list[int]]) -> torch.Tensor:
        """Logits of what follows each token, [windows, tokens, vocab].

        Shorter rows are padded behind: what comes later changes nothing before it.
        """
        longest = max(map(len, tokens))
        padded = [[*row, *[self._tokens.end] * (longest - len(row))] for row in tokens]
        logits: torch.Tensor = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=sound.states),
            decoder_input_ids=torch.tensor(padded, device=self._setup.device),
            past_key_values=EncoderDecoderCache(DynamicCache(), sound.cross),
        ).logits
        return logits

    def _heard(self, text: list[int], language: str | None, logits: torch.Tensor, begins: NDArray[np.intp]) -> Heard:
        """Words from tokens: ``logits`` [tokens, vocab], ``begins`` the first frame of each token and of the end."""
        words = self._tokens.words(text, language=language)
        first = np.array([word.first for word in words], dtype=np.intp)
        last = np.array([word.last for word in words], dtype=np.intp)
        logits[:, self._suppressed] = -torch.inf  # what could not be chosen is no doubt
        certain = confidence.certainty(torch.log_softmax(logits, dim=-1).cpu().numpy())
        return Heard(
            language=language,
            texts=tuple(word.text for word in words),
            first=begins[first],
            last=begins[last],
            sure=confidence.over_spans(certain, first, last),
        )


def _part(auto: Any, setup: Setup, what: str) -> Any:
    source = setup.source
    try:
        return auto.from_pretrained(source.folder, local_files_only=True, trust_remote_code=source.trust_remote_code)
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise JobError(f"{source.folder} has no usable {what}: {reason}", failure="ModelInvalid") from error

"""What a model makes of the validation data: loss, share of blanks, texts and their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runner import ranks
from runner.asr.decode import decode
from runner.asr.features import Features
from runner.asr.groups import Groups
from runner.asr.score import Scorer, Scores, UtteranceScore
from runner.asr.training.buckets import cut
from runner.asr.training.corpus import Corpus
from runner.asr.training.dataset import Collate, Example
from runner.asr.training.network import heard
from runner.asr.training.spelling import Spelling

WINDOW_S = 60.0  # padded seconds heard at once


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Texts held against a corpus; ``scored`` is in its order."""

    scored: tuple[UtteranceScore, ...]
    scores: Scores
    groups: Groups


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One measurement. ``hypotheses`` are in the corpus's order."""

    loss: float  # mean over clips of the CTC loss per character
    blank_ratio: float  # share of frames that say nothing
    hypotheses: tuple[str, ...]
    judged: Judged

    def figures(self) -> dict[str, float]:
        """`validation_loss`, `blank_ratio`, `wer`, `cer`; rates are 1 where there is no reference to count by."""
        headline = self.judged.scores.rates[0]
        wer, cer = (rate.rate if rate.rate is not None else 1.0 for rate in (headline.words, headline.characters))
        return {"validation_loss": self.loss, "blank_ratio": self.blank_ratio, "wer": wer, "cer": cer}


def judge(corpus: Corpus, hypotheses: Sequence[str]) -> Judged:
    """What is wrong in ``hypotheses``, one for each clip."""
    scorer, groups, scored = Scorer(), Groups(), []
    for one, text in zip(corpus.utterances, hypotheses, strict=True):
        scored.append(scorer.add(one.text, text, key=one.recording.key))
        groups.add(scored[-1], groups=one.groups, seconds=one.recording.samples / corpus.rate)
    return Judged(scored=tuple(scored), scores=scorer.result(), groups=groups)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one process heard; by clip."""

    texts: dict[int, str]
    losses: dict[int, float]
    blanks: int
    frames: int


class Examiner:
    """Measures models on one corpus, always in fp32. The processes of a team share the batches, and all know the
    whole; which of them heard a batch changes no bit."""

    def __init__(self, corpus: Corpus, *, features: Features, name: str, mask: bool, check: Callable[[], None]) -> None:
        self._corpus = corpus
        self._features = features
        self._collate = Collate(name)
        self._mask = mask
        self._check = check

    def evaluate(self, model: Any, spelling: Spelling) -> Evaluation:
        """Hear every clip. ``model`` comes back as it was, in training or not; no random number is drawn."""
        training = model.training
        mixed = model.__dict__.pop("forward", None)  # the Trainer's wrapper for bf16 and fp16
        model.eval()
        try:
            part = self._heard(model, spelling)
        finally:
            model.train(training)
            if mixed is not None:
                model.forward = mixed
        return self._whole(ranks.of_all(part))

    @torch.inference_mode()
    def _heard(self, model: Any, spelling: Spelling) -> _Part:
        texts: dict[int, str] = {}
        losses: dict[int, float] = {}
        blanks = frames = 0
        for clips in islice(self._batches(), ranks.rank(), None, ranks.size()):
            made = self._collate([self._example(clip, spelling) for clip in clips])
            inputs = {key: value.to(model.device) for key, value in made.items()}
            lengths = model._get_feat_extract_output_lengths(inputs["attention_mask"].sum(-1)).tolist()
            answer = heard(model, inputs)
            losses |= dict.fromkeys(clips.tolist(), float(answer.loss))  # the batch's mean stands for each of its clips
            rows = torch.log_softmax(answer.logits.float(), dim=-1).cpu().numpy()
            for clip, row, length in zip(clips.tolist(), rows, lengths, strict=True):
                texts[clip] = decode(row[:length], alphabet=spelling.alphabet, frame_s=1.0, timestamps="none").text
                blanks += int((row[:length].argmax(axis=1) == spelling.alphabet.blank).sum())
                frames += length
            self._check()
        return _Part(texts=texts, losses=losses, blanks=blanks, frames=frames)

    def _whole(self, parts: Sequence[_Part]) -> Evaluation:
        clips = range(len(self._corpus))
        texts = {clip: text for part in parts for clip, text in part.texts.items()}
        losses = {clip: loss for part in parts for clip, loss in part.losses.items()}
        hypotheses = tuple(texts[clip] for clip in clips)
        return Evaluation(
            loss=float(np.mean([losses[clip] for clip in clips])),
            blank_ratio=sum(part.blanks for part in parts) / sum(part.frames for part in parts),
            hypotheses=hypotheses,
            judged=judge(self._corpus, hypotheses),
        )

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        lengths = self._corpus.lengths
        order = np.argsort(lengths, kind="stable")
        # group norm hears padding, so clips of such models are heard one by one
        most = round(WINDOW_S * self._corpus.rate)
        return cut(order, lengths, most=most, clips=64 if self._mask else 1)

    def _example(self, clip: int, spelling: Spelling) -> Example:
        utterance = self._corpus.utterances[clip]
        labels = torch.tensor(spelling.ids(utterance.text))
        return Example(features=self._features(self._corpus.samples(clip)), labels=labels)


def rows(corpus: Corpus, found: Judged) -> Sequence[dict[str, Any]]:
    """The lines of `eval.jsonl`: what was said, what was heard, and how many words and characters are wrong."""
    return [
        {
            **one.recording.fields(),
            "text": score.reference,
            "hypothesis": score.hypothesis,
            "errors": score.words.errors,
            "words": score.words.references,
            "character_errors": score.characters.errors,
            "characters": score.characters.references,
            **({"groups": one.groups} if one.groups else {}),
        }
        for one, score in zip(corpus.utterances, found.scored, strict=True)
    ]

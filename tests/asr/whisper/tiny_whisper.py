"""Tiny Whispers with all the files of a real one: a seeded one that says nothing sensible, though what it hears counts,
and one that was taught in half a minute to write the letters of tones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

SPECIAL = ("endoftext", "startoftranscript", "en", "ja", "pt", "translate", "transcribe", "notimestamps")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WRITES = {*LETTERS.encode(), 0xC3, 0xA3}  # the bytes that it may write by themselves: letters, and the two of ã
END = 256 + len(LETTERS)  # between them a letter after a space, 26 tokens
MOST = 30  # tokens, prompt included
PROMPT = [END + SPECIAL.index(name) for name in ("startoftranscript", "pt", "transcribe", "notimestamps")]
RATE = 16000
SPAN = 10  # seconds that the taught model hears at once


def save(
    folder: Path, *, multilingual: bool = True, heads: bool = True, hears: str | None = None, seed: int = 0
) -> Path:
    """Write model, tokenizer, feature extractor and generation settings. ``hears`` is the language it detects."""
    vocabulary = {symbol: byte for byte, symbol in bytes_to_unicode().items()}
    vocabulary |= {f"Ġ{letter}": 256 + at for at, letter in enumerate(LETTERS)}
    ids = {name: END + at for at, name in enumerate(SPECIAL)}
    vocabulary |= {f"<|{name}|>": id_ for name, id_ in ids.items()}
    tokenizer = WhisperTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{name}|>" for name in SPECIAL]})
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=END + len(SPECIAL) + 1501,
        num_mel_bins=80,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_target_positions=MOST,
        init_std=0.4,
        pad_token_id=END,
        bos_token_id=END,
        eos_token_id=END,
        decoder_start_token_id=ids["startoftranscript"],
        begin_suppress_tokens=None,
        suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config).eval()
    silent = [byte for byte in range(256) if byte not in WRITES]
    with torch.no_grad():
        for layer in model.get_decoder().layers:  # look somewhere, not everywhere
            layer.encoder_attn.q_proj.weight.mul_(4)
        if hears is not None:  # its token is made what the decoder answers to the start token
            start = torch.tensor([[ids["startoftranscript"]]])
            answer = model.model(input_features=torch.zeros(1, 80, 3000), decoder_input_ids=start).last_hidden_state
            model.get_input_embeddings().weight[ids[hears]] = 3 * answer[0, 0]
    model.generation_config = GenerationConfig(
        suppress_tokens=[*silent, *range(END + 1, END + len(SPECIAL))],
        begin_suppress_tokens=[END],
        is_multilingual=multilingual,
        max_length=MOST,
        no_timestamps_token_id=ids["notimestamps"],
        decoder_start_token_id=ids["startoftranscript"],
        bos_token_id=END,
        eos_token_id=END,
        pad_token_id=END,
        **({"lang_to_id": {f"<|{n}|>": ids[n] for n in ("en", "ja", "pt")}} if multilingual else {}),
        **({"task_to_id": {n: ids[n] for n in ("translate", "transcribe")}} if multilingual else {}),
        **({"alignment_heads": [[1, 0], [1, 3], [0, 2]]} if heads else {}),
    )
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=80), tokenizer).save_pretrained(folder)
    return folder


@dataclass(frozen=True, kw_only=True)
class Tone:
    """One word of a made-up recording: a letter, seconds from the start."""

    letter: str
    start: float
    end: float


def tones(seconds: float, *, seed: int) -> tuple[NDArray[np.float32], list[Tone]]:
    """A tone per letter, 250 to 4,000 Hz, one about every 0.9 s, in faint noise; none again within nine: [samples]."""
    random = np.random.default_rng(seed)
    samples = 0.003 * random.standard_normal(round(seconds * RATE))
    said: list[Tone] = []
    for at in np.arange(random.uniform(0.2, 0.9), seconds - 0.7, 0.9):
        start, length = at + random.uniform(-0.1, 0.1), random.uniform(0.35, 0.55)
        letter = random.choice([one for one in LETTERS if one not in {tone.letter for tone in said[-9:]}])
        first, t = round(start * RATE), np.arange(round(length * RATE)) / RATE
        loudness = 0.2 * np.minimum(1, np.minimum(t, t[::-1]) / 0.03)
        pitch = 250 * 2 ** (4 * LETTERS.index(letter) / len(LETTERS))
        samples[first : first + len(t)] += loudness * np.sin(2 * np.pi * pitch * t + random.uniform(0, 6))
        said.append(Tone(letter=str(letter), start=start, end=start + length))
    return samples.astype(np.float32), said


def taught(folder: Path, *, lessons: int = 450) -> Path:
    """A model of ``tones`` that hears 10 s at once, in files like those of ``save``: 45 s of training on one thread.

    One layer of its decoder is shown where the letter before was, the other where the next one is.
    """
    save(folder)
    extract = WhisperFeatureExtractor(feature_size=80, chunk_length=SPAN)
    WhisperProcessor(extract, AutoTokenizer.from_pretrained(folder)).save_pretrained(folder)
    settings = GenerationConfig.from_pretrained(folder)
    settings.suppress_tokens, settings.alignment_heads = list(range(256)), [[1, head] for head in range(4)]
    torch.manual_seed(0)
    config = WhisperConfig.from_pretrained(folder, d_model=48, encoder_layers=0, encoder_ffn_dim=48, decoder_ffn_dim=96)
    config.update({"init_std": 0.08, "max_source_positions": 50 * SPAN, "decoder_attention_heads": 4})
    config._attn_implementation = "eager"
    model = WhisperForConditionalGeneration(config)
    lesson = Lessons(extract, count=700)
    best = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.LambdaLR(best, lambda at: min(1, at / 50, 2 * (1 - at / lessons)))
    for _ in range(lessons):
        best.zero_grad()
        lesson.loss(model).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        best.step()
        rate.step()
    model.generation_config = settings
    model.eval().save_pretrained(folder)
    return folder


class Lessons:
    """Stretches of one long recording, what is said in them and where."""

    def __init__(self, extract: WhisperFeatureExtractor, *, count: int) -> None:
        self._random = np.random.default_rng(1)
        samples, said = tones(1500, seed=0)
        self._features, self._texts, self._spans = [], [], []
        for _ in range(count):
            length = self._random.uniform(4, SPAN)
            start = self._random.uniform(0, 1500 - length)
            part = samples[round(start * RATE) : round((start + length) * RATE)]
            self._features.append(extract(part, sampling_rate=RATE, return_tensors="pt")["input_features"][0])
            inside = [t for t in said if start < (t.start + t.end) / 2 < start + length]
            self._texts.append([256 + LETTERS.index(t.letter) for t in inside])
            self._spans.append([(max(0, int(50 * (t.start - start))), int(50 * (t.end - start))) for t in inside])

    def loss(self, model: WhisperForConditionalGeneration) -> torch.Tensor:
        """Of sixteen stretches: wrong letters, and looking elsewhere."""
        picked = self._random.integers(len(self._texts), size=16)
        longest = max(len(self._texts[at]) for at in picked)
        ids = torch.full((16, 4 + longest), END)
        answers = torch.full_like(ids, -100)
        places = torch.zeros(2, *ids.shape, 50 * SPAN)  # layer, stretch, token, frame
        for row, at in enumerate(picked):
            text, spans = self._texts[at], self._spans[at]
            ids[row, : 4 + len(text)] = torch.tensor([*PROMPT, *text])
            answers[row, 0] = PROMPT[1]
            answers[row, 3 : 4 + len(text)] = torch.tensor([*text, END])
            for token, (first, last) in enumerate(spans):
                places[0, row, 4 + token, first:last] = 1 / (last - first)
                places[1, row, 3 + token, first:last] = 1 / (last - first)
            after = spans[-1][1]
            places[1, row, 3 + len(text), after : after + 10] = 0.1
        slips = torch.rand(ids.shape) < 0.15  # so that one wrong letter does not lead to the next
        slips[:, :4] = False
        ids = torch.where(slips, torch.randint(256, END, ids.shape), ids)
        features = torch.stack([self._features[at] for at in picked])
        out = model(input_features=features, decoder_input_ids=ids, use_cache=False, output_attentions=True)
        wrong = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), answers.flatten(), ignore_index=-100)
        looked = torch.stack([weights.mean(dim=1) for weights in out.cross_attentions])
        astray = -(places * torch.log(looked + 1e-6)).sum(dim=(1, 2, 3)) / places.sum(dim=(1, 2, 3))
        return wrong + 0.3 * astray.sum()

"""What contenders of the language-model benchmarks share: one seeded model, documents of a chat, and turns by steps.

Lengths are log-normal with a median of 200 tokens and a 95th percentile of 1,200, cut at 2,048: short questions and
some long threads. Of each document the reply, its last 20% to 80% (half on average), is learned, the rest is prompt.
Words follow each other by a seeded table, four for each, so that there is something to learn.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.bench.turns import Step

MEDIAN, P95, SHORTEST, LONGEST = 200, 1200, 16, 2048  # tokens
FOLLOWERS = 4
SPECIAL = 3  # ids of padding, beginning and end
MATRIX = 2048


@dataclass(frozen=True, kw_only=True)
class Talk:
    """One document. The first ``prompt`` tokens are not learned."""

    ids: NDArray[np.int32]
    prompt: int

    @property
    def learned(self) -> NDArray[np.bool_]:
        return np.arange(len(self.ids)) >= self.prompt


def talks(count: int, *, vocabulary: int, seed: int = 0, longest: int = LONGEST) -> list[Talk]:
    """``count`` documents, the same for the same arguments."""
    random = np.random.default_rng(seed)
    sigma = math.log(P95 / MEDIAN) / 1.6449  # the normal distribution's 95th percentile
    lengths = np.clip(np.exp(random.normal(math.log(MEDIAN), sigma, count)), SHORTEST, longest).astype(int)
    table = np.random.default_rng(1).integers(SPECIAL, vocabulary, (vocabulary, FOLLOWERS), dtype=np.int32)
    found = []
    for length in lengths:
        ids = np.empty(length, dtype=np.int32)
        ids[0] = random.integers(SPECIAL, vocabulary)
        for place, choice in enumerate(random.integers(0, FOLLOWERS, length - 1)):
            ids[place + 1] = table[ids[place], choice]
        found.append(Talk(ids=ids, prompt=max(1, round(length * random.uniform(0.2, 0.8)))))
    return found


def llama(folder: Path, *, hidden: int, layers: int, vocabulary: int, positions: int = LONGEST) -> Path:
    """A seeded Llama with tied embeddings and a tokenizer of that many words, saved."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=max(1, hidden // 256), max_position_embeddings=positions,
        tie_word_embeddings=True, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer(vocabulary).save_pretrained(folder)
    return folder


def tokenizer(vocabulary: int) -> Any:
    """One token a word: w3 is 3; the first three are special."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{one}": one for one in range(SPECIAL, vocabulary)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<pad>")),
        pad_token="<pad>", bos_token="<s>", eos_token="</s>",
    )  # fmt: skip


def by_steps(train: Callable[[Callable[[Step], None]], None], *, threads: int) -> Iterator[Step]:
    """What ``train`` tells after each of its steps, while it waits: a training loop that takes turns.

    ``train`` runs in a thread of its own and gets the function to call after each step.
    """
    told: queue.Queue[Step | BaseException | None] = queue.Queue()
    turn = threading.Semaphore(0)

    def tell(step: Step) -> None:
        told.put(step)
        turn.acquire()

    def run() -> None:
        torch.set_num_threads(threads)  # OpenMP counts for each thread that asks
        try:
            train(tell)
            told.put(None)
        except BaseException as error:  # raised again by whoever takes turns
            told.put(error)

    threading.Thread(target=run, daemon=True).start()
    while (found := told.get()) is not None:
        if isinstance(found, BaseException):
            raise found
        yield found
        turn.release()


def gemm_gflops(threads: int) -> float:
    """Floating-point operations of a square fp32 product in a second, in 1e9, at its best."""
    torch.set_num_threads(threads)
    square = torch.randn(MATRIX, MATRIX)
    best = math.inf
    for _ in range(8):
        began = time.perf_counter()
        square @ square
        best = min(best, time.perf_counter() - began)
    return 2 * MATRIX**3 / best / 1e9


@torch.no_grad()
def measured(model: Any, talks: list[Talk]) -> float:
    """Mean loss of the replies' tokens, one document at a time."""
    losses, count = 0.0, 0
    model.eval()
    for talk in talks:
        ids = torch.from_numpy(talk.ids.astype("int64"))[None]
        logits = model(input_ids=ids).logits[0, talk.prompt - 1 : -1]
        losses += float(torch.nn.functional.cross_entropy(logits.float(), ids[0, talk.prompt :], reduction="sum"))
        count += ids.shape[1] - talk.prompt
    model.train()
    return losses / count


def products(folder: str, trains: str) -> float:
    """Operations of a token's forward and backward pass in products with weights; the head at every token."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    matrices = sum(one.numel() for one in model.parameters() if one.ndim == 2)  # tied: embeddings count as the head
    return (6.0 if trains == "whole" else 4.0) * matrices  # frozen weights get no gradient

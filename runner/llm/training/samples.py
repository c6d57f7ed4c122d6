"""What a model answers while it learns: greedy, prompt by prompt, so that no padding is between it and its answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from runner.schema.errors import JobError

SAMPLES = "samples"  # of a row of the history


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is asked, and as the tokens that the model goes on from."""

    text: str
    ids: tuple[int, ...]


def prompts(
    texts: Sequence[str], ask: Callable[[str], Sequence[int]], *, tokens: int, positions: int
) -> tuple[Prompt, ...]:
    """``texts`` in the tokens that ``ask`` gives. Raises JobError where one and its answer do not fit the positions."""
    found = tuple(Prompt(text=text, ids=tuple(ask(text))) for text in texts)
    for number, one in enumerate(found):
        if len(one.ids) + tokens > positions:
            raise JobError(
                f"evaluation.prompts[{number}] has {len(one.ids):,} tokens, its answer up to {tokens:,}, and the model "
                f"{positions:,} positions: shorten it, or lower evaluation.prompt_tokens",
                failure="DataInvalid",
            )
    return found


@torch.no_grad()
def answers(
    model: Any, asked: Sequence[Prompt], *, tokenizer: Any, tokens: int, together: bool = False
) -> list[dict[str, Any]]:
    """A row for each prompt: `prompt`, `answer`, and whether the answer `ended` within ``tokens``.

    ``model`` is in eval mode; no random number is drawn. ``together``: weights are shared among processes, which must
    all go on until the last answer has ended.
    """
    ends = _ends(model, tokenizer)
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=tokens,
        use_cache=True,
        eos_token_id=ends or None,
        pad_token_id=ends[0] if ends else 0,
    )
    found = []
    for prompt in asked:
        ids = torch.tensor([prompt.ids], device=model.device)
        made = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config, synced_gpus=together
        )
        new = made[0, ids.shape[1] :].tolist()
        ended = bool(new) and new[-1] in ends
        answer = tokenizer.decode(new[:-1] if ended else new, skip_special_tokens=False)
        found.append({"prompt": prompt.text, "answer": answer, "ended": ended})
    return found


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: those of the model, and the tokenizer's."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = own if isinstance(own, list) else [own]
    return sorted({one for one in [*ends, tokenizer.eos_token_id] if one is not None})


def write(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """`samples.jsonl`, where anything was asked."""
    if found := rows(history):
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")


def rows(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The lines of `samples.jsonl`."""
    return [{"step": row["step"], **one} for row in history for one in row.get(SAMPLES, ())]

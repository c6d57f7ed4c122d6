"""A tiny language model, batches made ahead, and someone who listens to a run and may end it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.checkpoints import Checkpoints
from runner.llm.distribution.strategy import Strategy
from runner.llm.packing.step import Batch, Step
from runner.llm.training import session
from runner.llm.training.recipe import Rate, Recipe
from runner.llm.training.session import Done
from runner.tell import Tell
from tests.registry import tiny_llm

VOCABULARY = 40
RATE = Rate(highest=1e-2, schedule="linear", warmup=0.2, floor=0.1)
ALONE = Strategy(name="none", why="one process", shared=False)


class EndedError(Exception):
    """The run was killed."""


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A model as it would be prepared."""

    model: Any
    flops: float | None = None  # of a token

    @property
    def operations(self) -> Callable[[Step], float] | None:
        flops = self.flops
        return None if flops is None else lambda step: flops * step.tokens


@dataclass(frozen=True, kw_only=True)
class Listed:
    """Steps made ahead."""

    steps: Sequence[Step]

    @property
    def total(self) -> int:
        return len(self.steps)

    def begin(self, number: int) -> Iterator[Step]:
        return iter(self.steps[number:])


@dataclass(kw_only=True)
class Heard:
    """What a run told; it is ended when ``check`` is called for the ``end_at``-th time."""

    end_at: int | None = None
    checks: int = 0
    lines: list[str] = field(default_factory=list)
    progress: list[tuple[int, int, str]] = field(default_factory=list)
    metrics: list[tuple[str, float]] = field(default_factory=list)

    def tell(self) -> Tell:
        return Tell(
            progress=lambda done, total, unit: self.progress.append((done, total, unit)),
            log=self.lines.append,
            metric=lambda name, value: self.metrics.append((name, value)),
            check=self._check,
        )

    def _check(self) -> None:
        self.checks += 1
        if self.checks == self.end_at:
            raise EndedError


def model(family: str = "llama", *, dropout: float = 0.0) -> Any:
    """Always with the same weights; dropout makes every step draw random numbers."""
    made = tiny_llm.model(family)
    made.config.attention_dropout = dropout
    for part in made.modules():
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = dropout
    return made.float().train()


def padded(documents: Sequence[Tensor], *, learned_from: int = 1) -> Batch:
    """A padded batch whose labels begin at a document's token ``learned_from``."""
    width = max(len(one) for one in documents)
    ids = torch.zeros(len(documents), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, one in enumerate(documents):
        ids[row, : len(one)], mask[row, : len(one)] = one, 1
        labels[row, learned_from : len(one)] = one[learned_from:]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "use_cache": False}


def documents(count: int, *, seed: int = 0, shortest: int = 4, longest: int = 20) -> list[Tensor]:
    """Random tokens in which each is the one before plus 1 or 2, so that there is something to learn."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        length = int(torch.randint(shortest, longest + 1, (1,), generator=draw))
        steps = torch.randint(1, 3, (length,), generator=draw)
        made.append((steps.cumsum(0) % (VOCABULARY - 3)) + 3)
    return made


def step(number: int, batches: Sequence[Batch]) -> Step:
    """A step whose counts are those of ``batches``."""
    return Step(
        number=number,
        batches=tuple(batches),
        targets=sum(int((one["labels"][:, 1:] != -100).sum()) for one in batches),
        tokens=sum(int(one["attention_mask"].sum()) for one in batches),
        computed=sum(one["input_ids"].numel() for one in batches),
        documents=sum(len(one["input_ids"]) for one in batches),
    )


def steps(count: int, *, rows: int = 3, passes: int = 2, last: int | None = None, seed: int = 0) -> Listed:
    """``count`` steps of ``passes`` batches of ``rows`` documents; the last may have fewer batches."""
    found = documents(count * passes * rows, seed=seed)
    made = []
    for number in range(count):
        width = last if last is not None and number == count - 1 else passes
        begin = number * passes * rows
        batches = [padded(found[at : at + rows]) for at in range(begin, begin + width * rows, rows)]
        made.append(step(number, batches))
    return Listed(steps=made)


def recipe(**changed: Any) -> Recipe:
    """Two forward passes a step, a measurement each four steps."""
    return Recipe(**{"rate": RATE, "accumulate": 2, "every_steps": 4, **changed})


def fit(folder: Path, trained: Any, listed: Listed, *, heard: Heard | None = None, **changed: Any) -> Done:
    """Train on a CPU; ``changed`` are fields of the recipe, or arguments of ``session.train``."""
    flops = changed.pop("flops", None)
    more = {name: changed.pop(name) for name in ("examiner", "strategy", "track", "track_folder") if name in changed}
    return session.train(
        Ready(model=trained, flops=flops),
        listed,
        recipe=recipe(**changed),
        checkpoints=Checkpoints(folder),
        tell=(heard or Heard()).tell(),
        device="cpu",
        **{"strategy": ALONE, **more},
    )


def weights(trained: Any) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in trained.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def journal(folder: Path, name: str = "training.jsonl") -> list[dict[str, Any]]:
    """The lines of a run."""
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]

"""What each process of a team trains in these tests: a tiny packed run, whose process 1 may be killed once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model

from runner import ranks
from runner.context import Context
from runner.execution.local_team import LocalTeam
from runner.execution.pool import SoloPool
from runner.execution.share import Share
from runner.execution.team import SoloTeam
from runner.kernels import patching
from runner.llm.distribution import strategy
from runner.llm.model.prepared import Prepared
from runner.llm.packing import batch
from runner.llm.packing.step import Step
from runner.registry.strategy import Choice, choose
from tests.llm.training import small
from tests.registry import tiny_llm

STEPS, PASSES = 8, 4
KILL_AT = 11  # the check that process 1 does not survive, in step 6: two a step; the last checkpoint is of step 4


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One run."""

    strategy: str = "auto"
    adapter: bool = True
    precision: str = "fp32"
    optimizer: str = "adamw"
    given: Path | None = None
    kill: bool = False


@dataclass(frozen=True, kw_only=True)
class Shared:
    """The part of one process of ``steps``."""

    steps: small.Listed

    @property
    def total(self) -> int:
        return self.steps.total

    def begin(self, number: int) -> Iterator[Step]:
        for step in self.steps.begin(number):
            yield replace(step, batches=step.batches[ranks.rank() :: ranks.size()])


class Killed(small.Heard):
    """A process that is ended from outside."""

    def _check(self) -> None:
        self.checks += 1
        if self.checks == self.end_at:
            os.kill(os.getpid(), signal.SIGKILL)


def ready(model: Any, choice: Choice, *, applied: patching.Applied | None = None, precision: str = "fp32") -> Prepared:
    """As much of a prepared model as a strategy asks for."""
    applied = applied or patching.apply(model, {})
    found = SimpleNamespace(model=model, choice=choice, applied=applied, precision=SimpleNamespace(name=precision))
    return cast(Prepared, found)


def model(wanted: Wanted) -> tuple[Any, patching.Applied]:
    """A tiny model with kernels in it: an adapter on frozen weights, or all of it with tied embeddings."""
    made = tiny_llm.model("llama", tie_word_embeddings=not wanted.adapter).float().train()
    patches: dict[str, Any] = {"linear_cross_entropy": "required", "attention": "required"}
    if wanted.adapter:
        torch.manual_seed(1)
        config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj", "gate_proj", "up_proj", "down_proj"])
        made = get_peft_model(made, config)
        patches["lora_linear"] = "preferred" if wanted.strategy == "zero3" else "required"
    return made, patching.apply(made, patches)


def steps() -> small.Listed:
    """Packed rows of three documents each."""
    found = small.documents(STEPS * PASSES * 3)
    made = []
    for number in range(STEPS):
        rows = [found[at : at + 3] for at in range(number * PASSES * 3, (number + 1) * PASSES * 3, 3)]
        batches = tuple(batch.packed([_coded(one) for one in row]) for row in rows)
        targets = sum(int((one["labels"][:, 1:] != -100).sum()) for one in batches)
        made.append(
            Step(number=number, batches=batches, targets=targets, tokens=targets, computed=targets, documents=12)
        )
    return small.Listed(steps=made)


def work(wanted: Wanted, folder: Path, ctx: Context) -> dict[str, Any]:
    """Train; what the first process knows of it."""
    trained, applied = model(wanted)
    choice = choose(wanted.strategy, processes=ranks.size(), optimizer=wanted.optimizer)
    made = ready(trained, choice, applied=applied, precision=wanted.precision)
    chosen = strategy.begin(made, device="cpu", given=wanted.given)
    heard = Killed(end_at=KILL_AT) if wanted.kill and ranks.rank() == 1 else small.Heard()
    more: dict[str, Any] = {"strategy": chosen, "accumulate": PASSES, "precision": wanted.precision}
    more["optimizer"] = wanted.optimizer
    done = small.fit(folder, trained, Shared(steps=steps()), heard=heard, **more)
    if ranks.rank():
        return {}
    state = (
        done.state
        if done.state is not None
        else {name: one.detach().clone() for name, one in trained.state_dict().items()}
    )
    kinds = {type(one).__name__ for one in trained.modules()}
    return {
        "name": chosen.name,
        "history": [(row["step"], row["loss"], row["grad_norm"]) for row in small.journal(folder)],
        "state": {name: one.numpy() for name, one in state.items() if not wanted.adapter or "lora_" in name},
        "lines": heard.lines,
        "shared": sorted(one for one in kinds if one.startswith("FSDP")),
        "partitioned": sorted({hasattr(one, "ds_id") for one in trained.parameters()}),
    }


def run(folder: Path, wanted: Wanted, *, processes: int = 2) -> dict[str, Any]:
    """``work`` in a team of this machine, its checkpoints in ``folder``."""
    room = folder / "room"
    places = {name: room / name for name in ("out", "records", "checkpoints")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    share = Share(workers=processes, cpus=1, threads=1, gpus=0, memory_gb=0, accelerator=None)
    team = LocalTeam(share, timeout_s=300, check=_nothing) if processes > 1 else SoloTeam()
    ctx = Context(
        run="run",
        folder=folder,
        **places,
        inputs={},
        threads=1,
        pool=SoloPool(1, _nothing),
        team=team,
        device="cpu",
        progress=_nothing,
        log=_nothing,
        metric=_nothing,
        check=_nothing,
    )
    answer: dict[str, Any] = team.run(partial(work, wanted, folder / "training"), ctx)
    return answer


def _coded(document: torch.Tensor) -> Any:
    return document.to(torch.int32).numpy()


def _nothing(*_: object) -> None:
    """Nobody listens."""

"""Training steps of a Llama-3.1-8B-shaped model on a GPU: ours, transformers + PEFT, Liger, unsloth. Without ray.

    PYTHONPATH=. python tests/gpu/llm_train.py [--out artifacts/bench] [--minutes 8] [--contenders ours plain]

Seeded weights are made on the device, LoRA (r 16, all linear layers) trains on them in bf16 and on nf4, with activation
checkpointing, on steps of 32,768 tokens of documents of 1k, 8k and 32k, half of each learned. Ours gets them packed in
one row, the others as a batch without padding, which is their best. Forward, backward, clipping and fused AdamW are
timed; the median of the steps after the first counts, whose loss and gradient norm are told.

How long a document may be is tried with ours and plain: one step on one of 32k, 64k, 128k ... tokens until the memory
or the time is over. A row says the `longest`, how it `ended`, and what was `too_long` for the memory.

Each part of a contender is in a process of its own, so that none loses by another's memory or patches; ours and plain
come first. What no longer fits into `--minutes`, by what came before, is not begun. Rows go to
`<out>/llm_train-<device>.jsonl`; what could not be had, ran out of memory or of time is a row with `error`. Unsloth
gets the same weights through a folder on the disk, since it loads them itself.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from runner.kernels.bench.harness import machine
from tests.gpu.llm_shapes import LLAMA_8B, MAKE, TINY, Row

LENGTHS = (1024, 8192, 32768)
TOKENS = 32768  # of a step
STEPS = 4  # the first warms up
LONGEST = (32768, 2**20)  # tokens of the document that is tried first, and of the last
LONGEST_S = 150.0  # for them: 32k, 64k and 128k take 8, 25 and 83 s at 350 TFLOP/s
START_S = 20.0  # to import, make the weights and compile
LEAST_S = 10.0  # of a length before anything is known
JOBS = (
    ("ours", "bf16", "lengths"), ("plain", "bf16", "lengths"), ("ours", "nf4", "lengths"), ("plain", "nf4", "lengths"),
    ("ours", "bf16", "longest"), ("plain", "bf16", "longest"), ("liger", "bf16", "lengths"),
    ("unsloth", "bf16", "lengths"), ("liger", "nf4", "lengths"), ("unsloth", "nf4", "lengths"),
    ("ours", "nf4", "longest"), ("plain", "nf4", "longest"),
)  # fmt: skip


def main() -> None:
    """Each job in turn; rows as they come."""
    args = _arguments()
    began = time.monotonic()
    ends = began + 60 * args.minutes
    device = "cuda" if torch.cuda.is_available() else "cpu"
    identity = machine.identity(machine.ceilings() if device == "cuda" else None)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"llm_train-{machine.slug(identity['device'])}.jsonl"
    for contender, precision, part in JOBS:
        if contender not in args.contenders or part not in args.parts:
            continue
        what = {"contender": contender, "precision": precision, "part": part}
        with path.open("a", encoding="utf-8") as out:
            for row in _rows(what, ends=ends, size={"tiny": args.tiny, "device": device}):
                out.write(json.dumps(row | identity) + "\n")
                print(shown(row), flush=True)
    print(f"{time.monotonic() - began:.0f} s; rows are in {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("artifacts/bench"), help="folder for the rows")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--contenders", nargs="+", choices=list(MAKE), default=list(MAKE))
    parser.add_argument("--parts", nargs="+", choices=["lengths", "longest"], default=["lengths", "longest"])
    parser.add_argument("--tiny", action="store_true", help="a tiny model and short documents: to see that it runs")
    return parser.parse_args()


def _rows(what: Row, *, ends: float, size: Row) -> Iterator[Row]:
    """Of one job, in a process of its own that does not live longer than ``ends``."""
    if late := _no_time(START_S + LEAST_S, ends):
        yield what | {"error": late}
        return
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_in_a_process, args=(theirs, what, ends, size))
    process.start()
    theirs.close()
    yield from _heard(mine, ends=ends, what=what)
    process.kill()
    process.join()


def _no_time(needed: float, ends: float) -> str | None:
    left = ends - time.monotonic()
    return (
        None if left >= needed else f"not begun: about {needed:.0f} s are needed, and {max(left, 0.0):.0f} s are left"
    )


def _heard(link: Any, *, ends: float, what: Row) -> Iterator[Row]:
    """Rows of a job until it has no more, or its time is over."""
    while True:
        try:
            if not link.poll(max(0.0, ends - time.monotonic())):
                yield what | {"error": "stopped: the time was over"}
                return
            row = link.recv()
        except EOFError:
            yield what | {"error": "its process died"}
            return
        if row is None:
            return
        yield row


def _in_a_process(link: Any, what: Row, ends: float, size: Row) -> None:
    for row in rows_of(**what, ends=ends, **size):
        link.send(row)
    link.send(None)


def rows_of(
    contender: str, precision: str, *, part: str = "lengths", tiny: bool, device: str, ends: float = math.inf
) -> Iterator[Row]:
    """One part of one contender; ``ends`` is a time of `time.monotonic`."""
    what: Row = {"contender": contender, "precision": precision, "part": part}
    shape: Row = TINY if tiny else LLAMA_8B
    try:
        model, notes = MAKE[contender](shape, precision, device)
    except Exception as error:  # what a peer cannot do is a row, whatever its reason
        yield what | {"error": f"{type(error).__name__}: {error}"[:500]}
        return
    model.train()
    what |= {"notes": notes}

    def step(length: int, count: int, steps: int) -> Row | None:
        """None: out of memory."""
        batch = documents(length, count, words=shape["vocab_size"], packed=contender == "ours")
        fields = {name: one.to(device) if isinstance(one, Tensor) else one for name, one in batch.items()}
        try:
            return timed(model, fields, device=device, steps=steps)
        except torch.OutOfMemoryError:
            for one in model.parameters():
                one.grad = None
        return None

    if part == "longest":
        first, last = (64, 128) if tiny else LONGEST
        yield what | longest(step, first=first, last=last, ends=min(ends, time.monotonic() + LONGEST_S))
        return
    lengths, tokens = ((16, 64), 128) if tiny else (LENGTHS, TOKENS)
    needed = LEAST_S
    for length in lengths:
        row = what | {"length": length, "documents": tokens // length, "tokens": tokens}
        if late := _no_time(needed, ends):
            yield row | {"error": late}
            continue
        began = time.monotonic()
        yield row | (step(length, tokens // length, STEPS) or {"error": "out of memory"})
        needed = time.monotonic() - began  # the next has more attention, this one compiled


def longest(step: Callable[[int, int, int], Row | None], *, first: int, last: int, ends: float) -> Row:
    """The most tokens of one document that a step was done on: ``first``, and twice as many until ``last``."""
    found: Row = {"longest": 0, "too_long": None, "ended": f"longer ones than {last} were not tried"}
    length, needed = first, LEAST_S
    while length <= last:
        if late := _no_time(needed, ends):
            return found | {"ended": f"{length} tokens were {late}"}
        began = time.monotonic()
        row = step(length, 1, 1)
        if row is None:
            return found | {"too_long": length, "ended": f"{length} tokens ran out of memory"}
        found |= row | {"longest": length, "tokens": length}
        needed = 4 * (time.monotonic() - began)  # attention grows with the square
        length *= 2
    return found


def documents(length: int, count: int, *, words: int, packed: bool) -> Row:
    """The same documents as one packed row or as a batch; the second half of each is learned."""
    random = torch.Generator().manual_seed(length)
    ids = torch.randint(0, words, (count, length), generator=random)
    labels = ids.masked_fill(torch.arange(length) < length // 2, -100)
    if not packed:
        return {"input_ids": ids, "labels": labels, "use_cache": False}
    edges = torch.arange(0, (count + 1) * length, length, dtype=torch.int32)
    return {
        "input_ids": ids.reshape(1, -1),
        "labels": labels.reshape(1, -1),
        "position_ids": torch.arange(length).repeat(count)[None],
        "cu_seq_lens_q": edges,
        "cu_seq_lens_k": edges,
        "max_length_q": length,
        "max_length_k": length,
        "use_cache": False,
    }


def timed(model: Any, fields: Row, *, device: str, steps: int) -> Row:
    """Steps on one batch: the median of all but the first, memory, and loss and gradient norm of the first."""
    trained = [one for one in model.parameters() if one.requires_grad]
    before = [one.detach().clone() for one in trained]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated() if device == "cuda" else 0
    seconds, first = [], {}
    for number in range(steps):
        wait()
        began = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = model(**fields).loss
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        wait()
        seconds.append(time.perf_counter() - began)
        if not number:
            first = {"loss": float(loss.detach()), "grad_norm": float(norm)}
    with torch.no_grad():
        for one, was in zip(trained, before, strict=True):
            one.copy_(was)  # the next length begins with the same weights
    took = statistics.median(seconds[1:] or seconds)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return first | {
        "tokens_per_s": fields["input_ids"].numel() / took,
        "step_s": took,
        "first_step_s": seconds[0],  # with compilation
        "weights_gb": held / 1e9,
        "peak_gb": peak / 1e9,
    }


def shown(row: Row) -> str:
    """A row for people."""
    head = f"{row['contender']:<8} {row['precision']:<5} {row.get('length', row['part']):>7}"
    if "error" in row:
        return f"{head}  {row['error']}"
    if row["part"] == "longest":
        memory = f", {row['peak_gb']:.1f} GB" if row["longest"] else ""
        return f"{head}  {row['longest']} tokens of one document{memory}; {row['ended']}"
    return (
        f"{head}  {row['tokens_per_s']:9.0f} tokens/s  {row['peak_gb']:6.1f} GB  loss {row['loss']:.4f}  gradient norm "
        f"{row['grad_norm']:.4f}"
    )


if __name__ == "__main__":
    main()

"""Memory of a training step on one long document: `python -m tests.bench.llm_long [--tokens 32768]`.

A small seeded Llama learns every token of one document, whole weights, fp32, AdamW: ours as `llm-train` prepares it,
with every patch that is preferred, and plain transformers with SDPA. Logits of 32,768 tokens over 16,000 entries are
2.1 GB, and transformers holds them more than once; ours computes head and loss in pieces. Each contender is in a
process of its own and takes turns with the other; peak resident memory is that of the steps, loading left out. Losses
and gradient norms stand beside it, since both must learn the same.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.bench import llm_mix
from tests.bench.turns import Passes, Step, peak_gb, race, serve

STEPS = 2
Shape = dict[str, int]


def ours(link: Connection, folder: str, shape: Shape) -> None:
    """The model as the job prepares it, on a packed row of one document."""
    from transformers import AutoTokenizer

    from runner.llm.model import begin
    from runner.llm.packing import batch
    from runner.precision import Precision
    from runner.registry.resolve import resolve

    found = resolve(folder, folder=Path(folder))
    prepared = begin.prepare(
        Path(folder), facts=found.facts, family=found.family, tokenizer=AutoTokenizer.from_pretrained(folder),
        precision=Precision(name="fp32", why="a benchmark"), seq_len=shape["tokens"], packing="required",
        optimize=dict.fromkeys(("attention", "kernels", "loss_chunking", "quantised_lora"), "preferred"),
        checkpointing="off",
    )  # fmt: skip
    _steps(link, prepared.model, batch.packed([document(shape)]), shape)


def plain(link: Connection, folder: str, shape: Shape) -> None:
    """transformers as it comes."""
    from transformers import AutoModelForCausalLM

    ids = torch.from_numpy(document(shape).astype(np.int64))[None]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    _steps(link, model, {"input_ids": ids, "labels": ids, "use_cache": False}, shape)


def document(shape: Shape) -> Any:
    """The ids, all of them learned."""
    return np.random.default_rng(0).integers(3, shape["vocabulary"], shape["tokens"], dtype=np.int32)


def _steps(link: Connection, model: Any, fields: dict[str, Any], shape: Shape) -> None:
    torch.set_num_threads(shape["threads"])

    def work() -> Iterator[Step]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        for _ in range(STEPS):
            loss = model(**fields).loss
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            yield {"share": 1 / STEPS, "loss": float(loss.detach()), "grad_norm": float(norm), "loaded_gb": loaded}

    loaded = peak_gb()
    serve(link, work, warm=lambda: None)


def shown(name: str, passes: Passes) -> str:
    """A contender's line."""
    steps = passes.steps[0]
    losses = ", ".join(f"{step['loss']:.5f}" for step in steps)
    norms = ", ".join(f"{step['grad_norm']:.4f}" for step in steps)
    return (
        f"  {name:<6} peak {passes.peak_gb:5.2f} GB ({steps[0]['loaded_gb']:.2f} GB before the first step), "
        f"{passes.seconds('wall_s') / STEPS:.1f} s a step, loss {losses}, "
        f"gradient norm {norms}"
    )


def main() -> None:
    """Print both, and the ratio of what the steps need above the loaded model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=16000)
    parser.add_argument("--threads", type=int, default=2)
    shape: Shape = vars(parser.parse_args())
    print(f"{shape}; torch {version('torch')}, transformers {version('transformers')}")
    print(f"  logits, once: {shape['tokens'] * shape['vocabulary'] * 4 / 1e9:.2f} GB")
    with tempfile.TemporaryDirectory() as name:
        folder = llm_mix.llama(
            Path(name) / "model", hidden=shape["hidden"], layers=shape["layers"], vocabulary=shape["vocabulary"],
            positions=shape["tokens"],
        )  # fmt: skip
        found = race({"ours": (ours, (str(folder), shape)), "plain": (plain, (str(folder), shape))}, rounds=1)
    for name, passes in found.items():
        print(shown(name, passes))
    above = {name: one.peak_gb - one.steps[0][0]["loaded_gb"] for name, one in found.items()}
    print(f"  plain / ours above the loaded model: {above['plain'] / above['ours']:.1f}x")


if __name__ == "__main__":
    main()

"""Speed of a CPU training step with every patch `preferred` against unpatched transformers.

    python -m tests.bench.llm_cpu_step [--threads 2] [--rounds 5] [--save FILE]

A seeded Llama of some 50M parameters trains whole, and with LoRA adapters, on a batch padded to its longest text and on
the same texts packed into one row; a third of the tokens are prompts without labels. Both models are in one process
with the same weights and take turns step by step (forward, backward, no optimizer); the median counts. The target is
that patches cost nothing: at least 1.0 within the noise that is printed beside it.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from runner.kernels.patching import FORWARDS, apply

SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
LENGTHS = (192, 150, 96, 64, 48, 24)
TARGET = 1.0


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    report: dict[str, Any] = {"threads": args.threads, "rounds": args.rounds, "processor": platform.processor()}
    report |= {name: version(name) for name in ("torch", "transformers", "peft")}
    report["cases"] = [race(adapters, rows, args.rounds) for adapters in (False, True) for rows in ("padded", "packed")]
    for case in report["cases"]:
        print(_line(case))
    print(f"{args.threads} threads, torch {report['torch']}, transformers {report['transformers']}")
    if args.save:
        Path(args.save).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--save", metavar="FILE", help="write the report as JSON")
    return parser.parse_args()


def race(adapters: bool, rows: str, rounds: int) -> dict[str, Any]:
    """Median seconds of a step of both, their ratio, and the loss and gradient norm of each."""
    theirs = made(adapters)
    ours = copy.deepcopy(theirs)
    ledger = apply(ours, dict.fromkeys(FORWARDS, "preferred")).ledger
    fields = batch(rows)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    seen = {}
    for turn in range(rounds + 1):
        for name, model in (("ours", ours), ("theirs", theirs)):
            took, *seen[name] = step(model, fields)
            if turn:  # the first one warms up
                seconds[name].append(took)
    ratios = [their / our for our, their in zip(seconds["ours"], seconds["theirs"], strict=True)]
    return {
        "trains": "adapters" if adapters else "all weights",
        "rows": rows,
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "loss and gradient norm": seen,
        "applied": [line.what for line in ledger.applied()],
    }


def made(adapters: bool) -> Any:
    """The seeded model, in training mode."""
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(**SHAPE))
    if adapters:
        model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False))
    return model.train()


def batch(rows: str) -> dict[str, Any]:
    """The same texts, padded or packed."""
    random = torch.Generator().manual_seed(0)
    texts = [torch.randint(3, SHAPE["vocab_size"], (length,), generator=random) for length in LENGTHS]
    labels = [torch.where(torch.arange(len(text)) < len(text) // 3, -100, text) for text in texts]
    if rows == "packed":
        positions = [torch.arange(len(text)) for text in texts]
        fields: dict[str, Tensor] = {
            "input_ids": torch.cat(texts)[None],
            "labels": torch.cat(labels)[None],
            "position_ids": torch.cat(positions)[None],
        }
        return {**fields, "use_cache": False}
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones_like(text) for text in texts], batch_first=True)
    return {
        "input_ids": pad(texts, batch_first=True),
        "labels": pad(labels, batch_first=True, padding_value=-100),
        "attention_mask": mask,
        "use_cache": False,
    }


def step(model: Any, fields: dict[str, Any]) -> tuple[float, float, float]:
    """Seconds of a forward and backward, the loss, and the norm of the gradients."""
    start = time.perf_counter()
    loss = model(**fields).loss
    loss.backward()
    took = time.perf_counter() - start
    norm = torch.stack([x.grad.norm() for x in model.parameters() if x.grad is not None]).norm().item()
    model.zero_grad()
    return took, loss.item(), norm


def _line(case: dict[str, Any]) -> str:
    seconds, seen = case["seconds"], case["loss and gradient norm"]
    verdict = "met" if case["ratio"] >= TARGET else "missed" if max(case["ratios"]) < TARGET else "within noise"
    return (
        f"{case['trains']}, {case['rows']}: {case['ratio']:.2f}x "
        f"({min(case['ratios']):.2f} to {max(case['ratios']):.2f}, target {TARGET}: {verdict}), "
        f"{seconds['ours']:.2f} s against {seconds['theirs']:.2f} s; loss and gradient norm "
        f"{seen['ours'][0]:.5f} {seen['ours'][1]:.4f}, {seen['theirs'][0]:.5f} {seen['theirs'][1]:.4f}; "
        f"applied: {', '.join(case['applied'])}"
    )


if __name__ == "__main__":
    main()

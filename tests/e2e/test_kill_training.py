"""A training run that is killed again and again goes on each time, to bitwise the adapter of an unbroken run."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from transformers.utils import logging

from tests.e2e.helpers import manifest, runner, start
from tests.llm.model import made

pytestmark = pytest.mark.slow
KILLS, STEPS = 10, 60
SPEC = f"""
kind: llm-train
name: tiny
model: ./base
method: pretrain
data: {{train: texts.jsonl, validation_share: 0.1}}
adapter: {{type: lora, r: 4, dropout: 0.1}}
packing: required
train: {{max_steps: {STEPS}, learning_rate: 0.01}}
batch: {{seq_len: 64, accumulate: 2}}
precision: fp32
evaluation: {{every_steps: 20, save_every_steps: 2}}
compute: {{cpus: 1, retries: 50}}
"""


def files(folder: Path) -> Path:
    """A tiny model, texts, and a spec that trains an adapter on them; the spec."""
    logging.disable_progress_bar()
    made.folder(folder / "base", "qwen3")
    draw = random.Random(0)
    texts = [" ".join(f"w{draw.randint(3, 39)}" for _ in range(draw.randint(4, 50))) for _ in range(200)]
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    (folder / "texts.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "tiny.yaml").write_text(SPEC, encoding="utf-8")
    return folder / "tiny.yaml"


def applied(spec: Path, store: Path) -> str:
    """Apply to the end; the digest of all files of the artifact."""
    runner("apply", str(spec), "--store", str(store), "--local", cwd=spec.parent, timeout=600)
    runner("artifacts", "verify", "--all", "--store", str(store), cwd=spec.parent)
    return str(manifest(store, "tiny")["digest"])


def adapter(store: Path) -> bytes:
    return (store / "tiny" / "v1" / "files" / "adapter" / "adapter_model.safetensors").read_bytes()


def killed(spec: Path, store: Path, *, step: int, after_s: float) -> bool:
    """Apply, and kill it ``after_s`` after it has told of ``step``; False where it was done before."""
    process = start("apply", str(spec), "--store", str(store), "--local", cwd=spec.parent)
    while process.poll() is None and reached(store) < step:
        time.sleep(0.02)
    time.sleep(after_s)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


def reached(store: Path) -> int:
    """The last step that any attempt told of."""
    lines = [line for path in (store / ".runs").glob("*/events.ndjson") for line in path.read_text().splitlines()]
    told = [json.loads(line) for line in lines if line.endswith("}") and '"progress"' in line]
    return max((event["done"] for event in told if event["unit"].startswith("steps")), default=0)


def test_ten_kills_then_the_same_adapter(tmp_path: Path) -> None:
    spec = files(tmp_path)
    unbroken, store = tmp_path / "unbroken", tmp_path / "store"
    digest = applied(spec, unbroken)
    draw = random.Random(7)
    steps = [0, *sorted(draw.randint(1, STEPS) for _ in range(KILLS - 1))]  # the first before anything was learned
    kills = sum(killed(spec, store, step=step, after_s=draw.uniform(0.0, 0.2)) for step in steps)
    assert kills > KILLS / 2, "too quick to be killed: nothing was tried"
    assert applied(spec, store) == digest
    assert adapter(store) == adapter(unbroken)
    events = "".join(path.read_text() for path in sorted((store / ".runs").glob("*/events.ndjson")))
    assert "goes on after step" in events, "no kill left anything to go on from"

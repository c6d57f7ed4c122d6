"""`llm-train` from the command line, as a user meets it, interrupted and asked again."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.helpers import alive, manifest, runner, start
from tests.jobs.helpers import Fields
from tests.jobs.test_llm_train import adapter, chats, spec

pytestmark = pytest.mark.slow
LONG: dict[str, Any] = {
    "train": {"max_steps": 60, "learning_rate": 0.01},
    "evaluation": {"every_steps": 10, "save_every_steps": 3, "prompts": ["diga casa"], "prompt_tokens": 4},
    "adapter": {"type": "lora", "r": 4, "dropout": 0.2},
}


def chain(folder: Path, *specs: Fields) -> str:
    """Write ``specs`` and their conversations into ``folder``; the name of the file."""
    chats(folder)
    chats(folder, "held.jsonl", count=8, shift=3)
    (folder / "chain.yaml").write_text("\n---\n".join(json.dumps(one) for one in specs), "utf-8")
    return "chain.yaml"


def test_each_verb_does_what_it_says(tmp_path: Path) -> None:
    tuned = adapter(gates={"max_validation_loss": 0.01})
    path, cwd = chain(tmp_path, spec(), tuned), tmp_path
    runner("init", "llm-train", cwd=cwd)
    assert "ok: 2 specs" in runner("validate", path, cwd=cwd).stdout
    planned = json.loads(runner("plan", path, "-o", "json", cwd=cwd).stdout)
    assert [step["action"] for step in planned["steps"]] == ["create", "create"]
    done = runner("apply", path, "--local", cwd=cwd, check=3)
    assert "gate max_validation_loss 0.01 not met" in done.stdout + done.stderr
    assert not (cwd / "artifacts" / "adapter").exists()
    runner("artifacts", "verify", "--all", cwd=cwd)
    assert "packing" in runner("artifacts", "show", "base", cwd=cwd).stdout
    assert "read as messages" in runner("logs", "base", cwd=cwd).stdout
    states = {row["name"]: row["state"] for row in json.loads(runner("runs", "-o", "json", cwd=cwd).stdout)}
    assert states == {"base": "succeeded", "adapter": "failed"}
    chain(tmp_path, spec(), adapter())
    assert "released" in runner("apply", path, "--local", cwd=cwd).stdout
    assert "nothing to do" in runner("apply", path, "--local", cwd=cwd).stdout
    shown = json.loads(runner("explain", "data", path, "--samples", "2", "-o", "json", cwd=cwd).stdout)
    assert shown


def test_broken_data_is_an_exit_code_and_one_line(tmp_path: Path) -> None:
    path = chain(tmp_path, spec())
    with (tmp_path / "chat.jsonl").open("a") as file:
        file.write('{"messages": [\n')
    done = runner("apply", path, "--local", cwd=tmp_path, check=1)
    assert "chat.jsonl:41: " in done.stdout + done.stderr


def test_a_signal_ends_it_cleanly_and_it_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Adapter dropout draws from the random state, which must be as it was."""
    path = chain(tmp_path, spec(), adapter(**LONG))
    runner("apply", path, "--local", "--store", "whole", cwd=tmp_path)
    process = start("apply", path, "--local", "--store", "store", cwd=tmp_path, mark=tmp_path.name)
    runs, deadline = tmp_path / "store" / ".runs", time.monotonic() + 300
    while not _steps(runs, at_least=8):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert not alive(tmp_path.name)
    done = runner("apply", path, "--local", "--store", "store", cwd=tmp_path)
    assert "goes on after step" in done.stdout + done.stderr
    one, other = (manifest(tmp_path / name, "adapter") for name in ("whole", "store"))
    assert other["digest"] == one["digest"]
    assert other["run"]["attempts"] == 2


def _steps(runs: Path, *, at_least: int) -> bool:
    """Whether the adapter's run has told of so many steps."""
    for path in runs.glob("adapter.*/events.ndjson"):
        events: list[dict[str, Any]] = [
            json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")
        ]
        if any(event["type"] == "progress" and event.get("done", 0) >= at_least for event in events):
            return True
    return False

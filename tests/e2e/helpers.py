"""Drive the command line as a user would, in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LEFTOVER = re.compile(r"\.tmp|staging|\.part")
RUNNER = [sys.executable, "-m", "runner.cli.main"]


def environment(**more: str) -> dict[str, str]:
    """The tests' own environment, the checkout importable, one thread per maths library."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RUNNER_STORE": "", **more}


def runner(*words: str, cwd: Path, check: int | None = 0, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run one verb to its end; ``check`` is the exit code that is expected."""
    done = subprocess.run(
        [*RUNNER, *words], cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    if check is not None:
        assert done.returncode == check, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def start(*words: str, cwd: Path, mark: str = "") -> subprocess.Popen[str]:
    """Start one verb in a process group of its own; its descendants can be found by ``mark``."""
    return subprocess.Popen(
        [*RUNNER, *words],
        cwd=cwd,
        env=environment(RUNNER_TEST_MARK=mark),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def quickstart(folder: Path) -> Path:
    """A copy of the quickstart to work in; returns its spec."""
    shutil.copytree(ROOT / "specs" / "quickstart", folder / "quickstart")
    return folder / "quickstart" / "asr.yaml"


def manifest(store: Path, name: str) -> dict[str, Any]:
    """The manifest of the newest version of ``name``."""
    version = (store / name / "latest").read_text().strip()
    data: dict[str, Any] = json.loads((store / name / version / "manifest.json").read_text())
    return data


def finished(spec: Path, store: Path, *words: str) -> str:
    """Apply the quickstart to its end; the artifact's digest. The store is whole, and holds nothing but artifacts."""
    cwd = store.parent
    runner("apply", str(spec), "--store", str(store), *words, cwd=cwd)
    runner("artifacts", "verify", "--all", "--store", str(store), cwd=cwd)
    runner("artifacts", "gc", "--delete", "--grace", "0s", "--store", str(store), cwd=cwd)
    left = [path for path in store.rglob("*") if LEFTOVER.search(path.name)]
    assert not left, left
    return str(manifest(store, "quickstart-asr")["digest"])


def in_session(leader: int) -> list[int]:
    """Processes of the session that ``leader`` began, dead ones left out. Ray's agents wipe the mark, not this."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        if fields[3] == str(leader) and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def alive(mark: str) -> list[int]:
    """Processes whose environment carries ``mark``: what a run started, whatever session it moved to."""
    wanted = f"RUNNER_TEST_MARK={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended while we looked
    return found

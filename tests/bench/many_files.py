"""Memory of a job over many short files: `python -m tests.bench.many_files --files 100000 --local [--kind asr-embed]`.

Real runs of the command line with the quickstart's small model, on ray or, with `--local`, in one process. The
recordings are 200 distinct clips of 0.4 s, hard-linked under as many names as asked for: the job cannot tell, and the
disk does not fill. Prints the statuses, the time, and two figures of resident memory:

- "largest process" is RUSAGE_CHILDREN's ru_maxrss: the peak of the largest single process of the tree, not a sum, and
  only of processes that somebody waited for;
- "all processes" is the highest sum over the tree, sampled twice a second. A page that several processes share counts
  for each of them, so it is an upper bound. The largest at that moment are listed: on ray much of it is ray itself.

Exits with 1 when either is above 2 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

from runner.execution.process import descendants
from tests.e2e.helpers import ROOT, RUNNER, environment

RATE, SECONDS, DISTINCT = 16_000, 0.4, 200
LIMIT_GB = 2.0
SAMPLE_S = 0.5
RESULTS = {"asr-transcribe": "transcripts.jsonl", "asr-embed": "index.jsonl"}


def _recordings(folder: Path, count: int) -> None:
    """``count`` names over DISTINCT clips cut from one of the quickstart's recordings."""
    folder.mkdir()
    source, rate = soundfile.read(ROOT / "specs/quickstart/clips" / "long-90s.opus", dtype="float32")
    assert source.ndim == 1
    step = (len(source) - int(rate * SECONDS)) // DISTINCT
    for i in range(DISTINCT):
        clip = source[i * step : i * step + int(rate * SECONDS)]
        soundfile.write(folder / f"{i:06d}.wav", clip[:: rate // RATE].astype(np.float32), RATE, subtype="PCM_16")
    for i in range(DISTINCT, count):
        os.link(folder / f"{i % DISTINCT:06d}.wav", folder / f"{i:06d}.wav")


def _memory(pid: int) -> dict[str, float]:
    """GB of each process of the tree at ``pid``, by id and command."""
    found = {}
    for one in (pid, *descendants(pid)):
        try:
            pages = int(Path(f"/proc/{one}/statm").read_text().split()[1])
            command = Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # it ended while we looked
        found[f"{one} {command[:60].strip()}"] = pages * resource.getpagesize() / 1e9
    return found


def _watched(words: list[str], folder: Path) -> dict[str, float]:
    """Run the command line to its end; the memory of its processes when they had most."""
    most: dict[str, float] = {}
    with (folder / "said.txt").open("w+") as said:
        process = subprocess.Popen([*RUNNER, *words], env=environment(), cwd=folder, stdout=said, stderr=said)
        while process.poll() is None:
            now = _memory(process.pid)
            most = now if sum(now.values()) > sum(most.values()) else most
            time.sleep(SAMPLE_S)
        said.seek(0)
        assert process.returncode == 0, said.read()
    return most


def main() -> int:
    """Make the recordings, apply, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--local", action="store_true", help="in one process instead of on ray")
    parser.add_argument("--kind", choices=RESULTS, default="asr-transcribe")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _recordings(folder / "clips", args.files)
        spec = folder / "many.yaml"
        model = ROOT / "specs/quickstart/model"
        spec.write_text(f"kind: {args.kind}\nname: many\nmodel: {model}\ndata: {{audio: [clips]}}\n")
        began = time.perf_counter()
        words = ["apply", str(spec), "--store", str(folder / "store"), *(["--local"] if args.local else [])]
        most = _watched(words, folder)
        wall_s = time.perf_counter() - began
        with (folder / "store/many/v1/files" / RESULTS[args.kind]).open() as lines:
            statuses = Counter(json.loads(line)["status"] for line in lines)
    largest_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    print(f"files {args.files}, statuses {dict(statuses)}, {wall_s:.0f} s")
    print(f"largest process {largest_gb:.2f} GB, all processes {sum(most.values()):.2f} GB in {len(most)}:")
    for process, gb in sorted(most.items(), key=lambda item: -item[1])[:8]:
        print(f"  {gb:.2f} GB  {process}")
    return int(max(largest_gb, sum(most.values())) > LIMIT_GB)


if __name__ == "__main__":
    sys.exit(main())

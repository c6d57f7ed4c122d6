"""Memory of a job over many short files: `python -m tests.bench.many_files --files 100000`.

Real runs of the command line with the quickstart's small model, in one process. The recordings are 200 distinct clips
of 0.4 s, hard-linked under as many names as asked for: the job cannot tell, and the disk does not fill. Prints the peak
resident memory of the process and of its children, the CPU-seconds, and the share of files with each status.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile

from tests.e2e.helpers import ROOT, RUNNER, environment

RATE, SECONDS, DISTINCT = 16_000, 0.4, 200


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


def main() -> None:
    """Make the recordings, apply, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    count = parser.parse_args().files
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _recordings(folder / "clips", count)
        spec = folder / "many.yaml"
        model = ROOT / "specs/quickstart/model"
        spec.write_text(f"kind: asr-transcribe\nname: many\nmodel: {model}\ndata: {{audio: [clips]}}\n")
        words = ["apply", str(spec), "--local", "--store", str(folder / "store")]
        done = subprocess.run([*RUNNER, *words], env=environment(), cwd=folder, check=False, capture_output=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr.decode()
        with (folder / "store/many/v1/files/transcripts.jsonl").open() as lines:
            statuses = Counter(json.loads(line)["status"] for line in lines)
    print(f"files {count}, statuses {dict(statuses)}")
    print(f"peak memory {used.ru_maxrss / 1e6:.2f} GB, CPU {used.ru_utime + used.ru_stime:.0f} s")


if __name__ == "__main__":
    main()

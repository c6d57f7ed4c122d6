"""Live sessions that one core keeps up with: `python -m tests.bench.streaming [--large] [--chunk-s 1.0]`.

Sessions share one model through a `Batcher`. Every 0.1 s each of them gets 0.1 s of sound, at another place of the long
clip, and whatever windows are due then are computed together; their chunks end at different times, as those of people
who call at different times do. The clock is that of the process, so other work on the machine does not count. Lag is
how long after a piece of sound all that it made possible was computed, after what earlier pieces had left undone; as
long as the last lag is no longer than a chunk, the core keeps up. The ratio is what a second of a stream costs against
a second of the same sound offline, in windows of 20 s: a window of 2 s that settles 0.5 s computes each frame 4 times.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from runner.asr.ctc import Ctc
from runner.asr.pieces import Setup, Source
from runner.asr.streaming.batcher import Batcher
from runner.asr.streaming.session import Session
from runner.asr.streaming.settings import Settings, settings
from runner.registry.resolve import resolve
from tests.bench.asr_large import make_clips, make_model

QUICKSTART = Path(__file__).parents[2] / "specs" / "quickstart"
LONG = QUICKSTART / "clips" / "long-90s.opus"
PACKAGES = ("torch", "transformers", "numpy")
RATE = 16_000
TICK = RATE // 10
MOST = 40 * RATE  # samples in one call of the model, as jobs have it
NUMBERS = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Some sessions for some seconds."""

    sessions: int
    spent: list[float]  # seconds of the processor by tick
    words: int

    @property
    def load(self) -> float:
        """Seconds of computing a second of time."""
        return sum(self.spent) / (len(self.spent) * TICK / RATE)

    @property
    def lags(self) -> list[float]:
        """Seconds by tick."""
        behind, lags = 0.0, []
        for spent in self.spent:
            lags.append(behind + spent)
            behind = max(0.0, behind + spent - TICK / RATE)
        return lags


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--large", action="store_true", help="the shape of wav2vec2-large instead of the quickstart's")
    parser.add_argument("--seconds", type=float, default=20.0, help="of sound for each session (default: 20)")
    parser.add_argument("--chunk-s", type=float, default=0.5)
    parser.add_argument("--left-s", type=float, default=1.0)
    parser.add_argument("--lookahead-s", type=float, default=0.5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.large:
            make_clips(folder / "clips", seconds=20.0)
            make_model(folder / "model", folder / "clips")
        engine, setup = load(folder / "model" if given.large else QUICKSTART / "model")
        print(
            f"buffer {given.left_s + given.chunk_s + given.lookahead_s:g} s, of which {given.chunk_s:g} s are settled"
        )
        print(
            ", ".join([f"python {platform.python_version()}", *(f"{n} {version(n)}" for n in PACKAGES), "one thread"])
        )
        alone = offline(engine)
        print(f"offline: {1 / alone:.0f} s of sound a CPU-second")
        head = f"{'final':>6} {'sessions':>9} {'load':>6} {'per core':>9} {'ratio':>6}"
        print(f"{head} {'lag p50':>8} {'p95':>7} {'last':>7}   ms")
        for refine in (False, True):
            how = cut(setup, given, refine=refine)
            for number in NUMBERS:
                run = hear(engine, setup, how, sessions=number, seconds=given.seconds)
                show(run, refine=refine, offline=alone)
                if run.lags[-1] > given.chunk_s:
                    break


def load(folder: Path) -> tuple[Ctc, Setup]:
    torch.set_num_threads(1)
    model = resolve(str(folder), folder=folder, allow_pickle=False, trust_remote_code=False, adapter=None)
    facts = model.facts
    source = Source(
        folder=str(folder),
        rate=facts["sample_rate"],
        stride=facts["stride_samples"],
        receptive=facts["receptive_samples"],
        waveform=True,
        normalise=facts["do_normalize"],
        mask=facts["mask"],
    )
    setup = Setup(
        source=source,
        task="ctc",
        precision="fp32",
        device="cpu",
        threads=1,
        timestamps="word",
        silence_db=-60.0,
    )
    return Ctc(setup, dtype=torch.float32), setup


def cut(setup: Setup, given: argparse.Namespace, *, refine: bool) -> Settings:
    return settings(
        chunk_s=given.chunk_s,
        left_s=given.left_s,
        lookahead_s=given.lookahead_s,
        after_text_s=1.2,
        longest_s=20.0,
        refine=refine,
        rate=RATE,
        stride=setup.source.stride,
        receptive=setup.source.receptive,
    )


def hear(engine: Ctc, setup: Setup, how: Settings, *, sessions: int, seconds: float) -> Run:
    """Warm up for as long as the buffer is not full, then measure."""
    sound: NDArray[np.float32] = soundfile.read(LONG, dtype="float32")[0]
    sounds = [np.roll(sound, -number * len(sound) // sessions) for number in range(sessions)]
    live = [Session(engine, setup=setup, settings=how) for _ in sounds]
    batcher = Batcher(engine.compute, most=MOST)
    early = [number * how.chunk * how.stride // sessions for number in range(sessions)]  # samples of another phase
    for session, own, first in zip(live, sounds, early, strict=True):
        session.push(own[:first])
    warm = round(how.buffer_s * RATE / TICK)
    spent, words = [], 0
    for tick in range(warm + round(seconds * RATE / TICK)):
        began = time.process_time()
        for session, own, first in zip(live, sounds, early, strict=True):
            session.push(own[first + tick * TICK : first + (tick + 1) * TICK])
        batcher.settle(live)
        words += sum(len(session.take().committed) for session in live)
        spent.append(time.process_time() - began)
    return Run(sessions=sessions, spent=spent[warm:], words=words)


def offline(engine: Ctc) -> float:
    """CPU-seconds a second of sound, the better of two passes over the long clip."""
    sound: NDArray[np.float32] = soundfile.read(LONG, dtype="float32")[0]
    windows = [sound[at : at + 20 * RATE] for at in range(0, len(sound), 20 * RATE)]
    spent = []
    for _ in range(2):
        began = time.process_time()
        for window in windows:
            engine.compute([window])
        spent.append(time.process_time() - began)
    return min(spent) / (len(sound) / RATE)


def show(run: Run, *, refine: bool, offline: float) -> None:
    p50, p95 = (1000 * float(np.quantile(run.lags, share)) for share in (0.5, 0.95))
    per_core = run.sessions / run.load
    row = f"{'yes' if refine else 'no':>6} {run.sessions:>9} {run.load:>6.0%} {per_core:>9.1f}"
    row += f" {1 / per_core / offline:>6.1f}"
    print(f"{row} {p50:>8.0f} {p95:>7.0f} {1000 * run.lags[-1]:>7.0f}", flush=True)


if __name__ == "__main__":
    main()

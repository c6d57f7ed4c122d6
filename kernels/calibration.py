"""Which of several ways to compute the same is fastest on this device: measured once, then remembered.

Choices are kept by device, versions and the text of our kernels in one JSON file each under the user's cache folder.
A cache never fails a run: what cannot be read is measured again, what cannot be written is kept in memory.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

Candidates = Mapping[str, Callable[[], object]]
NEAR = 1.03  # times closer than that are noise: the earlier candidate is taken, so that runs agree
MEASURED_MS = 30.0  # for each candidate, within 5 and 50 runs of it


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was taken, and why not the others."""

    name: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)  # median by candidate, of those measured
    excluded: Mapping[str, str] = field(default_factory=dict)  # candidate: why it could not be taken
    note: str = ""  # how it was come by


def choose(question: str, shape: Mapping[str, int | str], candidates: Candidates, *, device: torch.device) -> Choice:
    """The fastest of `candidates` for this `question` and `shape`, which names everything that a time depends on.

    Candidates stand in the order of the caller's written rule: off GPUs nothing is measured and the first is taken.
    On a GPU each is called (forward, or both ways: as the caller wraps it) unless the answer is known; one that
    raises is excluded with the reason. Raises RuntimeError where none works or a CUDA graph is being captured.
    """
    if not candidates:
        raise ValueError(f"{question}: there is nothing to choose from")
    if device.type != "cuda":
        return Choice(name=next(iter(candidates)), note=f"the written rule: nothing is measured on {device.type}")
    return table(device).choose(question, shape, candidates)


def table(device: torch.device) -> Table:
    """The choices of this process on a GPU; those of its cache file are read on the first call."""
    return _table(torch.cuda.current_device() if device.index is None else device.index)


class Table:
    """Choices on one kind of device with one set of versions (`identity`)."""

    def __init__(
        self, identity: Mapping[str, str], *, clock: Callable[[Callable[[], object]], float], folder: Path | None = None
    ) -> None:
        """`clock` gives a call's time in milliseconds; without a `folder` nothing is read or written."""
        self.identity = dict(identity)
        self._clock = clock
        name = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]
        self._path = folder / f"{name}.json" if folder else None
        self._choices, self._broken = self._read()

    def choose(self, question: str, shape: Mapping[str, int | str], candidates: Candidates) -> Choice:
        """See `choose`. An answer counts only for the same candidates: an upgrade may have brought another."""
        key = " ".join([question, *(f"{name}={shape[name]}" for name in sorted(shape))])
        known = self._choices.get(key)
        if known is not None and {*known.milliseconds, *known.excluded} == set(candidates):
            return known
        choice, lasting = self._measure(key, candidates)
        self._choices[key] = choice
        if lasting:
            self._write(key, choice)
        return choice

    def to_json(self) -> dict[str, Any]:
        """All choices, as `pin` takes them."""
        return {"identity": self.identity, "choices": {key: asdict(one) for key, one in sorted(self._choices.items())}}

    def pin(self, stored: Mapping[str, Any]) -> None:
        """Take the choices of `stored` over our own, so that a resumed run takes the paths that it took.

        Raises ValueError where they were made on another device or with other versions, or are no such choices.
        """
        choices = _choices(stored)
        if stored["identity"] != self.identity:
            was, now = stored["identity"], self.identity
            differ = [f"{key} was {was.get(key)!r}, is {now[key]!r}" for key in now if was.get(key) != now[key]]
            raise ValueError(f"pinned choices are of another device or version: {'; '.join(differ)}; drop the pin")
        self._choices |= {key: replace(one, note="pinned") for key, one in choices.items()}

    def _measure(self, key: str, candidates: Candidates) -> tuple[Choice, bool]:
        """The choice, and whether it holds for later runs too: a lack of memory may be of this moment."""
        times, excluded, lasting = {}, {}, True
        for name, call in candidates.items():
            try:
                times[name] = self._clock(call)
            except torch.AcceleratorError:
                raise  # the device is lost to this process: every later call would fail with the same
            except torch.OutOfMemoryError as error:
                excluded[name], lasting = _reason(error), False
            except Exception as error:  # libraries refuse shapes with exceptions of every kind
                excluded[name] = _reason(error)
        if not times:
            raise RuntimeError(
                f"{key}: nothing works: " + "; ".join(f"{name}: {why}" for name, why in excluded.items())
            )
        best = min(times.values())
        name = next(name for name, time in times.items() if time <= NEAR * best)
        note = "measured" + (f"; the cache file was set aside: {self._broken}" if self._broken else "")
        rounded = {name: round(time, 6) for name, time in times.items()}
        return Choice(name=name, milliseconds=rounded, excluded=excluded, note=note), lasting

    def _read(self) -> tuple[dict[str, Choice], str]:
        """What the cache file holds, and why it holds nothing where it is broken or another's."""
        if self._path is None:
            return {}, ""
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            choices = _choices(stored)
        except FileNotFoundError:
            return {}, ""
        except (OSError, ValueError, RecursionError) as error:
            return {}, _reason(error)
        if stored["identity"] != self.identity:
            return {}, "it is of another device or version"
        return {key: replace(one, note="from the cache") for key, one in choices.items()}, ""

    def _write(self, key: str, choice: Choice) -> None:
        """Add one choice to the file. Two processes at once may lose one, which is then measured again."""
        if self._path is None:
            return
        choices = self._read()[0] | {key: choice}
        stored = {"identity": self.identity, "choices": {key: asdict(one) for key, one in choices.items()}}
        made = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, made = tempfile.mkstemp(dir=self._path.parent, prefix=".writing-")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(stored, file, indent=1, sort_keys=True)
            Path(made).replace(self._path)
        except OSError:  # a full or read-only cache: the choice holds for this process, the next measures again
            if made is not None:
                Path(made).unlink(missing_ok=True)


def cache_folder() -> Path | None:
    """Where choices are kept; None for a user without a home, as containers run, whose choices are kept in memory."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(base).expanduser() / "specrunner" / "calibration"
    except RuntimeError:
        return None


@cache
def _table(index: int) -> Table:
    device = torch.device("cuda", index)
    major, minor = torch.cuda.get_device_capability(device)
    identity = {
        "device": torch.cuda.get_device_name(device),
        "capability": f"{major}.{minor}",
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda or torch.version.hip),
        "triton": _version("triton"),
        "flash_attn": _version("flash_attn"),
        "flash_attn_3": _version("flash_attn_3"),
        "kernels": kernels_version(),
    }
    return Table(identity, clock=partial(_milliseconds, device=device), folder=cache_folder())


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@cache
def kernels_version() -> str:
    """A digest of the text of our kernels: any change of them is measured anew. A few ms for all files."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] != "bench":
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _milliseconds(call: Callable[[], object], *, device: torch.device) -> float:
    """Median time of a call on a GPU, by events, after warming up; the L2 cache is swept before each call."""
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("calibration needs the device's clock: run one step before the graph is captured")
    dirt = torch.empty(2 * torch.cuda.get_device_properties(device).L2_cache_size, dtype=torch.int8, device=device)
    # dropout inside a candidate must not move the random numbers of the training around it
    try:
        with torch.cuda.device(device), torch.random.fork_rng(devices=[device]):
            call()  # compiles
            first = _timed(call, dirt, runs=3)
            runs = int(min(max(MEASURED_MS / max(statistics.median(first), 1e-3), 5), 50))
            return statistics.median(_timed(call, dirt, runs=runs))
    finally:
        del dirt
        torch.cuda.empty_cache()


def _timed(call: Callable[[], object], dirt: torch.Tensor, *, runs: int) -> list[float]:
    pairs = []
    for _ in range(runs):
        dirt.zero_()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        call()
        end.record()
        pairs.append((start, end))
    torch.cuda.synchronize(dirt.device)
    return [start.elapsed_time(end) for start, end in pairs]


def _choices(stored: Any) -> dict[str, Choice]:
    """The choices in a JSON object of `Table.to_json`; raises ValueError for anything else."""
    try:
        if not isinstance(stored["identity"], dict):
            raise TypeError("identity is no mapping")
        return {str(key): _choice(one) for key, one in stored["choices"].items()}
    except (TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"no table of choices: {_reason(error)}") from error


def _choice(stored: Any) -> Choice:
    times = {str(name): float(time) for name, time in stored["milliseconds"].items()}
    excluded = {str(name): str(why) for name, why in stored["excluded"].items()}
    if stored["name"] not in times:
        raise KeyError(stored["name"])
    return Choice(name=stored["name"], milliseconds=times, excluded=excluded)


def _reason(error: BaseException) -> str:
    """The first line of an error, short enough for a ledger."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}"[:200] if text else type(error).__name__

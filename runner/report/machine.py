"""What this machine has and what each kind of job lacks on it, with the command that mends it. Imports no package."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from runner.report.packages import Package, packages, torchaudio_breaks_torch
from runner.schema.words import size

Fields = dict[str, Any]
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd")  # the last one is Arm's
PROGRAMS = ("ffmpeg", "ffprobe", "nvidia-smi", "git")
LOW_SPACE = 5 * 10**9  # bytes; weights of a large model and an artifact or two


def look(*, store: str, cpus: int, memory_gb: float, kinds: Iterable[str]) -> Fields:
    """Everything `runner doctor` says, JSON types only; ``problems`` holds what to mend, worst first."""
    found = packages()
    programs = {name: shutil.which(name) for name in PROGRAMS}
    place = _store(store)
    return {
        "python": {"version": platform.python_version(), "executable": sys.executable, "platform": platform.platform()},
        "cpu": {
            "count": cpus,
            "flags": (flags := _flags()),
            "bf16": bool({"avx512_bf16", "amx_bf16"} & set(flags)),
        },
        "memory_gb": round(memory_gb, 1),
        "gpus": _gpus(programs["nvidia-smi"]),
        "programs": programs,
        "packages": [{**vars(package), "fits": package.fits} for package in found],
        "ray": {
            "installed": any(p.name == "ray" and not p.missing for p in found),
            "address": os.environ.get("RAY_ADDRESS"),
        },
        "store": place,
        "kinds": [_kind(name, found) for name in kinds],
        "problems": [*_package_problems(found), *_store_problems(place), *_program_problems(programs)],
    }


def _kind(kind: str, found: list[Package]) -> Fields:
    """Whether ``kind`` can run here: the extra is the kind's first word (``asr-transcribe`` needs ``asr``)."""
    extra = kind.partition("-")[0]
    needed = [p for p in found if p.extra in {"", extra}]
    lacks = [p for p in needed if not p.fits]
    return {
        "kind": kind,
        "ready": not lacks,
        "lacks": [p.requirement for p in lacks],
        "fix": _pip_install(lacks) if lacks else None,
    }


def _package_problems(found: list[Package]) -> list[Fields]:
    problems = []
    if torchaudio_breaks_torch():
        what = "torchaudio is made for CUDA but torch is not: transformers' audio models cannot be imported"
        problems.append(_problem(what, "pip uninstall torchaudio"))
    for package in found:
        if not package.missing and not package.fits:
            what = f"{package.name} {package.version} is outside the range that was tried, {package.wanted}"
            problems.append(_problem(what, _pip_install([package])))
    for extra in dict.fromkeys(package.extra for package in found):
        missing = [p for p in found if p.extra == extra and p.missing]
        if missing:
            what = f"not installed: {', '.join(p.name for p in missing)}"
            problems.append(_problem(what + (f" (extra {extra})" if extra else ""), _pip_install(missing)))
    return problems


def _pip_install(found: Iterable[Package]) -> str:
    # the packages themselves: this distribution is in no index, and was perhaps not installed from a checkout
    return f"pip install {' '.join(repr(p.requirement) for p in found)}"


def _store_problems(place: Fields) -> list[Fields]:
    problems = []
    if place["writable"] is False:
        fix = "choose another place with --store or RUNNER_STORE, or change the folder's owner"
        problems.append(_problem(f"the store {place['path']!r} cannot be written", fix))
    if place["free_bytes"] is not None and place["free_bytes"] < LOW_SPACE:
        fix = "runner artifacts gc, or a store on another disk with --store"
        problems.append(_problem(f"only {size(place['free_bytes'])} free where the store is", fix))
    return problems


def _program_problems(programs: dict[str, str | None]) -> list[Fields]:
    if programs["ffmpeg"] and programs["ffprobe"]:
        return []
    what = "no ffmpeg: recordings that libsndfile cannot read (m4a, webm, video) get the status decode_error"
    return [_problem(what, "brew install ffmpeg" if sys.platform == "darwin" else "apt-get install ffmpeg")]


def _problem(what: str, fix: str) -> Fields:
    return {"what": what, "fix": fix}


def _store(place: str) -> Fields:
    """Whether the store, or the nearest folder above it that exists, takes a file; nothing is left behind."""
    if "://" in place:
        return {"path": place, "exists": None, "writable": None, "free_bytes": None}
    path = Path(place).absolute()
    nearest = next(p for p in (path, *path.parents) if p.is_dir())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            writable = True
    except OSError:
        writable = False
    return {"path": place, "exists": path.is_dir(), "writable": writable, "free_bytes": shutil.disk_usage(nearest).free}


def _flags() -> list[str]:
    """Instruction sets that decide a model's speed; [] where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    has = next(
        (set(line.partition(":")[2].split()) for line in lines if line.lower().startswith(("flags", "features"))), set()
    )
    return [flag for flag in FLAGS if flag in has]


def _gpus(program: str | None) -> list[Fields]:
    """NVIDIA GPUs as the driver lists them."""
    if program is None:
        return []
    query = ("name", "memory.total", "driver_version", "compute_cap")
    command = [program, f"--query-gpu={','.join(query)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if done.returncode == 0]
    keys = ("name", "memory_mib", "driver", "compute_capability")
    return [dict(zip(keys, row, strict=True)) for row in rows if len(row) == len(keys)]

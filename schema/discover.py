"""Kinds by folder listing, and the one function that imports by name."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType


def names(package: str) -> list[str]:
    """Names that ``package`` offers, one a module, spelled as in specs: ``asr_transcribe`` -> ``asr-transcribe``."""
    # importlib.resources would cost 30 ms: it loads tempfile, shutil, lzma and zipfile
    (folder,) = importlib.import_module(package).__path__
    files = (entry.name for entry in Path(folder).iterdir())
    return sorted(f[:-3].replace("_", "-") for f in files if f.endswith(".py") and not f.startswith("_"))


def load(package: str, name: str) -> ModuleType:
    """Import the module of ``package`` that carries ``name``; ``name`` must be one of ``names(package)``."""
    assert name in names(package), f"{name!r} is not in {package}"
    return importlib.import_module(f"{package}.{name.replace('-', '_')}")


def job_class_name(kind: str) -> str:
    """Class name of a kind: ``asr-transcribe`` -> ``AsrTranscribe``."""
    return "".join(part.capitalize() for part in kind.split("-"))

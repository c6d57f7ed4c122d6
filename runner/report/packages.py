"""Installed packages against the ranges that this distribution declares. Read from metadata: nothing is imported."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion

import runner

DISTRIBUTION = "specrunner"
CUDA = re.compile(r"^cuda\b[^=]*=\s*(None|['\"])", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Package:
    """One package that this distribution asks for."""

    name: str
    requirement: str  # as pip takes it, with its own extras and range
    extra: str  # "" for what everything needs
    wanted: str  # version range, "" for any
    version: str | None  # None when it is not installed

    @property
    def missing(self) -> bool:
        return self.version is None

    @property
    def fits(self) -> bool:
        """Whether it is installed in a version of the range."""
        if self.version is None:
            return False
        try:
            return Requirement(f"{self.name}{self.wanted}").specifier.contains(self.version, prereleases=True)
        except InvalidVersion:
            return False


def packages() -> list[Package]:
    """Every package of this distribution's base and extras, as installed here."""
    found: dict[tuple[str, str], Package] = {}
    for extra, requirement in _requirements():
        if requirement.name == DISTRIBUTION or extra in {"all", "dev"}:
            continue  # extras made of other extras
        own = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
        package = Package(
            name=requirement.name,
            requirement=f"{requirement.name}{own}{requirement.specifier}",
            extra=extra,
            wanted=str(requirement.specifier),
            version=installed(requirement.name),
        )
        found.setdefault((extra, requirement.name), package)
    return list(found.values())


def installed(name: str) -> str | None:
    """Version of an installed distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def torchaudio_breaks_torch() -> bool:
    """Whether a torchaudio made for CUDA lies beside a torch without it.

    Importing it raises OSError (libc10_cuda.so), and transformers imports it with every audio model where it finds it.
    """
    version = installed("torchaudio")
    return version is not None and not version.endswith("+cpu") and _torch_cuda() is False


def _torch_cuda() -> bool | None:
    """Whether the installed torch was built for CUDA, by the text of its version file; None where unknown."""
    try:
        text = Path(str(metadata.distribution("torch").locate_file("torch/version.py"))).read_text(encoding="utf-8")
    except (metadata.PackageNotFoundError, OSError):
        return None
    built = CUDA.search(text)
    return None if built is None else built[1] != "None"


def _requirements() -> Iterable[tuple[str, Requirement]]:
    """(extra, requirement) from the installed metadata, or from the checkout's pyproject.toml."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        yield from _of_checkout()
        return
    for requirement in map(Requirement, lines):
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", str(requirement.marker or ""))
        yield (extra[1] if extra else ""), requirement


def _of_checkout() -> Iterable[tuple[str, Requirement]]:
    path = Path(runner.__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"] if path.is_file() else {}
    yield from (("", Requirement(line)) for line in project.get("dependencies", ()))
    for extra, lines in project.get("optional-dependencies", {}).items():
        yield from ((extra, Requirement(line)) for line in lines)

"""Where things lie in a store, and which names and paths may lie there.

<name>/v3/{manifest.json,report.html,report.json,files/,records/}    <name>/latest
.blobs/sha256/ab/<digest>     .index/<fingerprint>/<name>@v3          .runs/<run>/...
.leases/<name>.<n>.json       .quarantine/<run>/v1/...                .trash/<time>-<token>/...
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from runner.schema.errors import UsageError
from runner.schema.reference import NAME, VERSION, Reference

MANIFEST, LATEST = "manifest.json", "latest"
FILES, RECORDS = "files", "records"
REPORTS = ("report.html", "report.json")

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_RUN = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\.[0-9a-f]{8}\.[1-9][0-9]{0,8}")
_REFERENCE = re.compile(r"(?:artifact:)?([^@#]+)(?:@([^#]*))?(?:#(.+))?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The places of one store."""

    root: Path

    @property
    def blobs(self) -> Path:
        """Every file once, by its sha256."""
        return self.root / ".blobs"

    @property
    def index(self) -> Path:
        """Fingerprint -> versions, as empty files; a help for look-ups that may be deleted."""
        return self.root / ".index"

    @property
    def runs(self) -> Path:
        """One folder per run."""
        return self.root / ".runs"

    @property
    def leases(self) -> Path:
        """Who writes which name."""
        return self.root / ".leases"

    @property
    def quarantine(self) -> Path:
        """Artifacts that missed a gate."""
        return self.root / ".quarantine"

    @property
    def trash(self) -> Path:
        """What gc took away and has not deleted yet."""
        return self.root / ".trash"

    @property
    def digests(self) -> Path:
        """Cache of input digests (``runner.store.digests.Digests``)."""
        return self.root / ".cache" / "digests.sqlite"

    def name(self, name: str) -> Path:
        """Folder of all versions of ``name``."""
        return self.root / check_name(name)

    def version(self, name: str, version: str) -> Path:
        """Folder of one version."""
        return self.name(name) / check_version(version)


def reference(text: str) -> Reference:
    """Take ``[artifact:]NAME[@vN][#path]`` apart. In a spec less is allowed; here every file of an artifact has a path.

    Raises:
        UsageError: it is none.
    """
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no artifact; write NAME, NAME@vN or NAME@vN#path")
    name, version, path = found.groups()
    if path is not None and not is_inside(path):
        raise UsageError(f"{text!r}: the path {path!r} must be relative, with / and without '..'")
    return Reference(name=check_name(name), version=version and check_version(version), path=path)


def is_name(text: str) -> bool:
    """Whether an artifact may be called so."""
    return NAME.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Whether this names a version: ``v1``, ``v2``, ..."""
    return VERSION.fullmatch(text) is not None


def is_fingerprint(text: str) -> bool:
    """Whether this is a fingerprint: 64 hex digits."""
    return _FINGERPRINT.fullmatch(text) is not None


def check_name(name: str) -> str:
    """Give ``name`` back, or raise UsageError when no artifact can be called so."""
    if is_name(name):
        return name
    raise UsageError(f"{name!r} is no artifact name; allowed are lower-case letters, digits and hyphens, at most 63")


def check_version(version: str) -> str:
    """Give ``version`` back, or raise UsageError when it is none."""
    if is_version(version):
        return version
    raise UsageError(f"{version!r} is no version; versions are v1, v2, ...")


def is_run(text: str) -> bool:
    """Whether this is a run id: NAME.FINGERPRINT.N."""
    return _RUN.fullmatch(text) is not None


def run_number(run: str) -> int:
    """``a.12ab34cd.3`` -> 3, for sorting."""
    return int(run.rpartition(".")[2])


def check_run(run: str) -> str:
    """Give a run id back, or raise UsageError when it is none."""
    if is_run(run):
        return run
    raise UsageError(f"{run!r} is no run; a run is NAME.FINGERPRINT.N, `runner runs` lists them")


def number(version: str) -> int:
    """``v12`` -> 12, for sorting."""
    return int(version[1:])


def is_inside(path: str) -> bool:
    """Whether a relative path with ``/`` stays inside the folder it is relative to."""
    return "\0" not in path and all(part not in {"", ".", ".."} for part in path.split("/"))

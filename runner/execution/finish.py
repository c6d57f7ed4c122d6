"""What an apply does to the store: publish what was made, keep what missed a gate, reuse what is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runner.execution.failures import SaidFailedError
from runner.execution.inputs import Inputs
from runner.execution.order import Made
from runner.execution.results import StepResult, of_manifest
from runner.plan import gates, listing
from runner.plan.inputs import Pinner
from runner.plan.reasons import Listing
from runner.plan.step import Step
from runner.report import build
from runner.schema.errors import StoreError
from runner.store.digests import Digests
from runner.store.leases import Lease
from runner.store.local import Store
from runner.store.paths import REPORTS
from runner.store.publish import Draft

QUARANTINE = "quarantine:"


def check_inputs(inputs: Inputs, store: Store) -> Mapping[str, Listing]:
    """Look at the input files anew; their listings. Raises ConflictError when they are not what the plan saw."""
    return inputs.check(Pinner(Digests(store.layout.digests)))


def publish(store: Store, lease: Lease, step: Step, inputs: Inputs, made: Made) -> StepResult:
    """Give what an attempt made its name, or put it into quarantine when it missed a gate.

    Raises:
        ConflictError: an input changed meanwhile, or the lease was lost.
        SaidFailedError: the job says that it failed; its results stay in the run's folder.
        StoreError: the store refused.
    """
    folder = store.run_folder(made.run["id"])
    if made.failure is not None:
        raise SaidFailedError(f"{made.failure}; what it made lies in {str(folder)!r}", failure="DataInvalid")
    listing.write(folder / "records", check_inputs(inputs, store))
    draft = Draft(
        name=step.name,
        kind=step.kind,
        fingerprint=step.fingerprint,
        spec=step.spec,
        inputs=made.inputs,
        metrics=made.metrics,
        gates=made.gates,
        ledger=made.ledger,
        environment=made.environment,
        code=made.code,
        run=made.run,
        out=folder / "out",
        records=folder / "records",
        reports={name: folder / name for name in REPORTS},
    )
    missed = _missed(step, made.metrics)
    if missed:
        kept = store.quarantine(draft, lease=lease)
        _tidy(folder)
        return of_manifest(step, "quarantined", kept.manifest, kept.folder, missed=missed)
    manifest = store.publish(draft, lease=lease)
    _tidy(folder)
    return of_manifest(step, "created", manifest, store.folder(manifest))


def reuse(store: Store, lease: Lease, step: Step, source: str) -> StepResult:
    """Let ``step`` have ``source``: an artifact (`NAME@vN`) or a quarantined run (`quarantine:RUN`)."""
    if source.startswith(QUARANTINE):
        return _release(store, lease, step)
    name, _, version = source.partition("@")
    manifest = store.get(name, version)
    if manifest is None:
        raise StoreError(f"{source!r} is not in the store any more; apply again")
    missed = _missed(step, manifest.metrics)
    if missed:
        return of_manifest(step, "blocked", manifest, store.folder(manifest), missed=missed)
    if name != step.name:
        manifest = store.link(source, step.name, lease=lease)
        return of_manifest(step, "linked", manifest, store.folder(manifest), message=f"the same as {source}")
    latest = store.latest(name)
    if latest is None or latest.version != version:
        store.point_latest(name, version, lease=lease)
    return of_manifest(step, "reused", manifest, store.folder(manifest))


def _release(store: Store, lease: Lease, step: Step) -> StepResult:
    kept = store.find_quarantined(step.name, step.fingerprint)
    if kept is None:
        raise StoreError(f"{step.name}: the quarantined run is not in the store any more; apply again")
    missed = _missed(step, kept.manifest.metrics)
    if missed:
        return of_manifest(step, "blocked", kept.manifest, kept.folder, missed=missed)
    held = [asdict(gate) for gate in gates.check(step.spec.get("gates") or {}, kept.manifest.metrics)]
    folder = store.run_folder(str(kept.manifest.run["id"]))
    said = json.loads((kept.folder / "report.json").read_text(encoding="utf-8"))
    name = f"{step.name}@{store.next_version(step.name)}"
    said |= {"name": name, "outcome": "published", "gates": held, "spec": step.spec}
    (folder / "report.json").write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(build.html(said, audio_root=Path(step.folder)), encoding="utf-8")
    reports = {name: folder / name for name in REPORTS}
    manifest = store.release(kept, spec=step.spec, gates=held, reports=reports, lease=lease)
    _tidy(folder)
    return of_manifest(step, "released", manifest, store.folder(manifest), message="out of quarantine")


def _tidy(folder: Path) -> None:
    """Take what is of no use after publishing out of the run's folder: events and log stay."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # what can't be removed now, gc takes
    for name in REPORTS:
        (folder / name).unlink(missing_ok=True)


def _missed(step: Step, metrics: Mapping[str, Any]) -> str:
    held = gates.check(step.spec.get("gates") or {}, metrics)
    return "; ".join(str(gate) for gate in held if not gate.passed)

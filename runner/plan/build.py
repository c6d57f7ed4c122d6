"""Specs to a plan: what each step will do and why. Looks, and changes nothing but the cache of digests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.plan import fingerprint
from runner.plan.decide import Wanted, decide
from runner.plan.estimate import estimate
from runner.plan.graph import CycleError, order
from runner.plan.inputs import Pinner
from runner.plan.reasons import at
from runner.plan.source import Pinned, Source
from runner.plan.step import Action, Plan, Step
from runner.plan.training import training
from runner.schema.errors import PlanError, Problem
from runner.schema.load import Loaded
from runner.store.digests import Digests
from runner.store.local import Store


def build(loaded: Sequence[Loaded], store: Store, *, digests: Digests | None = None) -> Plan:
    """The plan for a set of specs against what ``store`` has.

    ``digests`` is the cache to use, the store's own where it is left out. Raises PlanError with every problem of
    every spec, one a line as file:line:column.
    """
    return _Builder(loaded, store, digests or Digests(store.layout.digests)).build()


class _Builder:
    """One plan in the making; a step that cannot be planned is left out and its problems are kept."""

    def __init__(self, loaded: Sequence[Loaded], store: Store, digests: Digests) -> None:
        self._problems: list[Problem] = []
        self._store = store
        self._pinner = Pinner(digests)
        self._sources = {entry.spec.name: Source(entry, self._problems) for entry in loaded}
        self._steps: dict[str, Step] = {}

    def build(self) -> Plan:
        """Every step in order, or PlanError."""
        names = self._order()
        for name in names:
            self._sources[name].find(self._pinner)
        for name in names:
            self._add(name)
        if self._problems:
            raise PlanError("\n".join(str(problem) for problem in sorted(set(self._problems))))
        return Plan(steps=tuple(self._steps.values()), store=str(self._store.root))

    def _order(self) -> list[str]:
        try:
            return order({name: source.upstream(self._sources) for name, source in self._sources.items()})
        except CycleError as error:
            self._sources[error.loop[0]].cycle(error.loop)
            return list(self._sources)  # for their other problems; nothing of the loop is planned

    def _add(self, name: str) -> None:
        source = self._sources[name]
        pinned = source.pin(self._pinner, self._store, steps=self._steps, known=self._sources)
        if pinned is not None:
            self._steps[name] = self._step(source, pinned, source.upstream(self._sources))

    def _step(self, source: Source, pinned: Pinned, upstream: Sequence[str]) -> Step:
        spec = source.loaded.spec
        dump = spec.model_dump(mode="json")
        result = {path: at(dump, path) for path in source.result}
        code = type(spec).code_version
        digests = {entry.field: entry.digest for entry in pinned.inputs}
        mark = fingerprint.of(kind=source.kind, code_version=code, result=result, inputs=digests)
        wanted = Wanted(
            name=spec.name,
            fingerprint=mark,
            result=result,
            gates=dump.get("gates", {}),
            inputs=pinned.inputs,
            code_version=code,
            listings=lambda field: source.listing(self._pinner, field),
        )
        decision = decide(wanted, store=self._store, upstream=upstream, before=self._steps)
        twin = [decision.reuse] if decision.reuse in self._steps else []
        return Step(
            name=spec.name,
            kind=source.kind,
            file=source.loaded.file,
            line=source.loaded.line,
            folder=str(source.loaded.folder),
            spec=dump,
            inputs=pinned.inputs,
            fingerprint=mark,
            action=decision.action,
            reasons=decision.reasons + (spec.remarks() if decision.action == "create" else ()),
            reuse=decision.reuse,
            writes=decision.writes,
            after=tuple(dict.fromkeys([*upstream, *twin])),
            family=pinned.models[0].family.name if pinned.models else None,
            estimate=estimate(pinned.inputs, pinned.models) | self._training(source, pinned, decision.action),
            code_version=code,
        )

    def _training(self, source: Source, pinned: Pinned, action: Action) -> dict[str, Any]:
        """The forecast of a step that trains and will be carried out."""
        spec = source.loaded.spec
        wanted = spec.training()
        if wanted is None or action != "create":
            return {}
        compute = spec.compute.model_dump(mode="json")
        try:
            return training(wanted, compute=compute, inputs=pinned.inputs, models=pinned.models)
        except PlanError as error:
            self._problems.append(source.loaded.problem("distribution", str(error)))
            return {}

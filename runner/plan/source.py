"""One spec on its way into a plan: its inputs by their marks, its references, its problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.plan import references, tables
from runner.plan.fields import INPUTS, Field, walk
from runner.plan.files import NoMatchError
from runner.plan.inputs import Pinner
from runner.plan.reasons import Listing
from runner.plan.step import Input, Step
from runner.registry.family import Resolved
from runner.schema import reference
from runner.schema.errors import PlanError, Problem, SpecError
from runner.schema.kinds import job_class
from runner.schema.load import Loaded
from runner.schema.marks import Mark
from runner.schema.reference import Reference
from runner.store.local import Store


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """The inputs of a spec, and the models among them as far as they are known."""

    inputs: tuple[Input, ...]
    models: tuple[Resolved, ...]


class Source:
    """A spec, looked at through its marks. What is wrong with it goes to ``problems``."""

    def __init__(self, loaded: Loaded, problems: list[Problem]) -> None:
        fields = list(walk(loaded.spec))
        self.loaded = loaded
        self.kind: str = next(field.value for field in fields if field.path == "kind")
        self.result = [field.path for field in fields if field.mark is Mark.RESULT]
        self._inputs = [field for field in fields if field.mark in INPUTS and field.value is not None]
        self._folder = Path(loaded.folder)
        self._problems = problems
        self._bad: set[str] = set()  # paths of the fields with a problem
        self._references: dict[str, Reference] = {}  # by path of the field
        self._named: dict[str, Listing] = {}  # by path of the field: what a table out of an artifact names
        for field in self._inputs:
            if isinstance(field.value, str) and reference.is_reference(field.value):
                self._references[field.path] = reference.parse(field.value)

    def upstream(self, known: Mapping[str, object]) -> tuple[str, ...]:
        """Names of the specs of this set that come first: those referred to without a version."""
        names = (r.name for r in self._references.values() if r.version is None and r.name in known)
        return tuple(dict.fromkeys(names))

    def cycle(self, loop: Sequence[str]) -> None:
        """Note that this spec is part of a loop."""
        path = next(path for path, target in self._references.items() if target.name == loop[1])
        hint = "to break the loop take a version that is there, artifact:NAME@vN"
        self._problems.append(self.loaded.problem(path, f"these specs need each other: {' -> '.join(loop)}", hint))

    def find(self, pinner: Pinner) -> None:
        """Find the files behind the inputs that are no artifacts, so that all can be hashed in one go."""
        for field in self._good():
            if field.path not in self._references:
                with self._problems_of(field):
                    pinner.find(field, folder=self._folder)

    def pin(
        self, pinner: Pinner, store: Store, *, steps: Mapping[str, Step], known: Mapping[str, object]
    ) -> Pinned | None:
        """Pin every input; None when one cannot be. ``steps`` are planned already, ``known`` all names of the set."""
        inputs: list[Input] = []
        models: list[Resolved] = []
        for field in self._good():
            found = self._references.get(field.path)
            if found and found.version is None and found.name in known and found.name not in steps:
                self._bad.add(field.path)  # that one's own problems are told already
                continue
            with self._problems_of(field):
                target = self._target(field, found, pinner, store=store, steps=steps, known=known) if found else None
                entry, model = self._pin(field, pinner, target)
                inputs.append(entry)
                models += [] if model is None else [model]
        return None if self._bad else Pinned(inputs=tuple(inputs), models=tuple(models))

    def listing(self, pinner: Pinner, name: str) -> Listing:
        """(path, digest) of every file behind the input called ``name``."""
        field = next(field for field in self._inputs if field.input == name)
        if field.path in self._references:
            return self._named.get(field.path, ())
        return [(entry.shown, entry.digest) for entry in pinner.listing(field, folder=self._folder)]

    def _target(
        self,
        field: Field,
        found: Reference,
        pinner: Pinner,
        *,
        store: Store,
        steps: Mapping[str, Step],
        known: Mapping[str, object],
    ) -> Input:
        """The artifact that a field refers to: of this plan, else of the store."""
        step = steps.get(found.name) if found.version is None else None
        if step is not None:
            is_model = field.mark is Mark.MODEL
            target = references.in_plan(found, field=field.input, step=step, store=store, model=is_model)
        else:
            target = references.in_store(found, field=field.input, store=store, known=known)
        if field.mark is not Mark.MANIFEST or target.path is None:
            return target
        named = tables.recordings(field, target, pinner, folder=self._folder)
        self._named[field.path] = tables.shown(named)
        return tables.pinned(target, named, store=store, planned=step is not None)

    def _pin(self, field: Field, pinner: Pinner, target: Input | None) -> tuple[Input, Resolved | None]:
        if field.mark is not Mark.MODEL:
            return target or pinner.data(field, folder=self._folder), None
        if target is None:
            entry, model = pinner.model(field, folder=self._folder)
        elif target.path is None:
            return target, None  # made by this plan: its family shows when it is there
        else:
            entry, model = target, pinner.resolve(field, id=target.path, folder=self._folder)
        family = model.family
        needed = job_class(self.kind).tasks
        if family.task not in needed:
            raise PlanError(
                f"{entry.ref!r} is of family {family.name}, a {family.task} model; "
                f"{self.kind} takes {', '.join(needed)}"
            )
        if model.lack and not job_class(self.kind).begins:
            raise PlanError(f"model {entry.ref!r} cannot be used: {model.lack}")
        if reason := self.loaded.spec.unfit(model.facts):
            raise PlanError(f"{entry.ref!r}: {reason}")
        return entry, model

    def _good(self) -> list[Field]:
        return [field for field in self._inputs if field.path not in self._bad]

    @contextmanager
    def _problems_of(self, field: Field) -> Iterator[None]:
        try:
            yield
        except SpecError as error:  # of a manifest: the places are in it, not in the spec
            self._problems += error.problems
        except NoMatchError as error:
            self._problems.append(self.loaded.problem(f"{field.path}[{error.index}]", str(error)))
        except PlanError as error:
            self._problems.append(self.loaded.problem(field.path, str(error)))
        else:
            return
        self._bad.add(field.path)

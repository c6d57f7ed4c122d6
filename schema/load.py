"""From files, folders and stdin to specs. Every problem of every file is reported at once, with its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from runner.schema import sources as files
from runner.schema.errors import Problem, SpecError
from runner.schema.expand import declared, expand
from runner.schema.job import Job
from runner.schema.kinds import job_class, kinds
from runner.schema.nodes import Document, Fields, Scalar, find, plain, split_path
from runner.schema.problems import problems_of
from runner.schema.syntax import decode
from runner.schema.words import did_you_mean, listing, nearest, problem, quoted, shown
from runner.schema.yaml12 import parse

_EXAMPLE = "asr-transcribe"  # the kind to begin with


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """One valid spec and where it stands."""

    spec: Job
    file: str  # as the user wrote it; "-" for stdin
    folder: Path  # absolute; what relative paths refer to: the file's folder, the current one for stdin
    root: Fields  # the document, for places

    @property
    def line(self) -> int:
        """Line where the document starts."""
        return self.root.line

    def problem(self, path: str, message: str, hint: str = "", *, code: str = "plan") -> Problem:
        """A problem with the field at ``path`` (`data.audio[0]`), placed as near to it as the document says."""
        line, column = find(self.root, split_path(path)).place
        return Problem(file=self.file, line=line, column=column, path=path, message=message, code=code, hint=hint)


def load(
    sources: Sequence[str], *, stdin: TextIO | None = None, overrides: Mapping[str, str] | None = None
) -> list[Loaded]:
    """Specs of all files, in order; folders are walked (`*.yaml`, `*.yml`, sorted, nothing hidden), `-` is ``stdin``.

    ``overrides`` are `--set` values by variable. Raises SpecError with every problem of all files.
    """
    loader = _Loader(overrides=overrides or {})
    for source in files.read(sources, stdin, loader.problems):
        loader.add(source)
    loader.check_set(sources)
    if loader.problems:
        raise SpecError(sorted(set(loader.problems)))
    return loader.loaded


class _Loader:
    """Collects the specs and problems of one set."""

    def __init__(self, *, overrides: Mapping[str, str]) -> None:
        self.overrides = overrides
        self.loaded: list[Loaded] = []
        self.problems: list[Problem] = []
        self._roots: list[tuple[str, Fields]] = []  # file and root of each document
        self._names: dict[str, str] = {}  # name -> where it stands

    def add(self, source: files.Source) -> None:
        """Load one file."""
        text = decode(source.data, source.file)
        if isinstance(text, Problem):
            self.problems.append(text)
            return
        documents, problems = parse(text, source.file)
        places = {(p.line, p.column) for p in problems}
        paths = {p.path for p in problems if p.code == "key"}
        for document in documents:
            # what is wrong in form was said; what follows from it is not worth a second line
            found = self._document(document, source)
            problems += [p for p in found if (p.line, p.column) not in places and p.path not in paths]
        self.problems += problems

    def check_set(self, sources: Sequence[str]) -> None:
        """What can only be said when all files were read."""
        if not self._roots and not self.problems:
            what = "there is no spec in it, only comments or nothing"
            self.problems.append(problem(sources[0], (1, 1), "no-specs", what, hint="`runner init` writes one"))
        names = sorted({name for _, root in self._roots for name in declared(root)})
        for name in self.overrides:
            if name not in names and self._roots:
                file, root = next(((f, r) for f, r in self._roots if "vars" in r.items), self._roots[0])
                known = f"declared are {listing(names, 'and')}" if names else "none is declared"
                what = f"--set names a variable that no document declares, {known}"
                place = root.keys.get("vars", (root.line, root.column))
                hint = did_you_mean(name, names) or f"add `vars: {{{name}: ...}}`"
                found = problem(file, place, "unknown-variable", what, hint=hint, path=("vars", name))
                self.problems.append(found)

    def _document(self, document: Document, source: files.Source) -> list[Problem]:
        root = document.root
        if not isinstance(root, Fields):
            what = f"a spec is a mapping of fields; got {shown(root, ())}"
            place = (root.line, root.column)
            return [problem(source.file, place, "wrong-type", what, hint=f"start with `kind: {_EXAMPLE}`")]
        self._roots.append((source.file, root))
        job = _job_of(root, source.file)
        expanded, problems = expand(document, root, file=source.file, overrides=self.overrides)
        if isinstance(job, Problem):
            return [job, *problems]
        for one in expanded:
            problems += self._validate(one, job, source)
        return problems

    def _validate(self, root: Fields, job: type[Job], source: files.Source) -> list[Problem]:
        problems = self._check_name(root, source.file)
        try:
            spec = job.model_validate(plain(root))
        except ValidationError as error:
            return problems + problems_of(error, job=job, root=root, file=source.file)
        self.loaded.append(Loaded(spec=spec, file=source.file, folder=source.folder, root=root))
        return problems

    def _check_name(self, root: Fields, file: str) -> list[Problem]:
        name = root.items.get("name")
        if not isinstance(name, Scalar) or not isinstance(name.value, str) or "${" in name.text:
            return []
        first = self._names.setdefault(name.value, f"{file}:{name.line}")
        if first == f"{file}:{name.line}":
            return []
        what = f"the name is taken, {first} has it too"
        hint = "specs that are loaded together need names of their own"
        return [problem(file, (name.line, name.column), "duplicate-name", what, hint=hint, path=("name",))]


def _job_of(root: Fields, file: str) -> type[Job] | Problem:
    node = root.items.get("kind")
    allowed = f"kinds are {listing(kinds(), 'and')}"
    if node is None:
        meant = (f"did you mean `kind` by {quoted(key)}?" for key in root.items if nearest(key, ["kind"]))
        hint = next(meant, f"add one, for example `kind: {_EXAMPLE}`")
        place = (root.line, root.column)
        return problem(file, place, "missing-field", f"this field is required; {allowed}", hint=hint, path=("kind",))
    if isinstance(node, Scalar) and node.value in kinds():
        return job_class(node.text)
    word = node.text if isinstance(node, Scalar) else ""
    what = f"expected a kind; got {shown(node, ())}; {allowed}"
    hint = did_you_mean(word, kinds()) or "`runner explain` lists the kinds"
    return problem(file, (node.line, node.column), "unknown-kind", what, hint=hint, path=("kind",))

"""The house rules of the layout: links, import directions, light verbs, specs that validate."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.cli.main import main
from runner.schema import discover, load
from runner.schema.fields import every
from runner.schema.kinds import job_class, kinds
from runner.schema.marks import RESULT

ROOT = Path(__file__).parents[1]
SPECS = sorted((ROOT / "specs").rglob("*.yaml"))
HEAVY = {"torch", "transformers", "ray", "numpy", "triton", "datasets"}

# What each part of the package may import from the package; a part may always import from itself.
MAY_IMPORT = {
    "schema": set(),
    "context": set(),
    "ranks": set(),
    "tell": set(),
    "store": {"schema"},
    "registry": {"schema"},
    "plan": {"schema", "registry", "store"},
    "report": {"schema", "context"},
    "ui": {"schema"},
    "asr": {"schema", "context", "ranks", "checkpoints", "precision", "tell", "kernels", "registry"},
    "llm": {"schema", "context", "ranks", "checkpoints", "precision", "tell", "kernels", "registry"},
    "kernels": set(),
    "checkpoints": {"schema", "ranks"},
    "precision": {"schema"},
    "jobs": {"schema", "context", "ranks", "checkpoints", "precision", "tell", "registry", "asr", "llm", "report"}
    | {"kernels"},
    "execution": {"schema", "context", "ranks", "plan", "registry", "store", "report", "ui"},
    "cli": {"schema", "plan", "registry", "store", "execution", "report", "ui"},
}
# schema holds errors, the reader of manifests and the import by name, which all may use; domains never see a spec
DOMAINS_SEE = {"runner.schema.errors", "runner.schema.manifest", "runner.schema.discover"}
# by the plan, and by the schema's own check: it is none exactly where there is a model
READ_ELSEWHERE = {"kind", "architecture.type"}


def _modules() -> Iterator[tuple[str, Path]]:
    for top in ("runner", "schema", "kernels"):
        for path in sorted((ROOT / top).rglob("*.py")):
            relative = path.relative_to(ROOT)
            if relative.parts[:2] in {("runner", "schema"), ("runner", "kernels")}:
                continue
            yield (relative.parts[0] if top != "runner" else relative.parts[1].removesuffix(".py")), path


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def test_links_lead_to_the_folders_at_the_top() -> None:
    for name in ("schema", "kernels"):
        link = ROOT / "runner" / name
        assert link.is_symlink()
        assert os.readlink(link) == f"../{name}"  # noqa: PTH115 (the text of the link is meant)


def test_imports_go_one_way() -> None:
    wrong = []
    for part, path in _modules():
        for name, line in _imports(path):
            if not name.startswith("runner.") or part == "__init__":
                continue
            other = name.split(".")[1]
            if other in {part, "__version__"}:
                continue
            if other not in MAY_IMPORT[part]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {part} imports {name}")
            if part in {"asr", "llm"} and other == "schema" and not any(name.startswith(seen) for seen in DOMAINS_SEE):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: a domain sees {name}")
    assert not wrong, "\n".join(wrong)


def test_bare_names_of_the_linked_folders_are_never_imported() -> None:
    wrong = [
        f"{path}:{line}"
        for _, path in [*_modules(), *(("tests", p) for p in sorted((ROOT / "tests").rglob("*.py")))]
        for name, line in _imports(path)
        if name.split(".")[0] in {"schema", "kernels"}
    ]
    assert not wrong


def test_only_execution_imports_ray() -> None:
    wrong = [
        f"{path}:{line}"
        for part, path in _modules()
        for name, line in _imports(path)
        if name.split(".")[0] == "ray" and part != "execution"
    ]
    assert not wrong


def test_jobs_and_families_do_not_import_each_other() -> None:
    for folder, package in (("runner/jobs", "runner.jobs."), ("runner/registry/families", "runner.registry.families.")):
        for path in sorted((ROOT / folder).glob("*.py")):
            assert not [n for n, _ in _imports(path) if n.startswith(package)], path


def test_transformers_turns_away_from_our_kernels_folder() -> None:
    code = (
        "from transformers.utils import is_kernels_available; import transformers.integrations.hub_kernels; "
        "print(is_kernels_available())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "words", [["--help"], ["validate", str(SPECS[0])], ["plan", "specs/quickstart"]], ids=lambda w: w[0]
)
def test_light_verbs_load_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    code = (
        "import json, sys\nfrom runner.cli.main import main\n"
        "try:\n    code = main(json.loads(sys.argv[1]))\nexcept SystemExit as e:\n    code = e.code\n"
        "print(json.dumps([code, sorted(m.partition('.')[0] for m in sys.modules)]), file=sys.stderr)"
    )
    environment = {**os.environ, "RUNNER_STORE": str(tmp_path / "store")}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(words)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    exit_code, loaded = json.loads(done.stderr.splitlines()[-1])
    assert exit_code == 0, done.stderr
    assert not HEAVY & set(loaded)


def test_every_kind_has_its_four_files() -> None:
    kinds = discover.names("runner.schema.jobs")
    assert kinds == discover.names("runner.jobs")
    for kind in kinds:
        stem = kind.replace("-", "_")
        assert (ROOT / "specs" / f"{kind}.yaml").is_file()
        assert (ROOT / "tests" / "jobs" / f"test_{stem}.py").is_file()


@pytest.mark.parametrize("path", SPECS, ids=lambda p: str(p.relative_to(ROOT)))
def test_specs_of_the_house_validate(path: Path) -> None:
    assert load.load([str(path)])


@pytest.mark.parametrize("kind", kinds())
def test_the_documented_spec_of_a_kind_shows_every_field(kind: str) -> None:
    """Each stands there at its place, as a value or as a comment: `  # language: pt`."""
    path = ROOT / "specs" / f"{kind}.yaml"
    (loaded,) = load.load([str(path)])
    assert loaded.spec.kind == kind
    shown, above = set(), {0: ()}  # indent -> path of the block around it
    for indent, name in re.findall(r"^( *)(?:# )?(\w+):", path.read_text(encoding="utf-8"), re.MULTILINE):
        block = (*above[len(indent)], name)
        shown.add(block)
        above[len(indent) + 2] = block
    assert not [".".join(path) for path, _ in every(job_class(kind)) if path not in shown]


@pytest.mark.parametrize("kind", kinds())
def test_every_field_that_decides_the_result_is_read_by_the_job(kind: str) -> None:
    """By its name in its block, or with the whole block: a field that nobody reads promises what does not happen."""
    code = _job(kind)
    for path, view in every(job_class(kind)):
        *block, name = path
        read = re.search(rf"\bspec\.{re.escape('.'.join(path))}\b", code) is not None
        for how, names in re.findall(rf"\bspec\.{re.escape('.'.join(block))}\.model_dump\((\w*)(.*?)\)", code):
            read |= (f"'{name}'" in names) == (how == "include")
        assert read or view.mark is not RESULT or ".".join(path) in READ_ELSEWHERE, ".".join(path)


def _job(kind: str) -> str:
    """The code of a job with the blocks that its functions name spelt out: `spec.decode.beta` for `decode.beta`."""
    code = ""
    for part in ast.parse((ROOT / "runner" / "jobs" / f"{kind.replace('-', '_')}.py").read_text("utf-8")).body:
        one = ast.unparse(part)
        for names, values in re.findall(r"^ +([\w, ]+) = (\(?spec\.[\w., ]+\)?)$", one, re.MULTILINE):
            for name, value in zip(names.split(", "), values.strip("()").split(", "), strict=True):
                one = re.sub(rf"(?<![\w.]){name}\.", f"{value}.", one)
        for name, value in re.findall(r"for (\w+) in (spec\.[\w.]+)", one):
            one = re.sub(rf"(?<![\w.]){name}\.", f"{value}.", one)
        code += one
    return code


def test_the_readme_names_every_folder_and_every_verb() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    verbs = [v for v in discover.names("runner.cli") if v != "main"]
    assert not [v for v in verbs if not re.search(rf"\b{v}\b", text)]
    folders = [p.name for p in (ROOT / "runner").iterdir() if p.is_dir() and not p.name.startswith("_")]
    assert not [f for f in folders if f"{f}/" not in text]


def test_the_schema_for_editors_is_up_to_date() -> None:
    assert main(["schema", "--check", str(ROOT / "specs" / "runner.schema.json")]) == 0


def test_every_dependency_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = {re.split(r"[\[<>=]", word)[0] for word in [*project["dependencies"], *extras["asr"], *extras["ray"]]}
    modules = {"pyyaml": "yaml", "accelerate": "transformers"}  # whose Trainer imports it, and stops without
    imported = {name.split(".")[0] for _, path in _modules() for name, _ in _imports(path)}
    assert not {name for name in declared if modules.get(name, name) not in imported}

"""`runner artifacts`: every action, in text and in JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.context import Context, Result
from runner.store.local import Store
from tests.execution import toys
from tests.execution.helpers import apply_one

Capture = pytest.CaptureFixture[str]


def _write(given: object, ctx: Context) -> Result:
    (ctx.out / "sub").mkdir()
    (ctx.out / "sub" / "olá mundo.txt").write_text("olá\n")
    return toys.write(given, ctx)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with v1 and v2 of ``toy``."""
    apply_one(tmp_path, _write)
    _, store = apply_one(tmp_path, _write, precision="fp32")
    return store


def _run(store: Store, *words: str) -> int:
    return main(["artifacts", *words, "--store", str(store.root)])


def _json(store: Store, capsys: Capture, *words: str, code: int = 0) -> Any:
    assert _run(store, *words, "-o", "json") == code
    return json.loads(capsys.readouterr().out)


def test_ls(store: Store, capsys: Capture) -> None:
    assert _run(store, "ls") == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "VERSION", "KIND", "CREATED", "SIZE", "METRICS"]
    assert row.split()[:3] == ["toy", "v2", "asr-transcribe"] and "wer 0.25, sum 90" in row
    (found,) = _json(store, capsys, "ls")
    assert (found["name"], found["version"], found["files"], found["metrics"]["wer"]) == ("toy", "v2", 2, 0.25)
    assert [entry["version"] for entry in _json(store, capsys, "ls", "toy")] == ["v1", "v2"]


def test_an_empty_store(tmp_path: Path, capsys: Capture) -> None:
    empty = Store(tmp_path / "none")
    for words, told in [
        (["ls"], "No artifacts in"),
        (["verify", "--all"], "0 artifacts"),
        (["gc"], "Nothing to delete."),
    ]:
        assert _run(empty, *words) == 0
        assert told in capsys.readouterr().out
    assert _json(empty, capsys, "ls") == [] and not empty.root.exists()


def test_show(store: Store, capsys: Capture) -> None:
    assert _run(store, "show", "toy@v1") == 0
    out = capsys.readouterr().out
    assert "toy@v1" in out and "doubling" in out and "files/sub/olá mundo.txt" in out
    assert _json(store, capsys, "show", "toy")["version"] == "v2"
    (store.root / "toy" / "v1" / "report.json").unlink()
    assert _run(store, "show", "toy@v1") == 1
    assert "report.json' can't be read" in capsys.readouterr().err


def test_get_copies_checks_and_never_overwrites(store: Store, tmp_path: Path, capsys: Capture) -> None:
    to = tmp_path / "out"
    assert _run(store, "get", "toy", "--to", str(to)) == 0
    assert capsys.readouterr().out.splitlines() == [f"{to}/numbers.txt", f"{to}/sub/olá mundo.txt"]
    copy = to / "sub" / "olá mundo.txt"
    assert copy.read_text() == "olá\n" and os.access(copy, os.W_OK) and copy.stat().st_nlink == 1
    copy.write_text("mine")
    assert _run(store, "get", "toy", "--to", str(to)) == 2
    assert "exists already; --force replaces" in capsys.readouterr().err and copy.read_text() == "mine"
    assert _run(store, "get", "toy#sub", "--to", str(to), "--force") == 0
    assert copy.read_text() == "olá\n" and not [p for p in to.rglob("*") if ".tmp-" in p.name]


@pytest.mark.parametrize(
    ("path", "copied"),
    [
        ("numbers.txt", ["numbers.txt"]),
        ("sub", ["sub/olá mundo.txt"]),
        ("sub/olá mundo.txt", ["olá mundo.txt"]),
        ("report.html", ["report.html"]),
        ("records/timing.txt", ["timing.txt"]),
    ],
)
def test_get_one_path(store: Store, tmp_path: Path, capsys: Capture, path: str, copied: list[str]) -> None:
    found = _json(store, capsys, "get", f"toy@v1#{path}", "--to", str(tmp_path / "out"))
    assert found == [str(tmp_path / "out" / name) for name in copied]


def test_get_gives_no_damaged_file(store: Store, tmp_path: Path, capsys: Capture) -> None:
    file = store.root / "toy" / "v2" / "files" / "numbers.txt"
    size = file.stat().st_size
    file.chmod(0o644)
    file.write_bytes(b"?" * size)
    assert _run(store, "get", "toy", "--to", str(tmp_path / "out")) == 1
    assert "is damaged: its sha256 is" in capsys.readouterr().err
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    file.write_bytes(b"cut")
    assert _run(store, "get", "toy", "--to", str(tmp_path / "out")) == 1
    assert "toy@v2 is damaged: 'files/numbers.txt' has 3 bytes instead of" in capsys.readouterr().err


def test_verify(store: Store, capsys: Capture) -> None:
    assert _run(store, "verify", "--all") == 0
    out = capsys.readouterr().out
    assert "2 artifacts, " in out and "all as their manifests say" in out and "toy@v1 was made from model" in out
    assert _run(store, "verify", "toy@v2") == 0
    file = store.root / "toy" / "v2" / "files" / "sub" / "olá mundo.txt"
    file.chmod(0o644)
    file.write_text("ol\x1b[2J\n")
    capsys.readouterr()
    assert _run(store, "verify", "--all") == 1
    assert "toy@v2/files/sub/olá mundo.txt: changed: " in capsys.readouterr().out
    damage = _json(store, capsys, "verify", "toy", code=1)["damage"]
    assert [d["what"] for d in damage] == ["changed"]


def test_diff(store: Store, capsys: Capture) -> None:
    assert _run(store, "diff", "toy@v1", "toy@v2") == 0
    out = capsys.readouterr().out
    assert "  precision: auto -> fp32" in out and "files: no difference" in out
    assert _json(store, capsys, "diff", "toy@v1", "toy")["spec"] == {"precision": ["auto", "fp32"]}


def test_gc(store: Store, capsys: Capture) -> None:
    assert _run(store, "gc", "--keep-versions", "1") == 0
    out = capsys.readouterr().out
    assert "an old version" in out and "toy/v1" in out and "Nothing was deleted: --delete does it." in out
    assert store.versions("toy") == ["v1", "v2"]
    assert _run(store, "gc", "--keep-versions", "1", "--delete") == 0
    assert "0 B freed; " in capsys.readouterr().out
    assert list((store.root / ".trash").rglob("manifest.json")) and store.versions("toy") == ["v2"]
    found = _json(store, capsys, "gc", "--delete", "--grace", "0s")
    assert found["freed"] > 0 and found["waiting"] == 0 and not list((store.root / ".trash").iterdir())
    assert _run(store, "verify", "--all") == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "nothing"], "there is no artifact 'nothing' in"),
        (["ls", "nothing"], "there is no artifact 'nothing'; `runner artifacts ls`"),
        (["show", "Toy"], "'Toy' is no artifact name; allowed are"),
        (["show", "toy@3"], "'3' is no version; versions are v1, v2, ..."),
        (["show", "toy@"], "'' is no version"),
        (["show", "toy#x"], "'#x' has no meaning here"),
        (["show", "../toy"], "is no artifact name"),
        (["get", "toy#nothing", "--to", "x"], "toy@v2 has no 'nothing'; it has numbers.txt, sub"),
        (["get", "toy#../../x", "--to", "x"], "the path '../../x' must be relative"),
        (["get", "toy#/etc", "--to", "x"], "the path '/etc' must be relative"),
        (["verify"], "give one artifact, NAME or NAME@vN, or --all"),
        (["verify", "toy", "--all"], "give one artifact, NAME or NAME@vN, or --all"),
        (["diff", "toy", "toy@v9"], "there is no artifact 'toy@v9'"),
        (["gc", "--grace", "soon"], "--grace 'soon' is no time; write a whole number and s, m, h or d"),
        (["gc", "--keep-versions", "0"], "--keep-versions 0 is not allowed; keep at least 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words(store: Store, capsys: Capture, words: list[str], told: str) -> None:
    assert _run(store, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1

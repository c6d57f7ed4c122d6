from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy
import pytest

from runner.context import Plot
from runner.report.build import MAX_ROWS, html, plain, write
from tests.report.reports import HOSTILE, hostile, report, table, wav


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def said(self) -> str:
        return " ".join(text for texts in self.texts.values() for text in texts)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(**changes: object) -> Page:
    made = report(**changes)
    return Page(html(made.to_json(), audio_root=made.audio_root))


def test_numbers_of_other_libraries_are_numbers() -> None:
    metrics = {"count": numpy.int64(3), "rate": numpy.float32(0.5), "none": numpy.float64("inf"), "yes": True}
    assert plain(metrics) == {"count": 3, "rate": 0.5, "none": None, "yes": True}
    assert json.loads(json.dumps(plain(metrics), allow_nan=False)) == plain(metrics)


def test_both_files_say_the_same(tmp_path: Path) -> None:
    write(tmp_path, report())
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert data["name"] == "clips@v1"
    assert data["metrics"]["wer"] == 0.25
    assert data["metrics"]["nan"] is None
    assert data["tables"][0]["rows"][1] == ["a.wav", "ok", "o cão dorme", 0.25]
    for said in (
        "clips@v1",
        "0.125 to 0.5",
        "substitutions 1",
        "2 min 5 s",
        "o cão dorme",
        "synthetic speech",
        "bf16 in",
    ):
        assert said in text


def test_the_page_asks_for_nothing_and_runs_only_its_own_code(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav())
    found = page(audio_root=tmp_path)
    policy = next(a["content"] for a in found.all("meta") if a.get("http-equiv") == "Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256("".join(found.texts[tag]).encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not {"link", "iframe", "object", "img", "base", "form", "a"} & {tag for tag, _ in found.tags}
    for _, attributes in found.tags:
        assert not attributes.keys() & {"href", "style", "srcset", "action", "background"}
        assert not [name for name in attributes if name.startswith("on")]
        assert (attributes.get("src") or "data:audio/").startswith("data:audio/")
    assert "url(" not in "".join(found.texts["style"])
    assert "@import" not in "".join(found.texts["style"])


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_and_texts_are_only_text(text: str, tmp_path: Path) -> None:
    write(tmp_path, hostile(text, tmp_path))
    found = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    usual = page()
    assert {tag for tag, _ in found.tags} <= {tag for tag, _ in usual.tags}
    assert found.texts["script"] == usual.texts["script"]
    assert found.texts["style"] == usual.texts["style"]
    for _, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert "src" not in attributes
    assert "".join(found.texts["h1"]) == text.replace("\udce9", "?")
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["outcome"] == "published"


def test_short_clips_are_played_from_the_page(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav())
    (tmp_path / "b.wav").write_bytes(b"no audio at all")
    found = page(audio_root=tmp_path)
    sources = [a["src"] or "" for a in found.all("audio")]
    assert len(sources) == 1
    assert base64.b64decode(sources[0].removeprefix("data:audio/wav;base64,")) == wav()
    assert "1 of 2 recordings can be played here." in found.said()


def test_clips_end_where_the_page_would_grow_too_large(tmp_path: Path) -> None:
    rows = []
    for n in range(40):
        (tmp_path / f"{n}.wav").write_bytes(wav(5.0))  # 160 kB each, 6.4 MB in all
        rows.append((f"{n}.wav", "ok", "", 0.0))
    found = page(audio_root=tmp_path, tables=(table(rows),))
    assert len(found.all("audio")) == 31
    assert "31 of 40 recordings can be played here." in found.said()


def test_long_tables_are_cut_with_a_note_failures_first() -> None:
    rows = [(f"{n}.wav", "empty" if n == 9_999 else "ok", "", None) for n in range(10_000)]
    data = report(tables=(table(rows, note="all are in transcripts.jsonl"),)).to_json()["tables"][0]
    assert len(data["rows"]) == MAX_ROWS
    assert data["rows"][0][0] == "9999.wav"
    assert data["total"] == 10_000
    assert data["note"].startswith("2,000 of 10,000 rows")
    assert data["note"].endswith("all are in transcripts.jsonl")


def test_columns_can_be_sorted_by_readers_and_machines() -> None:
    found = page()
    heads = [a for a in found.all("th") if "aria-sort" in a]
    assert len(heads) == 4 + 7 + 5  # recordings, ledger, inputs
    assert all(a["scope"] == "col" for a in heads)
    assert "0.25" in [a.get("data-v") for a in found.all("td")]
    assert all(a.get("scope") in {"col", "row"} for a in found.all("th"))


def test_a_run_that_failed_says_so_first() -> None:
    found = page(outcome="failed", failure="every recording failed")
    assert "every recording failed" in found.texts["p"]
    assert "".join(found.texts["span"]).startswith("failed")


def test_an_empty_report_is_a_page_too() -> None:
    bare = {"metrics": {}, "intervals": {}, "ledger": (), "tables": (), "plots": (), "timings": {}, "notes": ()}
    found = page(**bare, inputs=(), gates=(), run={}, environment={}, code={}, fingerprint="")
    assert not {"svg", "audio"} & {tag for tag, _ in found.tags}
    found = page(**{**bare, "tables": (table([]),)}, gates=())
    assert len(found.all("table")) == 2  # the empty one and the inputs


def test_the_page_of_a_large_job_is_small() -> None:
    rows = [(f"folder/clip_{n:05d}.flac", "ok", "o menino comprou pão na feira " * 3, 0.125) for n in range(MAX_ROWS)]
    made = report(tables=(table(rows),))
    assert len(html(made.to_json(), audio_root=None)) < 1_500_000


def test_plots_leave_out_what_is_no_number() -> None:
    plot = Plot(title="t", kind="scatter", x=[1, 2, "x"], y=[1.0, float("nan"), 2.0], x_label="x", y_label="y")
    found = page(plots=(plot,))
    assert len(found.all("circle")) == 1
    assert "2 without a number" in found.texts["text"]
    found = page(plots=(Plot(title="t", kind="bar", x=[], y=[], x_label="x", y_label="y"),))
    assert "no data" in found.texts["text"]


def test_marks_stay_inside_their_plot() -> None:
    values = [-3.0, 0.0, 1e-9, 2.5, 1e6]
    for kind in ("bar", "scatter"):
        found = page(
            plots=(Plot(title="t", kind=kind, x=[1, 2, 3, 4, 5], y=values, x_label="x", y_label="y"),), timings={}
        )
        for a in found.all("rect"):
            assert float(a["x"] or 0) >= 52
            assert float(a["y"] or 0) >= 10
            assert float(a["y"] or 0) + float(a["height"] or 0) <= 206.1
        for a in found.all("circle"):
            assert 52 <= float(a["cx"] or 0) <= 430
            assert 10 <= float(a["cy"] or 0) <= 206


def test_the_template_has_no_unescaped_place() -> None:
    folder = Path(__file__).parents[2] / "runner" / "report"
    assert not re.search(r"\|\s*safe|autoescape\s+false", (folder / "template.html").read_text(encoding="utf-8"))


def test_what_the_spec_says_of_itself_comes_first() -> None:
    said = report(spec={"kind": "asr-transcribe", "description": "Made up."}, notes=("a note",)).to_json()
    assert said["notes"] == ["Made up.", "a note"]
    assert "<li>Made up.</li>" in html(said, audio_root=None)

"""The table of families in README.md: `python -m runner.registry.table` writes it anew, a test compares."""

from __future__ import annotations

from pathlib import Path

from runner.registry.family import Family
from runner.registry.recognise import families

README = Path(__file__).parents[2] / "README.md"
HEAD = "| family | model types | `auto` adapters | patches wanted | GGUF |\n|---|---|---|---|---|"
START, END = "<!-- families: written by python -m runner.registry.table -->", "<!-- end of families -->"


def table() -> str:
    """Markdown, a row a family of language models."""
    rows = [_row(family) for family in families().values() if family.language]
    return "\n".join([HEAD, *rows])


def put(text: str) -> str:
    """``text``, a README, with the table between its two markers as it is now."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    assert start and end, f"README.md needs the two lines {START!r} and {END!r}"
    return f"{before}{START}\n{table()}\n{END}{after}"


def _row(family: Family) -> str:
    language = family.language
    assert language is not None
    cells = [
        family.name,
        ", ".join(f"`{one}`" for one in family.model_types),
        ", ".join(language.lora),
        ", ".join(language.patches),
        language.gguf or "–",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    README.write_text(put(README.read_text(encoding="utf-8")), encoding="utf-8")

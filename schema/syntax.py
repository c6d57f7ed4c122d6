"""From bytes to text that YAML can read, and what the parser complains about in words for people."""

from __future__ import annotations

import re

import yaml

from runner.schema.errors import Problem
from runner.schema.words import problem

MAX_BYTES = 1 << 20

_BREAK = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")  # what libyaml counts as a line
_FORBIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_CONFLICT = re.compile(r"^(?:<{7} |>{7} |\|{7} )", re.MULTILINE)
_UTF16 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")

# what libyaml says -> what it means here, what to do
_MEANINGS: dict[str, tuple[str, str]] = {
    "mapping values are not allowed": (
        "a `:` where no new key can start",
        "check the indentation, or put text that contains ': ' in quotes",
    ),
    "did not find expected key": (
        "this does not line up with the keys above",
        "check the indentation and that quotes and brackets are closed",
    ),
    "did not find expected '-' indicator": ("this does not line up with the list above", "check the indentation"),
    "did not find expected ',' or ']'": (
        "a list in [...] is not closed or lacks a comma",
        "put text with brackets, braces or commas in quotes",
    ),
    "did not find expected ',' or '}'": (
        "a mapping in {...} is not closed or lacks a comma",
        'put text with brackets, braces or commas in quotes, "${vars.NAME}" too',
    ),
    "did not find expected alphabetic or numeric character": (
        "text cannot start with `*` or `&`: they mean an alias and its anchor",
        'put it in quotes: "*.flac"',
    ),
    "could not find expected ':'": ("a line without `:`", "write `key: value`"),
    "unexpected end of stream": ("a quote is opened and never closed", "close it"),
    "unexpected document indicator": ("a quote is open where the next document starts", "close it"),
    "cannot start any token": ("text cannot start with this character", "put it in quotes"),
    "unknown escape character": (
        "an unknown escape in a text in double quotes",
        "use single quotes, where a backslash is plain text",
    ),
    "invalid Unicode character escape": ("an escape that is no character", "write the character itself"),
    "block sequence entries are not allowed": ("a list cannot start here", "start it on a line of its own"),
    "did not find expected <document start>": (
        "something after the end of the document",
        "separate documents by a line `---`",
    ),
    "did not find expected node content": ("a value is missing", "write the value"),
}


def decode(data: bytes, file: str) -> str | Problem:
    """The text of a spec file, or the one thing that makes it unreadable."""
    if len(data) > MAX_BYTES:
        return problem(file, (1, 1), "too-large", f"the file is larger than {MAX_BYTES >> 20} MiB", hint="split it")
    if data.startswith(_UTF16):
        return problem(file, (1, 1), "encoding", "the file is not UTF-8 but UTF-16 or UTF-32", hint="save it as UTF-8")
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        place = place_of(data[: error.start].decode("utf-8"), error.start)
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        return problem(file, place, "encoding", what, hint="save the file as UTF-8")
    if found := _FORBIDDEN.search(text):
        hint = "is it UTF-16? save it as UTF-8" if found.group() == "\0" else "remove it"
        what = f"control character U+{ord(found.group()):04X}"
        return problem(file, place_of(text, found.start()), "control-character", f"{what} is not allowed", hint=hint)
    if found := _CONFLICT.search(text):
        what = f"a merge conflict is left in the file ({found.group().strip()})"
        return problem(file, place_of(text, found.start()), "merge-conflict", what, hint="resolve it")
    return text


def place_of(text: str, offset: int) -> tuple[int, int]:
    """Line and column, from 1, of the character at ``offset``."""
    before = _BREAK.split(text[:offset])
    return len(before), len(before[-1]) + 1


def problem_of(error: yaml.YAMLError, *, text: str, file: str) -> Problem:
    """The parser's complaint with its place and a meaning."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        # the reader's own refusals: characters that ``decode`` did not know to be forbidden
        position = getattr(error, "position", None)
        place = place_of(text, position) if isinstance(position, int) else (1, 1)
        what = f"not readable as YAML: {getattr(error, 'reason', error)}"
        return problem(file, place, "syntax", what, hint="write plain UTF-8 text")
    mark, opened = error.problem_mark, error.context_mark
    lines = _BREAK.split(text)
    line = lines[mark.line] if mark.line < len(lines) else ""
    said = error.problem or "not YAML"
    what, hint = next((meaning for key, meaning in _MEANINGS.items() if key in said), (said, "check the YAML"))
    if "\t" in line[: len(line) - len(line.lstrip())]:
        what, hint = "a tab in the indentation", "indent with spaces"
    elif opened is not None and opened.line != mark.line and "scanning for" not in (error.context or ""):
        what += f" (it starts in line {opened.line + 1})"
    return problem(file, (mark.line + 1, mark.column + 1), "syntax", what, hint=hint)

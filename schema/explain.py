"""What a kind, a block or a field means, read from the model: text for people, JSON for programs."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from pydantic import BaseModel

from runner.schema.block import Block
from runner.schema.errors import UsageError
from runner.schema.expand import ENVELOPE
from runner.schema.fields import FieldView, at, every, fields, short_form
from runner.schema.job import Job
from runner.schema.kinds import job_class, kinds
from runner.schema.marks import Mark
from runner.schema.words import did_you_mean, listing

WIDTH = 100


def explain(path: str) -> dict[str, Any]:
    """Facts about `KIND[.FIELD...]`, or the list of kinds for an empty path. Raises UsageError for an unknown path."""
    if not path:
        return {"kinds": [{"kind": kind, "meaning": _first_line(job_class(kind))} for kind in kinds()]}
    kind, _, rest = path.partition(".")
    if kind not in kinds():
        near = did_you_mean(kind, kinds())
        raise UsageError(
            f"no kind is called {kind!r}, there is {listing(kinds(), 'and')}" + (f"; {near}" if near else "")
        )
    job = job_class(kind)
    if not rest:
        return {"path": kind, "meaning": _first_line(job), "fields": _rows(job)}
    view = at(job, rest.split("."))
    if view is None:
        raise UsageError(_unknown(job, kind, rest))
    facts = {"path": path, **_facts(view)}
    if view.inner is not None:
        facts |= {"meaning": view.sentence, "fields": _rows(view.inner)}
    return facts


def text(facts: dict[str, Any]) -> str:
    """``explain``'s answer for people."""
    if "kinds" in facts:
        width = max(len(row["kind"]) for row in facts["kinds"])
        rows = [f"  {row['kind']:{width}}  {row['meaning']}" for row in facts["kinds"]]
        return "\n".join(["Kinds of job:", *rows, "", "`runner explain KIND` lists the fields of one."])
    lines = [facts["path"], *_wrapped(facts["meaning"])]
    if "type" in facts:
        lines += ["", *_wrapped(f"type     {facts['type']}", hanging="         ")]
        if "fields" not in facts:
            lines += [f"  default  {_default(facts)}", f"  result   {facts['mark']}"]
    for row in facts.get("fields", []):
        lines += ["", *_wrapped(f"{row['name']}: {_about(row)}", hanging="    "), *_wrapped(row["meaning"], "      ")]
    if "type" not in facts:
        lines += ["", "Beside these, in every kind:"]
        lines += [line for name, sentence in ENVELOPE.items() for line in ("", f"  {name}", f"      {sentence}")]
    return "\n".join(lines)


def _about(row: dict[str, Any]) -> str:
    words = [row["type"]]
    if row["required"]:
        words.append("required")
    elif not isinstance(row["default"], dict):
        words.append(f"default: {_default(row)}")
    if row["decides_result"]:
        words.append("decides the result")
    return "; ".join(words)


def _rows(block: type[Block]) -> list[dict[str, Any]]:
    return [{"name": name, **_facts(view)} for name, view in fields(block).items()]


def _facts(view: FieldView) -> dict[str, Any]:
    return {
        "meaning": view.sentence,
        "type": _type(view),
        "required": view.required,
        "default": None if view.required else _plain(view.info.default),
        "mark": view.mark.value,
        "decides_result": view.mark not in (Mark.NEUTRAL, Mark.BLOCK),
        "schema": {k: v for k, v in view.shape.items() if k not in ("title", "default", "$ref")},
    }


def _type(view: FieldView) -> str:
    if view.inner is None:
        return view.words
    short = short_form(view.inner)
    block = "a block of fields" + (f", or text, short for `{short}`" if short else "")
    return f"a list, each {block}" if view.shape.get("type") == "array" else block


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _default(facts: dict[str, Any]) -> str:
    if facts["required"]:
        return "none, it is required"
    value = facts["default"]
    if value is None:
        return "left out"
    return value if isinstance(value, str) else json.dumps(value)


def _unknown(job: type[Job], kind: str, rest: str) -> str:
    paths = [".".join(path) for path, _ in every(job)]
    last = rest.rpartition(".")[2]
    homes = [path for path in paths if path.rpartition(".")[2] == last]
    near = f"did you mean {homes[0]!r}?" if homes else did_you_mean(rest, paths)
    return f"{kind} has no field {rest!r}; {near or f'`runner explain {kind}` lists its fields'}"


def _first_line(job: type[Job]) -> str:
    return (job.__doc__ or "").strip().partition("\n")[0]


def _wrapped(words: str, indent: str = "  ", *, hanging: str = "") -> list[str]:
    wrapper = textwrap.TextWrapper(WIDTH, initial_indent=indent, subsequent_indent=indent + hanging)
    wrapper.break_on_hyphens = False
    return wrapper.wrap(words)

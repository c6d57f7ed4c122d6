"""A first spec of a kind, made from the model: what must be given is filled in, the rest stands there commented out."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping

from runner.schema.block import Block
from runner.schema.fields import FieldView, fields, short_form
from runner.schema.kinds import job_class

WIDTH = 100


def starter(kind: str) -> str:
    """The text of a spec of ``kind``, which must be one of ``kinds()``. It is valid as it stands."""
    job = job_class(kind)
    what = (job.__doc__ or "").strip().partition("\n")[0]
    head = [
        "# yaml-language-server: $schema=./runner.schema.json",
        "# (the line above is for editors; `runner schema -o runner.schema.json` writes that file)",
        "#",
        f"# {what}",
        "# Lines with `#` and no space after it are defaults: take the `#` away to set them. Lines with `##` are of a",
        "# block that is left out: take both away from its name and from the fields to set.",
        f"# More on a field: `runner explain {kind}.FIELD`.",
        "",
        f"kind: {kind}",
    ]
    return "\n".join([*head, *_fields(job, "")]) + "\n"


def _fields(block: type[Block], indent: str, *, examples: Mapping[str, object] | None = None) -> Iterator[str]:
    """Lines of all fields; ``examples`` of the job go before those of the block, which many kinds share."""
    for view in fields(block).values():
        if view.name == "kind":
            continue
        if not indent:
            yield ""
        yield from (f"{indent}# {line}" for line in textwrap.wrap(view.sentence, WIDTH, break_on_hyphens=False))
        yield from _field(view, indent, example=(examples or {}).get(view.name))


def _field(view: FieldView, indent: str, *, example: object = None) -> Iterator[str]:
    in_comment = indent.startswith("#")
    # in a block that is a comment all defaults stand: examples of two fields need not go together
    examples = None if in_comment and not view.required else [example] if example else view.info.examples
    start = indent if view.required or examples or in_comment else f"{indent}#"
    if view.inner is not None and not (view.required or examples) and view.info.default is None:
        yield f"{start}{view.name}: null"
        yield f"{indent}##{view.name}:"
        yield from _fields(view.inner, f"{indent}##  ")
    elif view.inner is not None and view.shape.get("type") != "array":
        yield f"{start}{view.name}:"
        yield from _fields(view.inner, f"{start}  ", examples=_of_short(view) if examples else None)
    else:
        yield f"{start}{view.name}: {_value(examples[0] if examples else view.info.default)}"


def _of_short(view: FieldView) -> Mapping[str, object]:
    """The example of a block in its short form, by the field that this stands for."""
    assert view.inner is not None and view.info.examples, "a block with an example"
    name = short_form(view.inner)
    return {name: view.info.examples[0]} if name else {}


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)

"""Which family a config belongs to: by model_type and structure; by the name only as a hint when there is no config."""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import Any

from runner.registry.family import Family
from runner.schema import discover
from runner.schema.errors import PlanError

PACKAGE = "runner.registry.families"


@cache
def families() -> dict[str, Family]:
    """Every family by name; the folder listing is the registry."""
    return {name: discover.load(PACKAGE, name).FAMILY for name in discover.names(PACKAGE)}


def recognise(config: dict[str, Any], *, name: str) -> Family:
    """The family of ``config``; raises PlanError, naming the nearest family. ``name`` is for messages."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise PlanError(f"model {name!r}: its config.json has no model_type; {_known()}")
    of_type = [f for f in families().values() if model_type in f.model_types]
    if not of_type:
        raise PlanError(f"model {name!r}: unknown model_type {model_type!r}{_nearest(model_type)}; {_known()}")
    special = [f for f in of_type if f.structure and config.get(f.structure) is not None]
    return special[0] if special else next(f for f in of_type if not f.structure)


def text_family(family: Family, config: dict[str, Any]) -> Family:
    """The family of the text model inside ``config`` (``text_config``) where that is another, else ``family``."""
    inside = config.get("text_config")
    model_type = inside.get("model_type") if isinstance(inside, dict) else None
    of_type = (f for f in families().values() if f.language and model_type in f.model_types and not f.structure)
    return next(of_type, family)


def guess(name: str) -> Family | None:
    """The family that the name looks like; a hint for people, never a decision."""
    return next((f for f in families().values() if re.search(f.name_pattern, name, re.IGNORECASE)), None)


def _known() -> str:
    return f"families: {', '.join(families())}"


def _nearest(model_type: str) -> str:
    types = {t: f.name for f in families().values() for t in f.model_types}
    near = difflib.get_close_matches(model_type.lower(), types, n=1, cutoff=0.5)
    return f", the nearest family is {types[near[0]]!r}" if near else ""

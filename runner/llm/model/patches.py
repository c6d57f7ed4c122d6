"""The spec's words for optimisations, and the patches that they mean for a family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runner.context import LedgerLine
from runner.kernels import patching
from runner.kernels.ledger import Wanted
from runner.schema.errors import JobError

WORDS = {"attention": "attention", "linear_cross_entropy": "loss_chunking", "lora_linear": "quantised_lora"}
REST = "kernels"  # all others


def wanted(listed: Iterable[Mapping[str, Any]], optimize: Mapping[str, Wanted], *, adapter: bool) -> dict[str, Wanted]:
    """Patch -> required, preferred or off, of those that the registry lists for the family and that fit this model."""
    names = [one["patch"] for one in listed if one["wanted"]]
    asked = {name: optimize.get(WORDS.get(name, REST), "off") for name in names}
    return {name: word for name, word in asked.items() if adapter or name != "lora_linear"}


def unwanted(listed: Iterable[Mapping[str, Any]], optimize: Mapping[str, Wanted]) -> Iterator[LedgerLine]:
    """A line for each patch that the family has and this model cannot take."""
    for one in listed:
        if not one["wanted"]:
            word = optimize.get(WORDS.get(one["patch"], REST), "off")
            yield LedgerLine(what=one["patch"], wanted=word, applied=False, why=f"it needs {one['needs']}")


def apply(model: Any, asked: Mapping[str, Wanted]) -> patching.Applied:
    """The patches in ``model``. Raises JobError where one that is required cannot be had."""
    try:
        return patching.apply(model, asked)
    except patching.PatchError as error:
        raise refused(error) from error


def refused(error: patching.PatchError) -> JobError:
    """What the kernels say, as a failure of the job."""
    return JobError(str(error).rstrip("."), failure="Infeasible")

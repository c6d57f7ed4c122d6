"""Walk a spec by its marks, never by its kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from runner.schema.block import Block
from runner.schema.marks import Mark

INPUTS = frozenset({Mark.MODEL, Mark.FILE, Mark.FILES, Mark.MANIFEST, Mark.CORPUS})


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One marked field of a spec."""

    path: str  # as in the spec: "decode.beam_size", "models[0].model"
    mark: Mark
    value: Any
    block: Block  # the block that holds the field: its other fields say how to read it (revision, root)

    @property
    def input(self) -> str:
        """Name of the input that the field makes: `model.id` is the input `model`."""
        return self.path.removesuffix(".id")

    def beside(self, name: str, default: Any) -> Any:
        """Value of another field of the same block, or ``default`` where the block has none."""
        return vars(self.block).get(name, default)


def walk(block: Block, prefix: str = "") -> Iterator[Field]:
    """Yield every marked field of ``block`` and of the blocks inside it, in order of declaration."""
    for name, mark in marks(type(block)).items():
        value = getattr(block, name)
        path = prefix + name
        if mark is Mark.BLOCK:
            for inner_path, inner in _blocks(value, path):
                yield from walk(inner, inner_path + ".")
        else:
            yield Field(path=path, mark=mark, value=value, block=block)


@cache
def marks(block: type[Block]) -> Mapping[str, Mark]:
    """The mark of each field of a class of blocks."""
    found = {
        name: [entry for entry in info.metadata if isinstance(entry, Mark)] for name, info in block.model_fields.items()
    }
    assert all(len(entries) == 1 for entries in found.values()), f"{block.__name__}: every field carries one mark"
    return {name: entries[0] for name, entries in found.items()}


def _blocks(value: Any, path: str) -> Iterator[tuple[str, Block]]:
    if isinstance(value, Block):
        yield path, value
    elif isinstance(value, list | tuple):
        yield from ((f"{path}[{index}]", inner) for index, inner in enumerate(value))
    elif isinstance(value, Mapping):
        yield from ((f"{path}.{key}", inner) for key, inner in value.items())

"""The families that patches are known for, and which of them a model is."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from torch import nn

from runner.kernels import patches
from runner.kernels.places import Family


@cache
def known() -> Mapping[str, Family]:
    """The families by name: the files of `patches`."""
    names = sorted(module.name for module in pkgutil.iter_modules(patches.__path__))
    return {name: importlib.import_module(f"{patches.__name__}.{name}").FAMILY for name in names}


def families_of(model: nn.Module) -> list[tuple[str, nn.Module, Family]]:
    """Path, module and family of the outermost module that is known, and of the text model inside it, if another."""
    path, root, family = _outermost("", model)
    if family is None:
        return []
    found = [(path, root, family)]
    if family.inner:
        for name, child in root.named_children():
            path_inside, inner, other = _outermost(f"{path}.{name}".lstrip("."), child, beside=family)
            if other is not None:
                return [*found, (path_inside, inner, other)]
    return found


def _outermost(path: str, model: nn.Module, beside: Family | None = None) -> tuple[str, nn.Module, Family | None]:
    for name, module in model.named_modules(prefix=path):
        classes = {cls.__name__ for cls in type(module).__mro__}
        for family in known().values():
            if family is not beside and classes & set(family.models):
                return name, module, family
    return path, model, None

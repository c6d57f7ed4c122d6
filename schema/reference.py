"""References to other jobs' outputs: `artifact:NAME[@VERSION][#path]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

PREFIX = "artifact:"

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # as in `schema/job.py`
VERSION = re.compile(r"v[1-9][0-9]{0,8}")
_REFERENCE = re.compile(r"artifact:([^@#]*)(?:@([^@#]*))?(?:#(.*))?", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One output of another job."""

    name: str
    version: str | None = None  # "v3"; None is the one that this plan makes, else the latest
    path: str | None = None  # inside the artifact's files, with `/`; None is all of them

    def __str__(self) -> str:
        version = f"@{self.version}" if self.version else ""
        return f"{PREFIX}{self.name}{version}{f'#{self.path}' if self.path else ''}"


def is_reference(text: str) -> bool:
    """Whether ``text`` means another job's output."""
    return text.startswith(PREFIX)


def parse(text: str) -> Reference:
    """Read a reference. Raises ValueError that says what is wrong with it and what is allowed."""
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise ValueError("a reference is `artifact:NAME[@VERSION][#path]`")
    name, version, path = found.groups()
    if not NAME.fullmatch(name):
        raise ValueError(
            "the name in `artifact:NAME[@VERSION][#path]` is made of lower-case letters, digits and hyphens"
        )
    if version is not None and not VERSION.fullmatch(version):
        raise ValueError("the version in `artifact:NAME@VERSION` is `v1`, `v2` and so on; left out: the latest")
    if path is not None:
        _check_path(path)
    return Reference(name=name, version=version, path=path)


def checked(text: str) -> str:
    """``text``, for a field that takes a reference or something else; an error of the schema if it is a broken one."""
    if is_reference(text):
        try:
            parse(text)
        except ValueError as error:
            raise PydanticCustomError("reference", str(error)) from error
    return text


def checked_file(text: str) -> str:
    """The same for a field that takes one file: a reference must say which."""
    if is_reference(checked(text)) and parse(text).path is None:
        raise PydanticCustomError("reference", "say which file of the artifact it is: `artifact:NAME#path`")
    return text


TextFile = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(checked_file)]
"""A field that takes one file, or one of another job's output."""


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not path or path != path.strip() or "\\" in path or not path.isprintable():
        raise ValueError("the path in `artifact:NAME#path` is a file or folder of the artifact, with `/`")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise ValueError("the path in `artifact:NAME#path` stays inside the artifact: no `..`, no `//`, no leading `/`")

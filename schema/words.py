"""How messages speak: paths, values that may be shown, lists of what is allowed, what was probably meant, sizes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from runner.schema.errors import Problem
from runner.schema.nodes import Fields, Items, Node, Part, Place, Scalar

MAX_SHOWN = 40  # characters of a value, key or name
MAX_PARTS = 12  # of a path

# fields that may hold a secret, and texts that look like one wherever they stand
_SECRET_NAME = re.compile(r"token|passw|passphrase|secret|key|credential|auth", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"\$\{\s*env:|://[^/\s]*@|^(?:hf_|sk-|gh[opsu]_|github_pat_|glpat-|xox[abp]-|AKIA|AIza|eyJ|Bearer )|PRIVATE KEY"
)


def problem(file: str, place: Place, code: str, message: str, *, hint: str, path: Sequence[Part] = ()) -> Problem:
    """A problem at a line and column; ``path`` is the field's."""
    line, column = place
    return Problem(file=file, line=line, column=column, path=path_text(path), message=message, code=code, hint=hint)


def path_text(parts: Sequence[Part]) -> str:
    """("data", "audio", 0) -> `data.audio[0]`; names that are not plain words are quoted and shortened."""
    text = ""
    for part in parts[:MAX_PARTS]:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[\w<$-][\w<-]{0,62}", part) else quoted(part))
    return text + ("..." if len(parts) > MAX_PARTS else "")


def quoted(text: str) -> str:
    """``text`` in quotes, on one line, shortened."""
    return repr(text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "...")


def shown(node: Node, parts: Sequence[Part]) -> str:
    """A value in words. A value that could be a secret is never shown."""
    if type(node) is Fields:
        return "a mapping"
    if type(node) is Items:
        return f"a list of {len(node.items)}"
    assert type(node) is Scalar
    value, text = node.value, node.text
    if value is None:
        return "nothing"
    if secret(text, parts):
        return "a value that is not shown"
    if isinstance(value, str):
        return f"the text {quoted(value)}" + (f" of {len(value):,} characters" if len(value) > MAX_SHOWN else "")
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def secret(text: str, parts: Sequence[Part]) -> bool:
    """Whether ``text`` under this path could be a secret."""
    return any(isinstance(p, str) and _SECRET_NAME.search(p) for p in parts) or bool(_SECRET_TEXT.search(text))


def listing(names: Iterable[object], last: str = "or") -> str:
    """`a, b or c`."""
    words = [str(n) for n in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def nearest(word: object, names: Iterable[str]) -> str | None:
    """The name that ``word`` was probably meant to be."""
    if not isinstance(word, str) or len(word) > 2 * MAX_SHOWN:
        return None
    folded = {name.lower().replace("_", "-"): name for name in names}
    meant = word.lower().replace("_", "-")
    longer = [name for name in folded if name.startswith(f"{meant}-")]  # `beam` is `beam_size` rather than `beta`
    close = longer or difflib.get_close_matches(meant, folded, n=1, cutoff=0.6)
    return folded[close[0]] if close else None


def did_you_mean(word: object, names: Iterable[str]) -> str:
    """`did you mean 'x'?`, or nothing when no name is near."""
    near = nearest(word, names)
    return f"did you mean {near!r}?" if near else ""


def size(count: float | None) -> str:
    """Bytes as ``512 B``, ``2.7 MB`` or ``1.26 GB`` (powers of 1000)."""
    if count is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:  # what rounds to 1000 is 1 of the next unit
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"

"""The steps in their order, which settings choose.

    signs, fillers, abbreviations, marks, numbers, ordinals, punctuation, spelling, case, hyphens

Whatever the settings, any text may go in, nothing raises, and a normal text stays as it is. So that it stays,
hesitations go before anything is read, as they may stand between the words of an abbreviation, and `signs` comes first.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

from runner.asr.portuguese import amounts, written
from runner.asr.portuguese.matching import END
from runner.asr.portuguese.numerals import Language

VERSION = 1  # changes when any output does; results carry it


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Which steps are taken. The defaults write what a reader says in letters, hyphens within words and spaces."""

    language: Language = "pt-BR"
    numbers: Literal["words", "keep"] = "words"
    ordinals: Literal["words", "keep"] = "words"
    abbreviations: Literal["words", "keep"] = "words"
    hyphens: Literal["keep", "split"] = "keep"
    punctuation: Literal["drop", "keep"] = "drop"
    case: Literal["lower", "upper", "keep"] = "lower"
    fillers: Literal["keep", "drop"] = "keep"
    spelling: Literal["keep", "reform"] = "keep"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One visible part of the pipeline."""

    name: str
    does: str  # one line for people
    apply: Callable[[str], str]


def normaliser(settings: Settings) -> Callable[[str], str]:
    """The function that ``settings`` describe. Total and idempotent; no space at the ends, single ones within."""
    functions = [step.apply for step in steps(settings)]

    def normalise(text: str) -> str:
        for function in functions:
            text = function(text)
        return " ".join(text.split())

    return normalise


def describe(settings: Settings) -> list[str]:
    """The version first (`portuguese/1 pt-BR`), then a line for each step taken, in order."""
    return [f"portuguese/{VERSION} {settings.language}", *(f"{step.name}: {step.does}" for step in steps(settings))]


@lru_cache(maxsize=64)
def steps(settings: Settings) -> tuple[Step, ...]:
    """The steps that ``settings`` ask for, in order."""
    language = settings.language
    every: tuple[tuple[bool, str, str, Callable[[str], str]], ...] = (
        (True, "signs", "NFC, one form of quotes, dashes and 1.º, unseen characters dropped", _signs),
        (settings.fillers == "drop", "fillers", "hesitations such as hã, hum, ahn dropped", written.drop_fillers),
        (
            settings.abbreviations == "words",
            "abbreviations",
            "Sr., Dra., Av., nº, pág. 5 and the like in full",
            written.say_abbreviations,
        ),
        (True, "marks", "1° and 1.000º as 1º and 1000º, 36,5º as 36,5°", _marks),
        (
            settings.numbers == "words",
            "numbers",
            "digits, dates, times, money, percent and units in words; masculine where no known noun follows",
            amounts.reader(language),
        ),
        (
            settings.ordinals == "words",
            "ordinals",
            "1º, 2ª, século XX in words",
            partial(written.say_ordinals, language=language),
        ),
        (
            settings.punctuation == "drop",
            "punctuation",
            "punctuation and symbols to spaces, but for hyphens and apostrophes within words",
            _drop_punctuation,
        ),
        (settings.spelling == "reform", "spelling", "letters that fell away in 1990: acção, idéia", written.reform),
        (settings.case == "lower", "case", "lower case", _lower),
        (settings.case == "upper", "case", "upper case", _upper),
        (settings.hyphens == "split", "hyphens", "hyphens within words to spaces", _split_hyphens),
    )
    return tuple(Step(name=name, does=does, apply=apply) for taken, name, does, apply in every if taken)


_FORMS = {
    **dict.fromkeys(map(ord, "“”„‟«»‹›〝〞＂"), '"'),
    **dict.fromkeys(map(ord, "’‘ʼ′`´＇"), "'"),
    **dict.fromkeys(map(ord, "‐‑−－"), "-"),
    **dict.fromkeys(map(ord, "—―‒"), "–"),
    ord("_"): " ",
}
_TURKISH = str.maketrans({"İ": "I", "ı": "i", "\u0307": None})  # a change of case would make other letters of them
_DOT_OF_ORDINAL = re.compile(r"(?<=[0-9])\.(?=[ºª])")  # 21.º
_GROUPS_OF_ORDINAL = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:\.[0-9]{3})+(?=[ºª])")  # 1.000º
_DECIMAL_DEGREES = re.compile(r"([0-9][.,][0-9]++)[ºª]")  # 36,5º has no ordinal
_DEGREE_FOR_ORDINAL = re.compile(rf"(?<![0-9.,])([12]?[0-9]|3[01])°(?! ?[CF]{END})", re.IGNORECASE)  # a usual slip
_END_OF_ORDINAL = re.compile(rf"(?:(?<=[0-9]ª)|(?<=[0-9]º)(?![CF]{END}))(?=\w)", re.IGNORECASE)  # 1ºlugar


class _Seen(dict[int, str | None]):
    """What becomes of each character, worked out when it first appears: str.translate then runs in C."""

    def __init__(self, known: dict[int, str | None], of: Callable[[str], str | None]) -> None:
        super().__init__(known)
        self._of = of

    def __missing__(self, code: int) -> str | None:
        self[code] = sign = self._of(chr(code))
        return sign


def _without_unseen(char: str) -> str | None:
    category = unicodedata.category(char)
    if category == "Cf":  # zero-width joiners, soft hyphens
        return None
    return " " if category[0] in "CZ" else char


def _without_punctuation(char: str) -> str:
    return char if char in "'-" or unicodedata.category(char)[0] not in "PS" else " "


def _one_upper(char: str) -> str:
    """ß stays, as SS would not; so do combining marks, one of which has a letter for its upper case."""
    upper = char.upper()
    return char if len(upper) > 1 or unicodedata.category(char)[0] == "M" else upper


_SEEN = _Seen({**_FORMS}, _without_unseen)
_SPOKEN = _Seen({}, _without_punctuation)
_UPPER = _Seen({}, _one_upper)
_OUTER = re.compile(r"(?<!\w)['-]|['-](?!\w)")  # apostrophes and hyphens that join nothing


def _signs(text: str) -> str:
    text = unicodedata.normalize("NFC", text.translate(_SEEN))
    text = unicodedata.normalize("NFC", text.translate(_TURKISH))
    return _END_OF_ORDINAL.sub(" ", _DOT_OF_ORDINAL.sub("", " ".join(text.split())))


def _marks(text: str) -> str:
    text = _GROUPS_OF_ORDINAL.sub(lambda match: match[0].replace(".", ""), text)
    text = _DEGREE_FOR_ORDINAL.sub(r"\1º", _DECIMAL_DEGREES.sub(r"\1°", text))
    return _END_OF_ORDINAL.sub(" ", text)


def _drop_punctuation(text: str) -> str:
    return _OUTER.sub(" ", text.translate(_SPOKEN))


def _split_hyphens(text: str) -> str:
    return re.sub(r"(?<=\w)-(?=\w)", " ", text)


def _lower(text: str) -> str:
    return unicodedata.normalize("NFC", text.lower())


def _upper(text: str) -> str:
    return unicodedata.normalize("NFC", text.translate(_UPPER))

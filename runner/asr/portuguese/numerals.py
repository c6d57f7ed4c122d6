"""Portuguese numerals: cardinals, ordinals, decimals and single digits in words.

Rules after Cunha & Cintra, Nova Gramática do Português Contemporâneo, chapter on numerals: `e` joins hundreds, tens and
units; between the members of a large number it stands only before the last one, and only when that is at most a
hundred or whole hundreds (`mil e cem`, `mil duzentos e um`). Brazil counts milhão, bilhão, trilhão; Portugal milhão,
mil milhões, bilião. Both spellings of 14 are right in Brazil; `catorze` is written for both variants.
"""

from __future__ import annotations

from typing import Literal

Language = Literal["pt-BR", "pt-PT"]

MOST_DIGITS = 15  # a longer row of digits is no quantity: it is read digit by digit

_ONES = ("zero", "um", "dois", "três", "quatro", "cinco", "seis", "sete", "oito", "nove", "dez")
_TEENS = {
    "pt-BR": ("onze", "doze", "treze", "catorze", "quinze", "dezesseis", "dezessete", "dezoito", "dezenove"),
    "pt-PT": ("onze", "doze", "treze", "catorze", "quinze", "dezasseis", "dezassete", "dezoito", "dezanove"),
}
_TENS = ("", "", "vinte", "trinta", "quarenta", "cinquenta", "sessenta", "setenta", "oitenta", "noventa")
_HUNDREDS = (
    *("", "cento", "duzentos", "trezentos", "quatrocentos"),
    *("quinhentos", "seiscentos", "setecentos", "oitocentos", "novecentos"),
)
_FEMININE = {"um": "uma", "dois": "duas"}
_SCALES = {
    "pt-BR": ((10**12, "trilhão", "trilhões"), (10**9, "bilhão", "bilhões"), (10**6, "milhão", "milhões")),
    "pt-PT": ((10**12, "bilião", "biliões"), (10**6, "milhão", "milhões")),
}

_ORDINAL_ONES = (
    *("", "primeiro", "segundo", "terceiro", "quarto"),
    *("quinto", "sexto", "sétimo", "oitavo", "nono"),
)
_ORDINAL_TENS = (
    *("", "décimo", "vigésimo", "trigésimo", "quadragésimo"),
    *("quinquagésimo", "sexagésimo", "septuagésimo", "octogésimo", "nonagésimo"),
)
_ORDINAL_HUNDREDS = (
    *("", "centésimo", "ducentésimo", "tricentésimo", "quadringentésimo"),
    *("quingentésimo", "sexcentésimo", "septingentésimo", "octingentésimo", "nongentésimo"),
)
LAST_ORDINAL = 1999  # above, grammars disagree and people use the cardinal


def cardinal(number: int, *, language: Language, feminine: bool = False) -> str:
    """`1101` to `mil cento e um`. ``number`` from 0 to 10^15 - 1; milhões and above stay masculine."""
    assert 0 <= number < 10**MOST_DIGITS, "beyond the largest scale"
    if number == 0:
        return _ONES[0]
    parts: list[tuple[int, str]] = []
    for size, one, many in _SCALES[language]:
        count, number = divmod(number, size)
        if count:
            parts.append((count, f"{cardinal(count, language=language)} {one if count == 1 else many}"))
    thousands, number = divmod(number, 1000)
    if thousands == 1:
        parts.append((1, "mil"))
    elif thousands:
        parts.append((thousands, f"{_below_thousand(thousands, language, feminine=feminine)} mil"))
    if number:
        parts.append((number, _below_thousand(number, language, feminine=feminine)))
    *head, (count, last) = parts
    joined = f"e {last}" if head and (count <= 100 or (count < 1000 and count % 100 == 0)) else last
    return " ".join([*(words for _, words in head), joined])


def _below_thousand(number: int, language: Language, *, feminine: bool) -> str:
    if number == 100:
        return "cem"
    hundreds, rest = divmod(number, 100)
    words = [_HUNDREDS[hundreds]] if hundreds else []
    if feminine and hundreds > 1:
        words = [words[0].removesuffix("os") + "as"]
    if 10 < rest < 20:
        words.append(_TEENS[language][rest - 11])
    elif rest == 10:
        words.append(_ONES[10])
    else:
        tens, ones = divmod(rest, 10)
        words += [_TENS[tens]] if tens else []
        words += [_FEMININE.get(_ONES[ones], _ONES[ones]) if feminine else _ONES[ones]] if ones else []
    return " e ".join(words)


def ordinal(number: int, *, feminine: bool = False) -> str | None:
    """`21` to `vigésimo primeiro`; None for 0 and above ``LAST_ORDINAL``. The same words in both variants."""
    if not 0 < number <= LAST_ORDINAL:
        return None
    words = [
        "milésimo" if number >= 1000 else "",
        _ORDINAL_HUNDREDS[number // 100 % 10],
        _ORDINAL_TENS[number // 10 % 10],
        _ORDINAL_ONES[number % 10],
    ]
    return " ".join(word[:-1] + "a" if feminine else word for word in words if word)


def whole(digits: str, *, language: Language, feminine: bool = False) -> str:
    """A row of digits as a number; one by one where it begins with 0 or has more than ``MOST_DIGITS``."""
    if len(digits) > MOST_DIGITS or (digits.startswith("0") and len(digits) > 1):
        return one_by_one(digits)
    return cardinal(int(digits), language=language, feminine=feminine)


def fraction(digits: str, *, language: Language) -> str:
    """What stands behind a decimal comma: up to two digits as a number (`cinquenta`, `zero cinco`), more one by one."""
    return whole(digits, language=language) if len(digits) <= 2 else one_by_one(digits)


def one_by_one(digits: str) -> str:
    """`007` to `zero zero sete`."""
    return " ".join(_ONES[int(digit)] for digit in digits)

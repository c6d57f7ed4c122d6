"""Digits in running text to the words that a reader says: dates, times, money, percent, units, plain numbers.

A point or a space groups thousands, a comma begins decimals. A number is masculine
(`um`, `dois`, `duzentos`) unless its noun follows and is known to be feminine (`2 horas`, `200 mil pessoas`). A time is
read in full: `14h30` is `catorze horas e trinta minutos`. A hyphen between numbers (`10-20`) is not read. Phone
numbers, scores and fractions are read as the numbers that stand there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from runner.asr.portuguese import numerals
from runner.asr.portuguese.matching import END, START, put
from runner.asr.portuguese.numerals import Language

_GROUPED = r"[1-9][0-9]{0,2}(?:\.[0-9]{3})++(?!\.?[0-9])"
_SPACED = (  # three groups of three digits are a phone number
    r"(?<![0-9])(?<![0-9] )(?:[1-9][0-9]?(?: [0-9]{3})++|[1-9][0-9]{2} [0-9]{3})(?! ?[0-9])"
)
_DOTTED = r"[0-9]++(?:\.[0-9]++)*+"
_SCALE = "(?: (?P<scale>mil|(?:mi|bi|tri)lh(?:ão|ões)|bili(?:ão|ões)))?" + END
_MINUS = r"(?P<minus>(?<![^\s(])[-–])?"
_DATE = r"(?<![0-9/])(?P<day>0?[1-9]|[12][0-9]|3[01])/(?P<month>0?[1-9]|1[0-2])/(?P<year>[0-9]{4})(?![0-9/])"
_MONTHS = (
    *("janeiro", "fevereiro", "março", "abril", "maio", "junho"),
    *("julho", "agosto", "setembro", "outubro", "novembro", "dezembro"),
)
_CURRENCIES = {  # (one, many, its hundredths)
    "R$": ("real", "reais", "centavo"),
    "€": ("euro", "euros", "cêntimo"),
    "US$": ("dólar", "dólares", "cêntimo"),
    "$": ("dólar", "dólares", "cêntimo"),
}
_UNITS = {  # (one, many); {} is where the variants differ
    "km/h": ("quil{}metro por hora", "quil{}metros por hora"),
    "km²": ("quil{}metro quadrado", "quil{}metros quadrados"),
    "km2": ("quil{}metro quadrado", "quil{}metros quadrados"),
    "km": ("quil{}metro", "quil{}metros"),
    "m²": ("metro quadrado", "metros quadrados"),
    "m2": ("metro quadrado", "metros quadrados"),
    "m³": ("metro cúbico", "metros cúbicos"),
    "cm": ("centímetro", "centímetros"),
    "mm": ("milímetro", "milímetros"),
    "m": ("metro", "metros"),
    "kg": ("quilo", "quilos"),
    "mg": ("miligrama", "miligramas"),
    "g": ("grama", "gramas"),
    "ml": ("mililitro", "mililitros"),
    "l": ("litro", "litros"),
    "min": ("minuto", "minutos"),
    "°C": ("grau celsius", "graus celsius"),
    "° C": ("grau celsius", "graus celsius"),
    "ºC": ("grau celsius", "graus celsius"),
    "°F": ("grau fahrenheit", "graus fahrenheit"),
    "ºF": ("grau fahrenheit", "graus fahrenheit"),
    "°": ("grau", "graus"),
}
# as they are written; a single letter in lower case only, as `5 M` are no metres
_FORMS = {
    form: names
    for unit, names in _UNITS.items()
    for form in ((unit,) if len(unit) == 1 else (unit, unit.capitalize(), unit.upper()))
}
_FEMININE = """
    água aldeia aluna amiga árvore aula avenida batalha bola cadeira caixa câmara camada canção carta casa
    centena chave chuva cidade coisa colher companhia copa cor criança década derrota dezena dose empresa
    equipa equipe escola espécie estrada estrela face faixa família fase fatia filha flor folha folga foto garrafa
    gota guerra história hora ideia igreja ilha irmã janela libra língua linha lista loja maçã mãe maneira manhã mão
    máquina medalha menina mesa milha moeda moradia morte mulher música noite nota obra página palavra parcela parede
    parte peça pedra perna pessoa ponte porta praia prova quadra quinzena região reunião rodada rua sala semana
    série sessão sílaba tarde temporada testemunha tonelada turma unidade universidade vaca vaga venda vez via viagem
    vida vila visita vítima vitória volta voz
"""
_FEMININE_NOUNS = frozenset(_FEMININE.split())
_PLURALS = (("ões", "ão"), ("ães", "ãe"), ("ãos", "ão"), ("ens", "em"), ("zes", "z"), ("res", "r"), ("s", ""))
_NOUN = re.compile(r"\s*+(?:mil\s++)?([^\W\d_]++)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Amount:
    """A number as it stands in a text: `-1.234,50` is minus, `1.234`, `50`."""

    whole: str
    part: str  # behind the comma; "" without one
    minus: bool = False

    @property
    def is_one(self) -> bool:
        return self.whole == "1" and not self.part

    @property
    def whole_millions(self) -> bool:
        """Whether `de` stands before the noun: `dois milhões de reais`."""
        digits = re.sub("[. ]", "", self.whole)
        return not self.part and len(digits) <= numerals.MOST_DIGITS and int(digits) % 10**6 == 0 < int(digits)


def reader(language: Language) -> Callable[[str], str]:
    """The step that leaves no digit but those of ordinals (`1º`)."""
    whole = rf"(?P<whole>{_SPACED}|{_GROUPED}|{_DOTTED})"
    number = whole + r"(?:,(?P<part>[0-9]++))?"
    units = "|".join(map(re.escape, sorted(_FORMS, key=len, reverse=True)))
    sign = r"(?P<sign>R\$|US\$|\$|€)"
    readers = [
        (_DATE, _date),
        (rf"(?<![0-9.,:])(?P<h>[0-9]{{1,3}}) ?h(?:rs?|s)?(?: ?(?P<m>[0-5][0-9])(?: ?m(?:in)?)?)?{END}", _time),
        (r"(?<![0-9.,:])(?P<h>[01]?[0-9]|2[0-4]):(?P<m>[0-5][0-9])(?::(?P<s>[0-5][0-9]))?(?![0-9:])", _time),
        (rf"{_MINUS}(?<![0-9]){START}{sign} ?(?P<inner>[-–])?{number}{_SCALE}", _money),
        (rf"(?<![0-9])(?<![0-9][.,]){_MINUS}{number}{_SCALE} ?(?P<sign>€)(?P<cents>[0-9]{{2}}(?![0-9]))?", _money),
        (rf"{_MINUS}{number}(?: ?(?P<unit>(?-i:{units})){END}| ?(?P<rate>[%‰])|(?![ºª]))", _number),
    ]
    compiled = [
        (re.compile(rf"(?:(?<=\w)[-–])?(?:{pattern})(?:[-–](?=\w))?", re.IGNORECASE), partial(_put, read, language))
        for pattern, read in readers
    ]

    def read_all(text: str) -> str:
        if not any("0" <= char <= "9" for char in text):
            return text
        for pattern, spoken in compiled:
            text = pattern.sub(spoken, text)
        return text

    return read_all


def _put(read: Callable[[re.Match[str], Language], str], language: Language, match: re.Match[str]) -> str:
    return put(match, read(match, language))


def _date(match: re.Match[str], language: Language) -> str:
    day = match["day"].lstrip("0")
    first = "primeiro" if day == "1" and language == "pt-BR" else numerals.whole(day, language=language)
    return f"{first} de {_MONTHS[int(match['month']) - 1]} de {numerals.whole(match['year'], language=language)}"


def _time(match: re.Match[str], language: Language) -> str:
    found = match.groupdict()
    parts = [_counted(int(found["h"]), "hora", language, feminine=True)]
    parts += [_counted(int(found["m"]), "minuto", language)] if int(found["m"] or 0) else []
    parts += [_counted(int(found["s"]), "segundo", language)] if int(found.get("s") or 0) else []
    return " e ".join(parts)


def _money(match: re.Match[str], language: Language) -> str:
    one, many, hundredth = _CURRENCIES[match["sign"].upper()]
    hundredth = "centavo" if language == "pt-BR" else hundredth
    found = match.groupdict()
    minus = bool(found["minus"] or found.get("inner"))
    amount = Amount(whole=match["whole"], part=found["part"] or found.get("cents") or "", minus=minus)
    scale = found["scale"]
    if scale:
        return f"{_words(amount, language)} {scale} {'' if scale.lower() == 'mil' else 'de '}{many}"
    if not 0 < len(amount.part) <= 2:
        between = "de " if amount.whole_millions else ""
        return f"{_words(amount, language)} {between}{one if amount.is_one else many}"
    hundredths = int(amount.part.ljust(2, "0"))
    units = Amount(whole=amount.whole, part="")
    parts = [f"{_words(units, language)} {'de ' if units.whole_millions else ''}{one if units.is_one else many}"]
    if hundredths:
        parts = [*(parts if units.whole.strip("0") else []), _counted(hundredths, hundredth, language)]
    return ("menos " if minus else "") + " e ".join(parts)


def _number(match: re.Match[str], language: Language) -> str:
    amount = Amount(whole=match["whole"], part=match["part"] or "", minus=bool(match["minus"]))
    if match["rate"]:
        return f"{_words(amount, language)} por {'cento' if match['rate'] == '%' else 'mil'}"
    if match["unit"]:
        name = _FORMS[match["unit"]][0 if amount.is_one else 1].format("ô" if language == "pt-BR" else "ó")
        return f"{_words(amount, language)} {name}"
    noun = _NOUN.match(match.string, match.end())
    return _words(amount, language, feminine=noun is not None and _is_feminine(noun[1].lower()))


def _words(amount: Amount, language: Language, *, feminine: bool = False) -> str:
    pieces = amount.whole.split(".")
    if len(pieces) == 1 or re.fullmatch(_GROUPED, amount.whole):
        words = numerals.whole(re.sub("[. ]", "", amount.whole), language=language, feminine=feminine)
    elif len(pieces) == 2:
        words = (
            f"{numerals.whole(pieces[0], language=language)} ponto {numerals.fraction(pieces[1], language=language)}"
        )
    else:
        words = " ponto ".join(numerals.whole(piece, language=language) for piece in pieces)
    behind = f" vírgula {numerals.fraction(amount.part, language=language)}" if amount.part else ""
    return ("menos " if amount.minus else "") + words + behind


def _counted(count: int, noun: str, language: Language, *, feminine: bool = False) -> str:
    words = numerals.cardinal(count, language=language, feminine=feminine)
    return f"{words} {noun if count == 1 else noun + 's'}"


def _is_feminine(noun: str) -> bool:
    if noun in _FEMININE_NOUNS:
        return True
    return any(noun.endswith(many) and noun.removesuffix(many) + one in _FEMININE_NOUNS for many, one in _PLURALS)

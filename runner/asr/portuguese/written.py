"""What writing shortens or spells otherwise: abbreviations, ordinals, hesitations, the spelling before 1990."""

from __future__ import annotations

import re

from runner.asr.portuguese import numerals
from runner.asr.portuguese.matching import END, START, put
from runner.asr.portuguese.numerals import Language

# Left out are those that end sentences as words (`mar.`, `apto.`) or stand for several (`S.`, `D.`, `R.`, `Cap.`).
_ABBREVIATIONS = (  # (regular expression, what is said)
    (r"sr\.", "senhor"),
    (r"s(?:r\.?ª|ra\.)", "senhora"),
    (r"srs\.", "senhores"),
    (r"s(?:r\.?ªs|ras\.)", "senhoras"),
    (r"sr(?:\.?tª|ta\.)", "senhorita"),
    (r"dr\.", "doutor"),
    (r"d(?:r\.?ª|ra\.)", "doutora"),
    (r"drs\.", "doutores"),
    (r"dras\.", "doutoras"),
    (r"prof(?:\.?º|\.)", "professor"),
    (r"prof(?:\.?ª|a\.)", "professora"),
    (r"profs\.", "professores"),
    (r"eng(?:\.?º|o?\.)", "engenheiro"),
    (r"eng(?:\.?ª|a\.)", "engenheira"),
    (r"arq(?:\.?º|o?\.)", "arquiteto"),
    (r"arq(?:\.?ª|a\.)", "arquiteta"),
    (r"exm(?:\.?º|o\.)", "excelentíssimo"),
    (r"exm(?:\.?ª|a\.)", "excelentíssima"),
    (r"v\. ?ex(?:\.?ª|a\.)", "vossa excelência"),
    (r"sto\.", "santo"),
    (r"sta\.", "santa"),
    (r"gov\.", "governador"),
    (r"dep\.", "deputado"),
    (r"sen\.", "senador"),
    (r"pres\.", "presidente"),
    (r"gen\.", "general"),
    (r"cel\.", "coronel"),
    (r"sgt\.", "sargento"),
    (r"jr\.", "júnior"),
    (r"av\.", "avenida"),
    (r"pça\.", "praça"),
    (r"trav\.", "travessa"),
    (r"rod\.", "rodovia"),
    (r"vol\.", "volume"),
    (r"tel\.", "telefone"),
    (r"séc\.", "século"),
    (r"sécs\.", "séculos"),
    (r"p(?:or|\.) ?ex\.", "por exemplo"),
    (r"etc\.", "et cetera"),
    (r"l(?:t?da)\.", "limitada"),
    (r"obs\.", "observação"),
    (r"(?<=[0-9ivx] )a\. ?c\.", "antes de cristo"),
    (r"(?<=[0-9ivx] )d\. ?c\.", "depois de cristo"),
)
_BEFORE_NUMBERS = (
    ("ap", "apartamento"),
    ("apt", "apartamento"),
    ("apto", "apartamento"),
    ("art", "artigo"),
    ("arts", "artigos"),
    ("cap", "capítulo"),
    ("n", "número"),
    ("p", "página"),
    ("pág", "página"),
    ("pp", "páginas"),
    ("págs", "páginas"),
)
_SAID = (
    *((f"{written}{END}", said) for written, said in _ABBREVIATIONS),
    *((rf"{written}\.(?= ?[0-9])", said) for written, said in _BEFORE_NUMBERS),
    (rf"n\.?[º°]{END}", "número"),
    (r"(?<= )&(?= )", "e"),
)
_ONE_OF = "|".join(f"(?P<s{place}>{written})" for place, (written, _) in enumerate(_SAID))
_SHORT = re.compile(f"{START}(?:{_ONE_OF})", re.IGNORECASE)
_SIGNS_OF_SHORT = re.compile("[.ªº°&]")  # most transcripts have none of them, and the search takes 2 us a letter

_ROMAN_TENS, _ROMAN_ONES = ("", "x", "xx", "xxx"), ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")
_ROMANS = {tens + ones: 10 * i + j for i, tens in enumerate(_ROMAN_TENS) for j, ones in enumerate(_ROMAN_ONES)}
_ROMAN = rf"{START}[ivx]+{END}(?![\u0300-\u036f])"
_CENTURIES = re.compile(rf"{START}séculos?(?:\W+(?:(?:e|a|ao)\W+)?{_ROMAN})+", re.IGNORECASE)
_ROMAN_WORD = re.compile(_ROMAN, re.IGNORECASE)
_ORDINAL = re.compile(
    rf"(?<![0-9])(?P<digits>[0-9]++)(?P<mark>ª|º(?![CF]{END}))(?P<day>(?=[\s-]*feira))?", re.IGNORECASE
)

# Sounds of thinking only: `é`, `ah`, `né` and `aham` are words.
_FILLER = re.compile(
    rf"{START}(?:h+ã+n*|ã+h*n*|a+h+n+|h+u+m+|u+h+m*|h+m+|e+h+m*|é{{2,}}h*){END}(?: ?,)?", re.IGNORECASE
)

# The Orthographic Agreement of 1990, where both variants now write the same: letters that fell away. Words whose
# letter is said in one of them (facto, recepção, aspecto, secção) stay.
_MUTE = re.compile(
    "|".join(
        (
            r"(?<!fa)(?<=a)c(?=ç)",  # acção, reacções, fracção; not facção
            r"(?<=[oe]le)c(?=ç|c[ie]|t[aioáó])",  # colecção, coleccionar, selectivo
            r"(?<=[ob]je)c(?=ç|c[ie]|t[aeioáó])",  # objecto, projecção, subjectivo
            r"(?<=[do]ire)c(?=ç|c[ie]|t[aeioáó])",  # direcção, director, indirecto
            r"(?<=orre)c(?=ç|c[ie]|t[aeioáó])",  # correcção, incorrecto
            r"(?<=rote)c(?=ç|c[ie]|t[aeioáó])",  # protecção, protector
            r"(?<=nspe)c(?=t)",  # inspector
            r"(?<=rquite)c(?=t)",  # arquitecto
            r"(?<=\bel[eé])c(?=tr)",  # eléctrico, electrónico
            r"(?<=\bexa)c(?=t[aio])",  # exacto
            r"(?<=\ba)c(?=t(?!in)[aeiouáéíóúr])",  # acto, actual, actriz; not actínio
            r"(?<=\brea)c(?=t[aio])",  # reactor
            r"(?<=tera)c(?=t[aiou])",  # interactivo
            r"(?<=bstra)c(?=t)",  # abstracto
            r"(?<=\btra)c(?=tor)",
            r"(?<=\bfra)c(?=tur)",
            r"(?<=\bfa)c(?=t[ou]r)",  # factor, factura
            r"(?<=\b[ae]fe)c(?=t)",  # afectar, efectivo
            r"(?<=idá)c(?=tic)",  # didáctico
            r"(?<=\btá)c(?=tic)",
            r"(?<=\bno)c(?=turn)",
            r"(?<=\bja)c(?=tos?\b)",
            r"(?<=\bve)c(?=tor)",
            r"(?<=\bse)c(?=tor)",
            r"(?<=dete)c(?=tiv)",
            r"(?<=exce)p(?=t[ou])",  # excepto, exceptuar
            r"(?<=ado)p(?=[tç])",  # adoptar, adopção
            r"(?<=\b[oó])p(?=tim)",  # óptimo
            r"(?<=\bba)p(?=ti[sz])",
            r"(?<=\begi)p(?=to\b)",
        )
    ),
    re.IGNORECASE,
)
_BARE = re.compile(
    "|".join(
        (
            r"(?<=[gq])ü(?=[eéêií])",  # lingüiça, freqüente
            r"é(?=ias?\b)",  # idéia
            r"ó(?=ias?\b|ic[oa]s?\b)",  # jibóia, heróico
            r"ô(?=os?\b)",  # vôo
            r"ê(?=em\b)",  # crêem
        )
    ),
    re.IGNORECASE,
)
_PLAIN = dict(zip("üéóôêÜÉÓÔÊ", "ueooeUEOOE", strict=True))


def say_abbreviations(text: str) -> str:
    """`Dra. Ana, n.º 5` to `doutora Ana, número 5`."""
    if not _SIGNS_OF_SHORT.search(text):
        return text
    return _SHORT.sub(lambda match: put(match, _SAID[int((match.lastgroup or "s0")[1:])][1]), text)


def say_ordinals(text: str, *, language: Language) -> str:
    """`21º` to `vigésimo primeiro`, `3ª-feira` to `terça-feira`, `século XX` to `século vinte`."""
    text = _CENTURIES.sub(lambda match: _ROMAN_WORD.sub(lambda roman: _century(roman[0], language), match[0]), text)
    return _ORDINAL.sub(lambda match: put(match, _ordinal(match, language)), text)


def drop_fillers(text: str) -> str:
    """Hesitations go, and the comma behind them: `hum, não` to `não`."""
    return " ".join(_FILLER.sub(" ", text).split())


def reform(text: str) -> str:
    """`acção` to `ação`, `idéia` to `ideia`: the spelling that Brazil and Portugal share since 1990."""
    return _BARE.sub(lambda match: _PLAIN[match[0]], _MUTE.sub("", text))


def _century(roman: str, language: Language) -> str:
    """An ordinal up to the tenth, then a cardinal."""
    number = _ROMANS.get(roman.lower(), 0)
    if not number:
        return roman
    words = numerals.ordinal(number) if number <= 10 else None
    return words or numerals.cardinal(number, language=language)


def _ordinal(match: re.Match[str], language: Language) -> str:
    digits, feminine = match["digits"], match["mark"] == "ª"
    if match["day"] is not None and feminine and digits == "3":
        return "terça"
    number = int(digits) if len(digits) <= numerals.MOST_DIGITS else 0
    return numerals.ordinal(number, feminine=feminine) or numerals.whole(digits, language=language, feminine=feminine)

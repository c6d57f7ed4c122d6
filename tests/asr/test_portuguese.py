"""Portuguese as it is spoken: what grammar says, what a parser of its own reads back, and what holds for any text."""

from __future__ import annotations

import random
from itertools import product
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.asr.normalise import accent_sensitive
from runner.asr.portuguese import Settings, describe, normaliser, numerals
from tests.asr.portuguese_cases import cases

Language = Literal["pt-BR", "pt-PT"]
LANGUAGES: tuple[Language, Language] = ("pt-BR", "pt-PT")
SWITCHES = {
    "numbers": ("words", "keep"),
    "ordinals": ("words", "keep"),
    "abbreviations": ("words", "keep"),
    "hyphens": ("keep", "split"),
    "punctuation": ("drop", "keep"),
    "case": ("lower", "upper", "keep"),
    "fillers": ("keep", "drop"),
    "spelling": ("keep", "reform"),
}
EVERY = [
    Settings(language=language, **dict(zip(SWITCHES, values, strict=True)))  # type: ignore[arg-type]
    for language, values in product(LANGUAGES, product(*SWITCHES.values()))
]
# what the steps look for, whole and in pieces, so that they meet in ways that nobody writes
PIECES = st.sampled_from(
    [
        *"0123579.,:-–'/%ºª°€$ _hHmCeEvVxXiI&(\"éèü",
        *("R$", "US$", " h ", "min", "km", "mil", "milhões", "Sr.", "dra.", "nº", "n.º", "p. ex.", "pág. ", "a.C."),
        *("século ", "séculos", " XX", " e ", "feira", "hum", "ahn", "hã,", "acção", "idéia", "vôo", "director"),
        *(
            "\u0301",
            "\u0307",
            "\u200d",
            "\u00a0",
            "İ",
            "ß",
            "ŉ",
            "ſ",
            "ﬁ",
            "²",
            "½",
            "٣",
            "ǰ",
            "\u0345",
            "\ud800",
            "ı",
            "ºC",
            "°F",
        ),
        *("1.000", "10 000", "1º", "21.ª", "14h30", "12/05/2020", "-5", "3,5", "guarda-chuva"),
    ]
)
ODD = st.one_of(st.text(max_size=12), st.lists(PIECES, max_size=10).map("".join))


@pytest.mark.parametrize("language", LANGUAGES)
def test_grammar(language: Language) -> None:
    normalise = normaliser(Settings(language=language))
    table = cases(language)
    assert len({written for written, _ in table}) >= 150
    wrong = [(written, said, normalise(written)) for written, said in table if normalise(written) != said]
    assert not wrong


@settings(max_examples=500, deadline=None)
@given(text=ODD, chosen=st.sampled_from(EVERY))
def test_any_text_goes_in_and_a_normal_text_stays(text: str, chosen: Settings) -> None:
    normalise = normaliser(chosen)
    normal = normalise(text)
    assert normalise(normal) == normal
    assert normal == " ".join(normal.split())
    normal.encode()


@settings(max_examples=300, deadline=None)
@given(text=ODD, language=st.sampled_from(LANGUAGES))
def test_the_defaults_agree_with_the_convention_of_scores(text: str, language: Language) -> None:
    """So that a reference which a model was trained on is compared as it is, and no digit is left in it."""
    normal = normaliser(Settings(language=language))(text)
    assert accent_sensitive(normal) == normal
    assert not set(normal) & set("0123456789")


def read_back(words: str) -> int:
    """The number that cardinal words stand for; knows nothing of how they are made."""
    words_to_13 = "zero um dois três quatro cinco seis sete oito nove dez onze doze treze"
    units = {word: value for value, word in enumerate(words_to_13.split())}
    units |= {"catorze": 14, "quinze": 15, "dezesseis": 16, "dezasseis": 16, "dezessete": 17, "dezassete": 17}
    units |= {"dezoito": 18, "dezenove": 19, "dezanove": 19, "uma": 1, "duas": 2, "cem": 100, "cento": 100}
    words_of_tens = "vinte trinta quarenta cinquenta sessenta setenta oitenta noventa"
    units |= {word: 10 * (place + 2) for place, word in enumerate(words_of_tens.split())}
    stems = "duzent trezent quatrocent quinhent seiscent setecent oitocent novecent"
    units |= {stem + end: 100 * (place + 2) for place, stem in enumerate(stems.split()) for end in ("os", "as")}
    scales = {"milh": 10**6, "bilh": 10**9, "bili": 10**12, "trilh": 10**12}
    total = thousands = below = 0
    for word in words.split():
        scale = next((size for stem, size in scales.items() if word.startswith(stem)), None)
        if scale:
            total, thousands, below = total + (thousands + below) * scale, 0, 0
        elif word == "mil":
            thousands, below = (below or 1) * 1000, 0
        elif word != "e":
            below += units[word]
    return total + thousands + below


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("feminine", [False, True])
def test_numbers_read_back_are_the_same(language: Language, feminine: bool) -> None:
    pick = random.Random(7)
    large = [pick.randrange(10 ** pick.randint(4, 15)) for _ in range(1500)]
    round_ones = [digit * 10**zeros for digit in range(1, 10) for zeros in range(15)]
    for number in [*range(2200), *large, *round_ones, 10**12, 10**15 - 1]:
        assert read_back(numerals.cardinal(number, language=language, feminine=feminine)) == number


@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_in_a_text_read_back_are_the_same(language: Language) -> None:
    normalise = normaliser(Settings(language=language))
    pick = random.Random(8)
    for _ in range(300):
        number = pick.randrange(10 ** pick.randint(1, 12))
        assert read_back(normalise(str(number))) == number
        assert read_back(normalise(f"{number:,}".replace(",", "."))) == number
        assert (
            read_back(normalise(f"R$ {number}").replace(" de reais", "").removesuffix("reais").removesuffix("real"))
            == number
        )


def test_ordinals_differ_and_end_where_grammars_disagree() -> None:
    said = [numerals.ordinal(number) for number in range(1, numerals.LAST_ORDINAL + 1)]
    assert None not in said
    assert len(set(said)) == len(said)
    assert numerals.ordinal(0) is numerals.ordinal(numerals.LAST_ORDINAL + 1) is None


@pytest.mark.parametrize(
    ("switches", "text", "normal"),
    [
        ({"numbers": "keep"}, "O 1º de 20, R$ 3,50", "o primeiro de 20 r 3 50"),
        ({"ordinals": "keep"}, "O 1.º de 20, séc. XX", "o 1º de vinte século xx"),
        ({"abbreviations": "keep"}, "O Sr. João, pág. 3", "o sr joão pág três"),
        ({"hyphens": "split"}, "guarda-chuva, disse-me", "guarda chuva disse me"),
        ({"punctuation": "keep"}, "Sim, “2ª-feira” (às 14h)!", 'sim, "segunda-feira" (às catorze horas)!'),
        ({"case": "keep"}, "O Sr. João vê a TAP", "O senhor João vê a TAP"),
        ({"case": "upper"}, "O Sr. João tem 2 irmãs", "O SENHOR JOÃO TEM DUAS IRMÃS"),
        ({"fillers": "drop"}, "Hum, eu, hã, acho que ééé não é", "eu acho que não é"),
        ({"fillers": "keep"}, "Hum, não", "hum não"),
        ({"fillers": "drop"}, "um ah né é há", "um ah né é há"),
        ({"spelling": "reform"}, "A acção directa do Director", "a ação direta do diretor"),
        (
            {"spelling": "reform"},
            "facto facção pacto aspecto secção impacto",
            "facto facção pacto aspecto secção impacto",
        ),
        ({"spelling": "reform"}, "Óptimo vôo: idéia freqüente, heróico", "ótimo voo ideia frequente heroico"),
        ({"spelling": "reform"}, "papéis herói avô têm lêem", "papéis herói avô têm leem"),
        ({"spelling": "keep"}, "acção", "acção"),
    ],
)
def test_switches(switches: dict[str, str], text: str, normal: str) -> None:
    assert normaliser(Settings(**switches))(text) == normal  # type: ignore[arg-type]


def test_each_step_is_named_and_a_version_comes_first() -> None:
    assert [line.partition(":")[0] for line in describe(Settings())] == [
        *("portuguese/1 pt-BR", "signs", "abbreviations", "marks", "numbers", "ordinals", "punctuation", "case"),
    ]
    off = Settings(
        language="pt-PT", numbers="keep", ordinals="keep", abbreviations="keep", punctuation="keep", case="keep"
    )
    assert [line.partition(":")[0] for line in describe(off)] == ["portuguese/1 pt-PT", "signs", "marks"]
    on = Settings(hyphens="split", fillers="drop", spelling="reform")
    assert {"fillers", "hyphens", "spelling"} < {line.partition(":")[0] for line in describe(on)}


def test_long_rows_of_digits_and_of_anything_take_little_time() -> None:
    normalise = normaliser(Settings())
    assert normalise("1" * 20_000).split() == ["um"] * 20_000
    for piece in ("1.", "1,", "1 000 ", "1-", "R$ ", "h+", "século X e ", "'-", "(1"):
        normalise(piece * 5_000)

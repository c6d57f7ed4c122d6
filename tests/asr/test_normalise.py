"""The two conventions, word for word: a change here is a new version."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.asr.normalise import ACCENT_SENSITIVE, LEADERBOARD, accent_sensitive, leaderboard


@pytest.mark.parametrize(
    ("text", "accents", "plain"),
    [
        ("", "", ""),
        ("  ... ! ", "", ""),
        ("Olá, Mundo!", "olá mundo", "ola mundo"),
        ("O avô e a avó", "o avô e a avó", "o avo e a avo"),
        ("Disse-me: «Guarda-chuva»", "disse-me guarda-chuva", "disse me guarda chuva"),
        ("copo d’água", "copo d'água", "copo d agua"),
        ("'aspas' “duplas” -traço- fim-", "aspas duplas traço fim", "aspas duplas traco fim"),
        ("casa—bonita – Rio–Lisboa", "casa bonita rio lisboa", "casa bonita rio lisboa"),
        ("bem\u2011vindo", "bem-vindo", "bem vindo"),
        ("fim.Depois a_b", "fim depois a b", "fim depois a b"),
        ("R$ 3,50 e 22%", "r 3 50 e 22", "r 3 50 e 22"),
        ("1º e 2ª", "1º e 2ª", "1o e 2a"),
        ("[risos] sim (sic) <unk> não", "risos sim sic unk não", "sim nao"),
        ("cafe\u0301", "café", "cafe"),
        ("so\u00adletra\u200d", "soletra", "soletra"),
        ("Straße œuvre Łódź", "straße œuvre łódź", "strasse oeuvre lodz"),
        ("tab\tlinha\nnova\u00a0fixo", "tab linha nova fixo", "tab linha nova fixo"),
        ("İstanbul", "i\u0307stanbul", "istanbul"),
    ],
)
def test_conventions(text: str, accents: str, plain: str) -> None:
    assert accent_sensitive(text) == accents
    assert leaderboard(text) == plain


def test_versions() -> None:
    assert (str(ACCENT_SENSITIVE), str(LEADERBOARD)) == ("accent-sensitive/1", "leaderboard/1")


@pytest.mark.parametrize("convention", [ACCENT_SENSITIVE, LEADERBOARD], ids=str)
@given(text=st.text())
def test_any_text(convention: object, text: str) -> None:
    normal = convention.apply(text)  # type: ignore[attr-defined]
    assert normal == " ".join(normal.split())
    assert normal == convention.apply(f"  {text}\n")  # type: ignore[attr-defined]
    assert not any(unicodedata.category(char)[0] in "PSC" and char not in "'-" for char in normal)


@given(text=st.text(alphabet="aãçé' -.,—B"))
def test_normal_text_stays(text: str) -> None:
    assert accent_sensitive(accent_sensitive(text)) == accent_sensitive(text)
    assert leaderboard(leaderboard(text)) == leaderboard(text)
    assert leaderboard(accent_sensitive(text)) == leaderboard(text)

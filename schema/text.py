"""`text`: how a transcript is written before a model learns it, is aligned with it or is compared with it."""

from __future__ import annotations

from typing import Annotated, Literal

from runner.schema.block import Block
from runner.schema.marks import RESULT


class Text(Block):
    """Text normalisation for Portuguese, step by step; each step may be switched off."""

    language: Annotated[Literal["pt-BR", "pt-PT"], RESULT] = "pt-BR"
    """Whose words numbers become: `dezesseis`, `bilhão`, `quilômetro` or `dezasseis`, `mil milhões`, `quilómetro`."""

    numbers: Annotated[Literal["words", "keep"], RESULT] = "words"
    """`words` spells digits, dates, times, money, percent and units; without a known noun a number is masculine."""

    ordinals: Annotated[Literal["words", "keep"], RESULT] = "words"
    """`words` spells `1º`, `2ª` and `século XX`."""

    abbreviations: Annotated[Literal["words", "keep"], RESULT] = "words"
    """`words` writes `Sr.`, `Dra.`, `Av.`, `nº` and the like in full."""

    hyphens: Annotated[Literal["keep", "split"], RESULT] = "keep"
    """Hyphens within words (`guarda-chuva`, `disse-me`): `split` makes two words of one."""

    punctuation: Annotated[Literal["drop", "keep"], RESULT] = "drop"
    """`drop` makes spaces of punctuation and symbols, but for hyphens and apostrophes within words."""

    case: Annotated[Literal["lower", "upper", "keep"], RESULT] = "lower"
    """Case of the letters; a model can only write the letters of its vocabulary."""

    fillers: Annotated[Literal["keep", "drop"], RESULT] = "keep"
    """`drop` takes hesitations out (`hã`, `hum`, `ahn`): only where the audio is not to be written word for word."""

    spelling: Annotated[Literal["keep", "reform"], RESULT] = "keep"
    """`reform` writes `acção`, `director`, `idéia` as since 1990: `ação`, `diretor`, `ideia`."""

"""A small Portuguese grammar: subject, verb, object and perhaps an adjunct.

12 x 12 x 12 x 13 = 22,464 sentences over a closed vocabulary, in the model's own alphabet.
"""

import itertools
import random
import string

SUBJECTS = (
    "o cachorro", "a menina", "o médico", "minha avó", "meu avô", "o irmão",
    "a professora", "você", "josé", "a família", "o português", "ninguém",
)  # fmt: skip
VERBS = (
    "comprou", "encontrou", "perdeu", "vendeu", "guardou", "escondeu",
    "esqueceu", "lavou", "trouxe", "não viu", "contou", "dividiu",
)  # fmt: skip
OBJECTS = (
    "três maçãs", "o pão", "a chave", "duas canções", "o lápis", "um relógio",
    "o café", "os óculos", "dez limões", "a lâmpada", "uma história", "o açúcar",
)  # fmt: skip
ADJUNCTS = (
    "de manhã", "às seis horas", "no jardim", "hoje", "amanhã", "na escola",
    "sem pressa", "com alegria", "depois do almoço", "ontem à noite", "em silêncio", "na praia",
)  # fmt: skip

LETTERS = string.ascii_lowercase + "áâãàçéêíóôõú"
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "|")
VOCABULARY = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *sorted((*LETTERS, "'", "-"))))}
"""Token ids: `<pad>` is 0 and the CTC blank, `|` stands between words; 45 tokens in all."""

SEED = 20


def all_sentences() -> list[str]:
    """Every sentence of the grammar, in a fixed order."""
    parts = itertools.product(SUBJECTS, VERBS, OBJECTS, ("", *ADJUNCTS))
    return [" ".join(words).strip() for words in parts]


def split(*, train: int, held_out: int, seed: int = SEED) -> tuple[list[str], list[str]]:
    """Draw `train` and `held_out` sentences that never meet, half of them with an adjunct.

    The held-out list does not depend on `train`, so a larger training set leaks nothing.
    """
    generator = random.Random(seed)
    short = [text for text in all_sentences() if not text.endswith(ADJUNCTS)]
    long = [text for text in all_sentences() if text.endswith(ADJUNCTS)]
    generator.shuffle(short)
    generator.shuffle(long)
    mixed = [text for pair in zip(short, long, strict=False) for text in pair] + long[len(short) :]
    if train + held_out > len(mixed):
        raise ValueError(f"{train} + {held_out} sentences asked for, the grammar has {len(mixed)}.")
    return mixed[held_out : held_out + train], mixed[:held_out]

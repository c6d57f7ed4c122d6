"""What a job tells the decoder of the language: a model that is given or trained, and hotwords, as the model spells."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.asr.alphabet import Alphabet
from runner.asr.language import arpa
from runner.asr.language.fusion import Wording, model, spelled
from runner.asr.language.ngram import END, START, UNKNOWN, Perplexity, perplexity
from runner.asr.language.ngram_train import train
from runner.asr.normalise import accent_sensitive
from runner.context import Table
from runner.schema.errors import JobError

HELD_OUT = 20  # every 20th sentence is kept back to measure the perplexity, then used too
MOST_BYTES = 64_000_000  # of a text: about 11 million words, 3 GB of memory
SHOWN = 5  # words named in a message


@dataclass(frozen=True, kw_only=True)
class Text:
    """A text that a model was trained on."""

    sentences: int
    words: int
    held_out: Perplexity | None  # of every 20th sentence, by a model of the others


@dataclass(frozen=True, kw_only=True)
class Told:
    """What the decoder is told, and what the report says of it."""

    wording: Wording
    tables: tuple[Table, ...]
    metrics: dict[str, float | int | None]


def tell(wording: Wording, *, alphabet: Alphabet, trained: Text | None, references: Sequence[str]) -> Told:
    """Hold the language model, if there is one, against the acoustic one and against what was said."""
    if wording.lm is None:
        return Told(wording=wording, tables=(), metrics={})
    metrics: dict[str, float | int | None] = {"lm_order": model(wording.lm).order}
    if trained is not None:
        metrics |= {"text_sentences": trained.sentences, "text_words": trained.words}
        metrics["text_perplexity"] = trained.held_out.value if trained.held_out else None
    if references:
        found = perplexity(model(wording.lm), (written(text, alphabet).split() for text in references))
        metrics |= {"lm_perplexity": found.value, "lm_words": found.words, "lm_unknown_words": found.unknown}
    return Told(wording=wording, tables=(_checked(wording.lm, alphabet),), metrics=metrics)


def train_on(path: Path, *, order: int, alphabet: Alphabet, to: Path, say: Callable[[str], str] | None = None) -> Text:
    """Train a model on a text file, each line as ``say`` writes it, and write it to ``to``.

    Raises JobError (DataInvalid).
    """
    if path.stat().st_size > MOST_BYTES:
        raise JobError(
            f"data.text {path.name!r} has {path.stat().st_size / 1e6:.0f} MB, more than the {MOST_BYTES / 1e6:.0f} MB "
            "that this small trainer takes: train a model with a larger tool and give it as decode.lm",
            failure="DataInvalid",
        )
    lines = _lines(path, "data.text")
    sentences = [written(line, alphabet).split() for line in (map(say, lines) if say else lines)]
    sentences = [sentence for sentence in sentences if sentence]
    if not sentences:
        raise JobError(
            f"data.text {path.name!r} holds no words: one sentence a line, as it is spoken", failure="DataInvalid"
        )
    held_out = None
    if len(sentences) >= HELD_OUT:
        others = (sentence for at, sentence in enumerate(sentences) if (at + 1) % HELD_OUT)
        held_out = perplexity(train(others, order=order).model(), sentences[HELD_OUT - 1 :: HELD_OUT])
    trained = train(sentences, order=order)
    arpa.write(to, trained.words, trained.orders)
    return Text(sentences=len(sentences), words=sum(map(len, sentences)), held_out=held_out)


def hotwords(given: Sequence[str], file: Path | None, alphabet: Alphabet) -> tuple[str, ...]:
    """Hotwords of a list and a file, as the model writes them. Raises JobError when it cannot spell one."""
    everything = [*given, *(_lines(file, "decode.hotwords_file") if file else ())]
    found = {" ".join(written(phrase, alphabet).split()) for phrase in everything} - {""}
    wanted = {word for phrase in found for word in phrase.split()}
    lost = sorted(wanted - spelled(wanted, alphabet))
    if lost:
        raise JobError(
            f"the model has no symbols to spell the hotwords {_some(lost)}: write them as they are said, in letters of "
            "its alphabet, or leave them out",
            failure="DataInvalid",
        )
    return tuple(sorted(found))


def _checked(path: str, alphabet: Alphabet) -> Table:
    """What the report says of a language model. Raises JobError when the acoustic model can spell none of its words."""
    known = model(path)
    words = known.words.keys() - {UNKNOWN, START, END}
    possible = spelled(words, alphabet)
    if not possible:
        raise JobError(
            f"the acoustic model can spell none of the {len(words)} words of the language model, such as "
            f"{_some(sorted(words))}: its symbols are {_some(sorted(filter(None, alphabet.texts)), 60)}; mind the case",
            failure="DataInvalid",
        )
    rows = [(f"{order}-grams", count) for order, count in enumerate(known.sizes, start=1)]
    rows += [("words", len(words)), ("of these the model can spell", len(possible))]
    return Table(title="Language model", columns=("what", "count"), rows=list(rows))


def written(text: str, alphabet: Alphabet) -> str:
    """``text`` as the model would write it: words apart by spaces, no punctuation, its case."""
    plain = accent_sensitive(text)
    texts = "".join(alphabet.texts)
    return plain.upper() if not alphabet.lower and texts.isupper() else plain


def _lines(path: Path, field: str) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from file
    except (OSError, UnicodeDecodeError) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise JobError(f"{field} {path.name!r} cannot be read as UTF-8 text: {reason}", failure="DataInvalid") from None


def _some(words: Sequence[str], most: int = SHOWN) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(map(repr, words[:most])) + more

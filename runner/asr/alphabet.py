"""From a model folder's tokenizer files to what each output of a CTC head stands for.

Read straight from the JSON files, without transformers. Three shapes are known: the characters of wav2vec2, hubert,
wavlm, data2vec-audio and wav2vec2-bert (`vocab.json`); the same nested by language (MMS); and the pieces of
parakeet (`tokenizer.json`, where `▁` begins a word).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from runner.schema.errors import JobError

WORD_START = "▁"
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")
PHONEMES = "Wav2Vec2PhonemeCTCTokenizer"
NO_TEXT = frozenset({"<s>", "</s>", "<unk>", "<pad>", "[UNK]", "[PAD]"})  # whatever the files say of them


@dataclass(frozen=True, kw_only=True)
class Alphabet:
    """What each id of the CTC head stands for.

    The blank, `<s>`, `</s>`, `<unk>` and ids that no file names give no text. They still stand between two equal
    letters when repeats are collapsed, so `l <unk> l` is `ll`. An unknown is dropped rather than shown: a transcript
    is for people, and its low confidence tells of the gap.
    """

    texts: tuple[str, ...]  # by id: what it adds to a word; "" for an id that gives no text
    breaks: frozenset[int]  # ids before which a new word begins; one without text is a word delimiter
    blank: int
    lower: bool = False  # words are shown in lower case

    def __post_init__(self) -> None:
        assert 0 <= self.blank < len(self.texts), "the blank is no output of the head"
        assert not self.texts[self.blank], "the blank gives text"
        assert self.blank not in self.breaks, "the blank is a word delimiter"


def load(folder: str | Path, *, vocab_size: int, blank: int | None, language: str | None = None) -> Alphabet:
    """The alphabet of the model in ``folder``.

    ``vocab_size`` is the width of the CTC head and ``blank`` the config's ``pad_token_id``. ``language`` picks one
    vocabulary of a nested file (MMS: ISO 639-3, such as `por`); left out, the tokenizer's own ``target_lang``.
    Raises JobError (ModelInvalid) when files are missing, broken, or disagree with the config.
    """
    root = Path(folder)
    settings = _read(root / "tokenizer_config.json", required=False)
    if (root / "vocab.json").is_file():
        return _characters(root, settings, vocab_size=vocab_size, blank=blank, language=language)
    if (root / "tokenizer.json").is_file():
        return _pieces(root, settings, vocab_size=vocab_size, blank=blank)
    raise _invalid(f"{root} has no vocab.json and no tokenizer.json: a CTC model needs one of them to give text")


def exists(folder: str | Path) -> bool:
    """Whether the model in ``folder`` has files that ``load`` reads; one that was only pretrained has none."""
    return any((Path(folder) / name).is_file() for name in ("vocab.json", "tokenizer.json"))


def _characters(
    root: Path, settings: Mapping[str, Any], *, vocab_size: int, blank: int | None, language: str | None
) -> Alphabet:
    file = root / "vocab.json"
    ids = _ids(file, _one_language(file, _read(file), language or settings.get("target_lang")))
    added = {**_ids(file, _read(root / "added_tokens.json", required=False)), **_added(root, settings)}
    symbols = {id_: token for token, id_ in added.items() if id_ < vocab_size}  # MMS: may be another language's
    symbols |= {id_: token for token, id_ in ids.items()}
    special = _special(root, settings, defaults={"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>"})
    pad = special.pop("pad")
    blank = _checked_blank(file, blank, {**added, **ids}.get(pad), pad=pad, vocab_size=vocab_size)
    delimiter = _content(settings.get("word_delimiter_token") or "|")
    silent = {pad, *special.values(), *NO_TEXT} - {delimiter}
    apart = settings.get("tokenizer_class") == PHONEMES  # phonemes are written apart, each is a word

    def split(symbol: str) -> tuple[str, bool]:
        return ("", True) if symbol == delimiter or symbol.isspace() else (symbol, apart)

    lower = bool(settings.get("do_lower_case", False))
    return _spell(file, symbols, silent, split, blank=blank, vocab_size=vocab_size, lower=lower)


def _pieces(root: Path, settings: Mapping[str, Any], *, vocab_size: int, blank: int | None) -> Alphabet:
    file = root / "tokenizer.json"
    content = _read(file)
    try:
        vocabulary, entries = content["model"]["vocab"], content.get("added_tokens", [])
        if isinstance(vocabulary, list):  # unigram: [[piece, score], ...]
            vocabulary = {piece: id_ for id_, (piece, _) in enumerate(vocabulary)}
        added = _ids(file, {entry["content"]: entry["id"] for entry in entries})
        silent = {entry["content"] for entry in entries if entry.get("special")}
    except (KeyError, TypeError, ValueError) as exc:
        raise _invalid(f"{file} is no tokenizer file with model.vocab and added_tokens: {exc!r}") from exc
    vocabulary = _ids(file, vocabulary)
    if any(map(BYTE.fullmatch, vocabulary)):
        raise _invalid(f"{file} spells rare letters in bytes (<0x..>), which this runner does not read")
    special = _special(root, settings, defaults={"unk": "<unk>", "pad": "<pad>"})
    pad = special.pop("pad")
    blank = _checked_blank(file, blank, {**vocabulary, **added}.get(pad), pad=pad, vocab_size=vocab_size)
    silent |= {pad, *special.values(), *NO_TEXT}
    symbols = {id_: piece for piece, id_ in (*vocabulary.items(), *added.items())}

    def split(piece: str) -> tuple[str, bool]:
        return piece.replace(WORD_START, " ").strip(), piece.startswith(WORD_START)

    return _spell(file, symbols, silent, split, blank=blank, vocab_size=vocab_size)


def _spell(
    file: Path,
    symbols: Mapping[int, str],
    silent: Set[str],
    split: Callable[[str], tuple[str, bool]],
    *,
    blank: int,
    vocab_size: int,
    lower: bool = False,
) -> Alphabet:
    """``split`` says of a symbol what text it gives and whether a new word begins before it."""
    spoken = {id_: split(symbol) for id_, symbol in symbols.items() if symbol not in silent and id_ != blank}
    beyond = [symbols[id_] for id_ in sorted(spoken) if not 0 <= id_ < vocab_size]
    if beyond:
        raise _invalid(
            f"{file} names {beyond[0]!r}, for which the model has no output: there are {vocab_size}; "
            "the tokenizer belongs to another model, or its head was not resized"
        )
    hidden = symbols.get(blank)
    if hidden is not None and hidden not in silent:
        raise _invalid(f"{file} names {hidden!r} for id {blank}, which is the CTC blank: it belongs to another model")
    if not any(text for text, _ in spoken.values()):
        raise _invalid(f"{file} names no symbol that gives text: it belongs to another model")
    return Alphabet(
        texts=tuple(spoken.get(id_, ("", False))[0] for id_ in range(vocab_size)),
        breaks=frozenset(id_ for id_, (_, breaks) in spoken.items() if breaks),
        blank=blank,
        lower=lower,
    )


def _one_language(file: Path, vocabulary: Mapping[str, Any], language: str | None) -> Any:
    nested = [key for key, value in vocabulary.items() if isinstance(value, dict)]
    if not nested:
        return vocabulary
    if language in nested:
        return vocabulary[language]
    near = get_close_matches(language or "", nested, n=3, cutoff=0.3) or sorted(nested)[:8]
    raise _invalid(
        f"{file} has no vocabulary for language {language!r}: it has {len(nested)}, such as {', '.join(near)}; "
        "set model.adapter to one of them"
    )


def _checked_blank(file: Path, config: int | None, tokenizer: int | None, *, pad: str, vocab_size: int) -> int:
    """The blank's id, when config and tokenizer agree: with the wrong one the text is empty or rubbish."""
    if config is not None and tokenizer is not None and config != tokenizer:
        raise _invalid(
            f"the CTC blank is in doubt: {pad!r} has id {tokenizer} in {file}, config.json has pad_token_id {config}; "
            "correct the one that is wrong"
        )
    blank = config if config is not None else tokenizer
    if blank is None or not 0 <= blank < vocab_size:
        raise _invalid(
            f"no CTC blank: pad_token_id is {config} in config.json, {pad!r} has id {tokenizer} in {file}, and the "
            f"model has {vocab_size} outputs; set pad_token_id to the blank's id"
        )
    return blank


def _special(root: Path, settings: Mapping[str, Any], *, defaults: Mapping[str, str]) -> dict[str, str]:
    """Texts of the special tokens by role; the tokenizer's config goes before the older map file."""
    older = _read(root / "special_tokens_map.json", required=False)
    keys = {role: f"{role}_token" for role in defaults}
    return {role: _content(settings.get(key) or older.get(key) or defaults[role]) for role, key in keys.items()}


def _added(root: Path, settings: Mapping[str, Any]) -> dict[str, int]:
    try:
        entries = settings.get("added_tokens_decoder") or {}
        return {_content(entry): int(id_) for id_, entry in entries.items()}
    except (AttributeError, TypeError, ValueError) as exc:
        raise _invalid(
            f"{root / 'tokenizer_config.json'}: added_tokens_decoder must map ids to tokens: {exc!r}"
        ) from exc


def _ids(file: Path, vocabulary: Any) -> dict[str, int]:
    if not isinstance(vocabulary, dict) or not all(type(id_) is int for id_ in vocabulary.values()):
        raise _invalid(f"{file} must map each symbol to a whole number")
    return dict(vocabulary)


def _content(token: Any) -> str:
    return str(token.get("content", "") if isinstance(token, dict) else token)


def _read(file: Path, *, required: bool = True) -> dict[str, Any]:
    if not required and not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise _invalid(f"{file} cannot be read as JSON: {exc}") from exc
    if not isinstance(content, dict):
        raise _invalid(f"{file} must hold a JSON object, got {type(content).__name__}")
    return content


def _invalid(message: str) -> JobError:
    return JobError(message, failure="ModelInvalid")

"""A tokenizer learned from texts: byte-level BPE (Sennrich et al. 2016; bytes as in Radford et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from runner.llm.data.sample import Chat, Completion, Sample
from runner.llm.text.shipped import shipped
from runner.schema.errors import JobError

PAD, BEGIN, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"


def learn(texts: Iterable[str], *, size: int, special: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer of at most ``size`` entries with a ChatML template whose replies are marked.

    It has no token for a beginning; `<|im_end|>` ends a turn and a text, `<|endoftext|>` only pads, so that no loss
    leaves out an end. ``special`` are further tokens that are never split. Digits stand alone. The same texts give the
    same tokenizer, byte for byte. Texts too few for ``size`` give a smaller one. Raises JobError where ``size`` has no
    room for the bytes and the special tokens.
    """
    names = list(dict.fromkeys([PAD, BEGIN, END, *special]))
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=names,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    whole = (text.encode(errors="replace").decode() for text in texts)  # half characters are refused when encoded
    made.train_from_iterator(whole, trainer=trainer)
    if made.get_vocab_size() > size:
        raise JobError(
            f"a vocabulary of {size} entries is too small: 256 bytes and {len(names)} special tokens need "
            f"{made.get_vocab_size()}; set architecture.vocabulary to at least that",
            failure="DataInvalid",
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, pad_token=PAD)
    tokenizer.chat_template = shipped()["chatml"]
    return tokenizer


def texts(samples: Iterable[Sample]) -> Iterator[str]:
    """All that ``learn`` can learn from: what people wrote, without what a template puts around it."""
    for sample in samples:
        if isinstance(sample, Chat):
            yield from (message["content"] for message in sample.messages if message.get("content"))
        elif isinstance(sample, Completion):
            yield sample.prompt + sample.completion
        else:
            yield sample.text

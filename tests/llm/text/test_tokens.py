"""Samples as documents."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from runner.llm.data.sample import Chat, Completion, Text
from runner.llm.document import Document
from runner.llm.text import template
from runner.llm.text.tokens import Encoder
from runner.llm.text.vocabulary import learn
from runner.schema.errors import JobError

WORDS = ["Ping? Pong. Be brief. user system assistant tool <think> </think>\n", "olá, você está bem? 日本\n"] * 9


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return learn(iter(WORDS), size=330)


def encoder(tokenizer: PreTrainedTokenizerBase, **changes: Any) -> Encoder:
    chosen = template.choose(tokenizer, given=changes.pop("given", None), family="llama")
    return Encoder(tokenizer, chosen, **{"loss_on": "responses"} | changes)


def shown(tokenizer: PreTrainedTokenizerBase, document: Any) -> str:
    """What is learned between brackets."""
    assert isinstance(document, Document), document
    runs = groupby(zip(document.ids, document.learned, strict=True), key=lambda pair: bool(pair[1]))
    texts = [(learned, tokenizer.decode([token for token, _ in run])) for learned, run in runs]
    return "".join(f"[{text}]" if learned else text for learned, text in texts)


def ask(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def say(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def test_a_conversation_learns_each_reply_and_its_end(tokenizer: PreTrainedTokenizerBase) -> None:
    chat = Chat(place="a:1", messages=[ask("Ping?"), say("Pong."), ask("Ping?"), say("Olá.")])
    (document,) = encoder(tokenizer).encode([chat])
    assert shown(tokenizer, document) == (
        "<|im_start|>user\nPing?<|im_end|>\n<|im_start|>assistant\n[Pong.<|im_end|>]\n"
        "<|im_start|>user\nPing?<|im_end|>\n<|im_start|>assistant\n[Olá.<|im_end|>]\n"
    )
    (document,) = encoder(tokenizer, loss_on="all").encode([chat])
    assert isinstance(document, Document)
    assert not document.learned[0]
    assert document.learned[1:].all()


def test_a_completion_and_a_text_end_once(tokenizer: PreTrainedTokenizerBase) -> None:
    samples = [
        Completion(place="a:1", prompt="2 + 2 =", completion=" 4"),
        Completion(place="a:2", prompt="", completion="4<|im_end|>"),
        Text(place="a:3", text="Pong."),
    ]
    first, second, third = encoder(tokenizer).encode(samples)
    assert shown(tokenizer, first) == "2 + 2 =[ 4<|im_end|>]"
    assert shown(tokenizer, second) == "4[<|im_end|>]"
    assert third == (
        "a:3",
        "nothing to learn: plain text has no responses; set data.loss_on to all, or method to pretrain. "
        "It begins 'Pong.'",
    )
    (third,) = encoder(tokenizer, loss_on="all").encode(samples[2:])
    assert shown(tokenizer, third) == "Po[ng.<|im_end|>]"


def test_a_beginning_is_never_doubled(tokenizer: PreTrainedTokenizerBase) -> None:
    begins = learn(iter(WORDS), size=330, special=["<s>"])
    begins.bos_token = "<s>"
    begins.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <|im_end|>", special_tokens=[("<s>", 3), ("<|im_end|>", 2)]
    )
    begins.chat_template = "{{ bos_token }}" + str(tokenizer.chat_template)
    samples = [
        Text(place="a:1", text="Pong."),
        Text(place="a:2", text="<s>Pong."),
        Completion(place="a:3", prompt="<s>Ping?", completion="Pong."),
        Chat(place="a:4", messages=[ask("Ping?"), say("Pong.")]),
    ]
    documents = encoder(begins, loss_on="all").encode(samples)
    for document in documents:
        assert isinstance(document, Document)
        assert document.ids[0] == 3
        assert (document.ids == 3).sum() == 1
    assert shown(begins, documents[0]) == shown(begins, documents[1]) == "<s>[Pong.<|im_end|>]"
    assert shown(begins, encoder(begins).encode(samples)[2]) == "<s>Ping?[Pong.<|im_end|>]"


def test_the_token_that_ends_a_reply(tokenizer: PreTrainedTokenizerBase) -> None:
    other = learn(iter(WORDS), size=330)
    other.eos_token = "<|endoftext|>"  # as base models have it, whose replies are taught to end otherwise
    for made in (tokenizer, other):
        assert encoder(made).end() == made.convert_tokens_to_ids("<|im_end|>")
    plain = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    assert encoder(tokenizer, given=plain).end() is None
    assert encoder(tokenizer, given="{{ raise_exception('no') }}").end() is None
    assert Encoder(other, None, loss_on="all").end() == other.eos_token_id


def test_a_prompt_without_a_token_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    plain = Encoder(tokenizer, None, loss_on="all")
    assert plain.ask("Ping?") == tokenizer("Ping?")["input_ids"]
    with pytest.raises(JobError, match=r"evaluation\.prompts: '' is no token to this model") as caught:
        plain.ask("")
    assert caught.value.failure == "DataInvalid"


def test_order_is_kept_and_what_teaches_nothing_is_refused_with_a_look_at_it(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    samples = [
        Text(place="a:1", text="x"),
        Chat(place="a:2", messages=[ask("Ping?")]),
        Completion(place="a:3", prompt="x", completion=" "),
        Chat(place="a:5", messages=[ask("Ping?"), say("Pong.")]),
    ]
    _, only_asks, empty, good = encoder(tokenizer).encode(samples)
    assert only_asks == (
        "a:2",
        "nothing to learn: no token of it is the assistant's. It is '<|im_start|>user\\nPing?<|im_end|>\\n'",
    )
    assert empty == ("a:3", "empty text: the completion says nothing")
    assert isinstance(good, Document)
    assert good.place == "a:5"


def test_half_characters_and_nothing_at_all_have_a_reason(tokenizer: PreTrainedTokenizerBase) -> None:
    made = encoder(tokenizer, loss_on="all").encode(
        [
            Chat(place="a:1", messages=[ask("Ping? \ud83d"), say("Pong.")]),
            Text(place="a:2", text="\ud83d"),
            Text(place="a:3", text=""),
            Text(place="a:4", text="Pong."),
        ]
    )
    assert made[0] == ("a:1", "not text: '\\ud83d' at character 24 is half a character")
    assert made[1] == ("a:2", "not text: '\\ud83d' at character 1 is half a character")
    assert made[2] == ("a:3", "nothing to learn: it is too short. It is ''")
    assert isinstance(made[3], Document)


def test_calls_of_tools_are_learned_and_content_may_be_none(tokenizer: PreTrainedTokenizerBase) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": "é"}}}
    chat = Chat(
        place="a:1",
        messages=[
            {"role": "system", "content": "Be brief."},
            ask("Ping?"),
            say(None, tool_calls=[call]),
            {"role": "tool", "tool_call_id": "1", "content": "3"},
            say("Pong."),
        ],
        tools=[{"type": "function", "function": {"name": "f"}}],
    )
    (document,) = encoder(tokenizer).encode([chat])
    text = shown(tokenizer, document)
    assert text.startswith("<|im_start|>system\nBe brief.\n\n# Tools\n")
    assert '[<tool_call>\n{"name": "f", "arguments": {"a": "é"}}\n</tool_call><|im_end|>]\n<|im_start|>user\n' in text
    assert text.endswith("[Pong.<|im_end|>]\n")


def test_a_template_that_leaves_something_out_is_named(tokenizer: PreTrainedTokenizerBase) -> None:
    deaf = "{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    system = Chat(place="a:1", messages=[{"role": "system", "content": "Be brief."}, ask("Ping?"), say("Pong.")])
    tools = Chat(place="a:2", messages=[ask("Ping?"), say("Pong.")], tools=[{"type": "function"}])
    plain = Chat(place="a:3", messages=[ask("Ping?"), say("Pong.")])
    first, second, third, again = encoder(tokenizer, given=deaf).encode([system, tools, plain, system])
    left = "the chat template leaves out: {}; give data.template with one that writes that, or remove it"
    assert first == again == ("a:1", left.format("message 1, of role 'system'"))
    assert second == ("a:2", left.format("the tools"))
    assert shown(tokenizer, third) == "user: Ping?\n[assistant: Pong.\n]"


def spaced() -> PreTrainedTokenizerBase:
    """A tokenizer as of Llama 2: words begin with a sign for the space before them, unknown characters are bytes."""
    letters = sorted(set("".join(WORDS)) - {"日", "本", "\n", " "})
    names = ["<s>", "</s>", "▁", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "▁P", "on", "g."]
    made = Tokenizer(
        BPE(dict(zip(names, range(len(names)), strict=True)), [("▁", "P"), ("o", "n"), ("g", ".")], byte_fallback=True)
    )
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def test_tokenizers_that_move_spaces_learn_the_same_characters(tokenizer: PreTrainedTokenizerBase) -> None:
    older = (
        "{% for m in messages %}{{ '[A] ' + m.content + ' [B]' if m.role == 'user' else ' ' + m.content + eos_token }}"
        "{% endfor %}"
    )
    chat = Chat(place="a:1", messages=[ask("Ping?"), say("Pong. 日本 "), ask("Ping?"), say("Pong.")])
    trimmed = learn(iter(WORDS), size=330)
    trimmed.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    for made in (tokenizer, trimmed, spaced()):
        (document,) = encoder(made, given=older).encode([chat])
        assert isinstance(document, Document)
        runs = groupby(zip(document.ids, document.learned, strict=True), key=lambda pair: bool(pair[1]))
        texts = [made.decode([token for token, _ in run]) for learned, run in runs if learned]
        end = made.eos_token
        assert [text.strip() for text in texts] == [f"Pong. 日本 {end}", f"Pong.{end}"]


def test_what_a_conversation_or_a_slow_tokenizer_lacks() -> None:
    with pytest.raises(JobError, match="ByT5Tokenizer cannot tell which characters"):
        Encoder(ByT5Tokenizer(), None, loss_on="all")
    made = Encoder(learn(iter(WORDS), size=330), None, loss_on="all")
    chat = Chat(place="a:1", messages=[ask("Ping?"), say("Pong.")])
    assert made.encode([chat, Text(place="a:2", text="x")])[0] == (
        "a:1",
        "no chat template: a conversation needs one; set data.template to a file with one",
    )
    assert made.encode([]) == []

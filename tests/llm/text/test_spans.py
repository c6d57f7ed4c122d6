"""What the assistant writes, found in three ways."""

from __future__ import annotations

from typing import Any

import pytest

from runner.llm.data.sample import BrokenSampleError, Chat
from runner.llm.document import Document
from runner.llm.text import shipped, spans
from runner.llm.text.render import Rendered
from runner.llm.text.tokens import Encoder
from tests.llm.text.chats import (
    MULTI,
    THOUGHT,
    TOLD,
    TOOLS,
    TWO_CALLS,
    WITH_CALLS,
    XML,
    ask,
    chosen,
    learned,
    published,
    say,
    tokenizer,
)


@pytest.mark.parametrize(
    ("name", "family", "twin", "messages", "replies"),
    [
        ("qwen2_5", "qwen2", "qwen2_5", MULTI, [" A1<|im_end|>", "A2\n<|im_end|>"]),
        ("qwen2_5", "qwen2", "qwen2_5", TOLD, [" A1<|im_end|>", "A2\n<|im_end|>"]),
        ("qwen2_5", "qwen2", "qwen2_5", WITH_CALLS, [f"{XML}<|im_end|>", "A<|im_end|>"]),
        ("qwen2_5", "qwen2", "qwen2_5", TWO_CALLS, [f"hm\n{XML}\n{XML}<|im_end|>", "A<|im_end|>", "B<|im_end|>"]),
        ("qwen3_instruct_2507", "qwen3", "chatml", TOLD, [" A1<|im_end|>", "A2\n<|im_end|>"]),
        ("qwen3_instruct_2507", "qwen3", "chatml", WITH_CALLS, [f"{XML}<|im_end|>", "A<|im_end|>"]),
        (
            "qwen3_instruct_2507",
            "qwen3",
            "chatml",
            TWO_CALLS,
            [f"hm\n{XML}\n{XML}<|im_end|>", "A<|im_end|>", "B<|im_end|>"],
        ),
        ("qwen3", "qwen3", "qwen3", MULTI, [" A1<|im_end|>", "<think>\n\n</think>\n\nA2\n<|im_end|>"]),
        ("qwen3", "qwen3-moe", "qwen3", TOLD, [" A1<|im_end|>", "<think>\n\n</think>\n\nA2\n<|im_end|>"]),
        ("qwen3", "qwen3", "qwen3", WITH_CALLS, [f"{XML}<|im_end|>", "<think>\n\n</think>\n\nA<|im_end|>"]),
        ("qwen3", "qwen3", "qwen3", THOUGHT[:2], ["<think>\nR\n</think>\n\nA<|im_end|>"]),
        ("llama3", "llama", "llama3", TOLD, ["A1<|eot_id|>", "A2<|eot_id|>"]),
        ("llama3_1", "llama", "llama3_1", MULTI, ["A1<|eot_id|>", "A2<|eot_id|>"]),
        ("llama3_2", "llama", "llama3_1", TOLD, ["A1<|eot_id|>", "A2<|eot_id|>"]),
        (
            *("llama3_2", "llama", "llama3_1", WITH_CALLS),
            ['{"name": "f", "parameters": {"a": "é"}}<|eot_id|>', "A<|eot_id|>"],
        ),
        ("gemma", "gemma2", "gemma", MULTI, ["A1<end_of_turn>", "A2<end_of_turn>"]),
        ("gemma3", "gemma3", "gemma", TOLD, ["A1<end_of_turn>", "A2<end_of_turn>"]),
        ("phi3", "phi3", "phi3", TOLD, [" A1<|end|>", "A2\n<|end|>"]),
        ("phi3_5", "phi3", "phi3", MULTI, [" A1<|end|>", "A2\n<|end|>"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_known_template_is_learned_by_the_marks_of_a_twin_that_writes_the_same(
    name: str, family: str, twin: str, messages: list[dict[str, Any]], replies: list[str]
) -> None:
    made = tokenizer(published(name))
    found = chosen(made, family=family)
    assert (found.way, found.twin, found.origin) == ("twin", twin, "the tokenizer's own")
    tools = TOOLS if messages in (WITH_CALLS, TWO_CALLS) else None
    (rendered,) = found.write(messages, tools)
    assert learned(rendered) == replies
    assert rendered.text == made.apply_chat_template(messages, tools=tools, tokenize=False, date_string="26 Jul 2024")


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3_instruct_2507", "llama3", "llama3_2", "gemma3"])
def test_prompts_find_what_marks_say(name: str) -> None:
    text, special = published(name), tokenizer().special_tokens_map
    stops = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")
    plain = chosen(tokenizer(text))
    for messages in (MULTI, TOLD):
        assert spans.found(text, messages, None, special=special, twin=None, stops=stops) == plain.write(messages, None)


def test_a_twin_that_writes_another_text_is_not_believed() -> None:
    """It writes the same in all probes, and less once a conversation is longer."""
    found = chosen(tokenizer(published("qwen2_5") + "{% if messages|length > 4 %}!{% endif %}"), family="qwen2")
    assert (found.way, found.twin) == ("twin", "qwen2_5")
    longer = [*MULTI, ask("Q3")]
    (rendered,) = found.write(longer, None)
    assert rendered.text == tokenizer(published("qwen2_5")).apply_chat_template(longer, tokenize=False) + "!"
    assert learned(rendered) == [" A1<|im_end|>", "A2\n<|im_end|>"]


def test_thinking_that_a_template_drops_later_is_learned_in_a_text_of_its_own() -> None:
    found = chosen(tokenizer(published("qwen3")), family="qwen3")
    first, second = found.write(THOUGHT, None)
    assert learned(first) == ["<think>\nR\n</think>\n\nA<|im_end|>"]
    assert first.text.endswith("A<|im_end|>\n")
    assert learned(second) == ["<think>\nR2\n</think>\n\nB<|im_end|>"]
    assert "<|im_start|>assistant\nA<|im_end|>\n" in second.text
    assert found.write(THOUGHT, None, replies=False) == [Rendered(text=second.text)]


def test_a_reply_that_its_prompt_does_not_begin_is_refused() -> None:
    text = (
        "{% for m in messages %}{{ m.role + ':' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: <think>{% endif %}"
    )
    found = chosen(tokenizer(text))
    assert found.way == "prompts"
    with pytest.raises(BrokenSampleError) as caught:
        found.write([ask("Q"), say("A")], None)
    assert str(caught.value) == (
        "torn reply: the chat template writes message 2 otherwise than the prompt for it begins: ' <think>' in the "
        "prompt, 'A' with the reply; give data.template with {% generation %} marks around what is learned"
    )


def test_both_sides_of_mistral_are_told_apart() -> None:
    """Its templates have no generation prompt, and older ones other spaces than ours."""
    older = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
        "{% elif m.role == 'assistant' %}{{ m.content + eos_token }}"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
    )
    found = chosen(tokenizer(older), family="mistral")
    assert found.way == "prompts"
    (rendered,) = found.write(MULTI, None)
    assert rendered.text == "<s>[INST] Q1  [/INST] A1</s>[INST] Q2 [/INST]A2\n</s>"
    assert learned(rendered) == [" A1</s>", "A2\n</s>"]
    with pytest.raises(BrokenSampleError, match="the chat template refuses it: Only user and assistant roles"):
        found.write(TOLD, None)
    ours = chosen(tokenizer(), family="mixtral")
    assert ours.way == "marks"
    (rendered,) = ours.write(TOLD, None)
    assert rendered.text == "<s>[INST] S\n\nQ1  [/INST] A1</s>[INST] Q2 [/INST] A2</s>"
    assert learned(rendered) == [" A1</s>", " A2</s>"]


@pytest.mark.parametrize(
    ("name", "messages", "reason"),
    [
        ("gemma", TOLD, "the chat template refuses it: System role not supported"),
        ("gemma3", [ask("Q"), ask("Q"), say("A")], "Conversation roles must alternate"),
        ("llama3_1", TWO_CALLS, "This model only supports single tool-calls at once!"),
    ],
)
def test_what_a_template_refuses_has_its_reason(name: str, messages: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(BrokenSampleError, match=reason):
        chosen(tokenizer(published(name))).write(messages, None)


@pytest.mark.parametrize("name", sorted(shipped.shipped()))
def test_our_marks_are_those_that_transformers_reads(name: str) -> None:
    made = tokenizer(shipped.shipped()[name])
    messages = [ask("Q 日本"), say("A 🙂\n"), ask("R"), say(" B")]
    theirs: Any = made.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    (document,) = Encoder(made, chosen(made), loss_on="responses").encode([Chat(place="a:1", messages=messages)])
    assert isinstance(document, Document)
    assert document.ids.tolist() == theirs["input_ids"]
    assert document.learned.tolist() == [bool(one) for one in theirs["assistant_masks"]]


def test_what_the_last_reply_ends_with_may_differ() -> None:
    """gpt-oss ends the last reply with <|return|>, and earlier ones with <|end|>."""
    texts = chosen(tokenizer(published("gptoss")), family="gpt-oss").write([*MULTI[:3], say("A2")], None)
    assert [learned(text) for text in texts] == [
        ["<|channel|>final<|message|> A1<|return|>"],
        ["<|channel|>final<|message|>A2<|return|>"],
    ]


def test_documents_of_one_conversation_share_its_place_and_keep_the_order() -> None:
    made = tokenizer(published("qwen3"))
    encoder = Encoder(made, chosen(made, family="qwen3"), loss_on="responses")
    samples = [Chat(place="a:1", messages=THOUGHT), Chat(place="a:2", messages=MULTI)]
    documents = encoder.encode(samples)
    assert [one.place for one in documents if isinstance(one, Document)] == ["a:1", "a:1", "a:2"]
    assert encoder.split == 1
    whole = Encoder(made, chosen(made, family="qwen3"), loss_on="all")
    assert len(whole.encode(samples)) == 2

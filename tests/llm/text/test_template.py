"""Chat templates: where they come from, and the three ways to what is learned.

The templates that models were published with are those that TRL carries for its own tests.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from runner.llm.data.sample import BrokenSampleError, Chat
from runner.llm.document import Document
from runner.llm.text import shipped, spans, template
from runner.llm.text.render import Rendered, render
from runner.llm.text.template import Template
from runner.llm.text.tokens import Encoder
from runner.llm.text.vocabulary import learn
from runner.schema.errors import JobError

CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": "é"}}}
CALLED = '{"name": "f", "arguments": {"a": "é"}}'
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
TOKENS = tuple(dict.fromkeys(token for needed in shipped.NEEDS.values() for token in needed))


def ask(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def say(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


SYSTEM = {"role": "system", "content": "S"}
MULTI = [ask("Q1 "), say(" A1"), ask("Q2"), say("A2\n")]
TOLD = [SYSTEM, *MULTI]
WITH_CALLS = [SYSTEM, ask("Q"), say("", tool_calls=[CALL]), {"role": "tool", "content": "3"}, say("A")]
TWO_CALLS = [
    *[ask("Q"), say("hm", tool_calls=[CALL, CALL]), {"role": "tool", "content": "3"}],
    *[{"role": "tool", "content": "4"}, say("A"), ask("Q"), say("B")],
]
THOUGHT = [ask("Q"), say("A", reasoning_content="R"), ask("Q"), say("<think>\nR2\n</think>\n\nB")]
XML = f"<tool_call>\n{CALLED}\n</tool_call>"


def published(name: str) -> str:
    found = importlib.util.find_spec("trl")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "chat_templates" / f"{name}.jinja").read_text("utf-8")


def tokenizer(chat: Any = None, special: tuple[str, ...] = TOKENS) -> PreTrainedTokenizerBase:
    made = learn(iter(["Ping? Pong."]), size=300, special=["<s>", "</s>", *special])
    made.bos_token, made.eos_token, made.chat_template = "<s>", "</s>", chat
    return made


def chosen(made: PreTrainedTokenizerBase, **changes: Any) -> Template:
    found = template.choose(made, **{"given": None, "family": "llama"} | changes)
    assert found is not None
    return found


def learned(rendered: Rendered) -> list[str]:
    return [rendered.text[start:stop] for start, stop in rendered.spans]


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


def test_marks_of_the_template_itself_say_what_is_learned_and_its_end_with_it() -> None:
    text = (
        "{% for m in messages %}{{ m.role + ': ' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{{ eos_token }}"
        "{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"
    )
    found = chosen(tokenizer("never taken"), given=text)
    assert (found.way, found.origin) == ("marks", "data.template of the spec")
    (rendered,) = found.write([ask("Q"), say("A")], None)
    assert rendered.text == "user: Q\nassistant: A</s>\n"
    assert learned(rendered) == ["A</s>"]
    assert found.why == ("chat template: data.template of the spec; its own generation marks say what is learned")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{% for m in messages %}", r"\(data.template of the spec\) is broken in line 1: Unexpected end of template"),
        (" \n", r"\(data.template of the spec\) is empty"),
        (
            "{% macro w(m) %}{{ m.role }}{% generation %}{{ m.content }}{% endgeneration %}{% endmacro %}"
            "{% for m in messages %}{{ w(m) }}{% endfor %}",
            "enclose .* where the reply is 'Pong.': put them around the reply, outside macros",
        ),
    ],
)
def test_broken_templates(text: str, told: str) -> None:
    with pytest.raises(JobError, match=told):
        chosen(tokenizer(), given=text)


def test_where_a_template_comes_from(tmp_path: Path) -> None:
    assert chosen(tokenizer()).origin == "ours for the family 'llama', 'llama3', since the tokenizer has none"
    assert chosen(tokenizer(), family="qwen3").text == shipped.shipped()["qwen3"]
    assert template.choose(tokenizer(special=()), given=None, family="llama") is None  # its tokens are not there
    assert template.choose(tokenizer(), given=None, family="gpt-oss") is None
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": shipped.shipped()["chatml"]}))
    assert chosen(tokenizer(), model=tmp_path).origin == "the processor's own"
    (tmp_path / "chat_template.json").write_text("[]")
    with pytest.raises(JobError, match=r"chat_template\.json of the model holds no chat template"):
        chosen(tokenizer(), model=tmp_path)
    with pytest.raises(JobError, match="several chat templates, 'rag', and none is 'default'"):
        chosen(tokenizer({"rag": "x"}))
    two = chosen(tokenizer({"default": "{{ messages[0].content }}", "tool_use": "{{ tools[0].function.name }}"}))
    assert [two.of(None), two.of(TOOLS)] == ["{{ messages[0].content }}", "{{ tools[0].function.name }}"]


def test_a_reply_ends_at_what_the_generation_stops_at(tmp_path: Path) -> None:
    made = tokenizer(special=("<|end|>", "<|eot_id|>", "<end_of_turn>"))
    (tmp_path / "generation_config.json").write_text(
        json.dumps({"eos_token_id": [made.convert_tokens_to_ids("<|end|>")]})
    )
    found = chosen(made, given="x", family="llama", model=tmp_path)
    assert found.stops == ("</s>", "<|end|>", "<|eot_id|>")
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(JobError, match=r"generation_config\.json of the model cannot be read"):
        chosen(made, given="x", model=tmp_path)


@pytest.mark.parametrize(
    ("family", "text", "replies"),
    [
        ("olmo2", "<s><|system|>\nS\n<|user|>\nQ\n<|assistant|>\nA</s>\n<|user|>\nR\n<|assistant|>\nB</s>", "A B"),
        (
            "granite",
            "<|start_of_role|>system<|end_of_role|>S</s>\n<|start_of_role|>user<|end_of_role|>Q</s>\n"
            "<|start_of_role|>assistant<|end_of_role|>A</s>\n<|start_of_role|>user<|end_of_role|>R</s>\n"
            "<|start_of_role|>assistant<|end_of_role|>B</s>\n",
            "A B",
        ),
        ("deepseek-v2", "<s>S\n\nUser: Q\n\nAssistant: A</s>User: R\n\nAssistant: B</s>", " A  B"),
        ("deepseek-v3", "<s>S<｜User｜>Q<｜Assistant｜>A</s><｜User｜>R<｜Assistant｜>B</s>", "A B"),
        (
            "smollm3",
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA<|im_end|>\n"
            "<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\nB<|im_end|>\n",
            "A B",
        ),
    ],
    ids=lambda value: value if value[:1].islower() else "",
)
def test_formats_for_models_without_a_template(family: str, text: str, replies: str) -> None:
    found = chosen(tokenizer(), family=family)
    messages = [SYSTEM, ask("Q"), say("A"), ask("R"), say("B")]
    (rendered,) = found.write(messages, None)
    assert rendered.text == text
    end = "<|im_end|>" if family == "smollm3" else "</s>"
    assert " ".join(learned(rendered)).replace(end, "") == replies
    prompt = render(found.text, messages[:4], special=found.special, prompt=True).text
    assert rendered.text.startswith(prompt)
    assert rendered.spans[1][0] == len(prompt)
    if family != "smollm3":
        with pytest.raises(BrokenSampleError, match=r"the chat template refuses it: .* no tools"):
            found.write(WITH_CALLS, TOOLS)


@pytest.mark.parametrize("name", sorted(shipped.shipped()))
def test_our_marks_are_those_that_transformers_reads(name: str) -> None:
    made = tokenizer(shipped.shipped()[name])
    messages = [ask("Q 日本"), say("A 🙂\n"), ask("R"), say(" B")]
    theirs: Any = made.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    (document,) = Encoder(made, chosen(made), loss_on="responses").encode([Chat(place="a:1", messages=messages)])
    assert isinstance(document, Document)
    assert document.ids.tolist() == theirs["input_ids"]
    assert document.learned.tolist() == [bool(one) for one in theirs["assistant_masks"]]


def test_a_template_that_ends_no_reply_says_so() -> None:
    text = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    assert chosen(tokenizer(text)).why == (
        "chat template: the tokenizer's own; what follows its own generation prompts is learned; "
        "it ends replies with none of </s>, <|eot_id|>"
    )
    assert chosen(tokenizer(published("llama3"))).why == (
        "chat template: the tokenizer's own; it writes what our marked 'llama3' writes, whose marks say what is learned"
    )


@pytest.mark.parametrize("name", ["llava_next", "smolvlm"])
def test_templates_that_take_content_as_parts_alone_get_it_so(name: str) -> None:
    found = chosen(tokenizer(published(name)), family="llava")
    assert (found.way, found.parts) == ("prompts", True)
    (rendered,) = found.write(MULTI, None)
    first, second = learned(rendered)
    assert first.strip().startswith("A1")
    assert second.strip().startswith("A2")
    assert "Q2" in found.ask("Q2")


def test_what_the_last_reply_ends_with_may_differ() -> None:
    """gpt-oss ends the last reply with <|return|>, and earlier ones with <|end|>."""
    texts = chosen(tokenizer(published("gptoss")), family="gpt-oss").write([*MULTI[:3], say("A2")], None)
    assert [learned(text) for text in texts] == [
        ["<|channel|>final<|message|> A1<|return|>"],
        ["<|channel|>final<|message|>A2<|return|>"],
    ]


def test_the_clock_stands_still() -> None:
    text = "{{ strftime_now('%d %b %Y') }}"
    assert render(text, [], special={}).text == "26 Jul 2024"


def test_a_template_cannot_leave_its_sandbox() -> None:
    with pytest.raises(BrokenSampleError, match="refuses it: access to attribute '__class__'"):
        render("{{ messages.__class__.__mro__ }}", [], special={})
    with pytest.raises(BrokenSampleError, match="refuses it: Range too big"):
        render("{% for i in range(10000000) %}x{% endfor %}", [], special={})


def test_questions_for_samples_of_the_model() -> None:
    assert chosen(tokenizer(), family="qwen3").ask("Q") == "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(JobError, match=r"evaluation\.prompts: 'Q': the chat template refuses it: no"):
        chosen(tokenizer(), given="{{ raise_exception('no') }}").ask("Q")


def test_every_template_of_ours_belongs_to_a_family_or_is_a_twin_and_names_its_tokens() -> None:
    assert {*shipped.FAMILIES.values(), "llama3_1"} == set(shipped.shipped())
    assert set(shipped.NEEDS) == set(shipped.FAMILIES.values())

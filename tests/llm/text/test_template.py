"""Chat templates: where they come from, and what they need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.llm.data.sample import BrokenSampleError
from runner.llm.text import shipped, template
from runner.llm.text.render import render
from runner.schema.errors import JobError
from tests.llm.text.chats import (
    MULTI,
    SYSTEM,
    TOOLS,
    WITH_CALLS,
    ask,
    chosen,
    learned,
    published,
    say,
    tokenizer,
)


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
        ("", r"\(data.template of the spec\) is empty"),
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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "{{ 'x' * 17000000 }}",
            "writes 17,000,000 characters, and at most 16,777,216 are taken, twice a row's",
        ),
        ("{{ messages[0].content * 10 ** 16 }}", "writes more than the memory holds"),
    ],
)
def test_a_template_that_writes_without_end_is_refused(text: str, told: str) -> None:
    found = chosen(tokenizer(), given=text)
    with pytest.raises(BrokenSampleError, match=f"the chat template {told}"):
        found.write([ask("Q"), say("A")], None)


def test_an_empty_template_of_the_tokenizer_is_named_and_none_for_tools_is_none() -> None:
    with pytest.raises(JobError, match=r"\(the tokenizer's own\) is empty"):
        chosen(tokenizer({"default": ""}))
    assert chosen(tokenizer({"default": "{{ messages[0].content }}", "tool_use": ""})).tools is None

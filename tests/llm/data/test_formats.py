from __future__ import annotations

from typing import Any

import pytest

from runner.llm.data.detect import FORMATS, detect
from runner.llm.data.sample import BrokenSampleError, Chat
from runner.schema.errors import JobError

USER = {"role": "user", "content": "2 + 2?"}
REPLY = {"role": "assistant", "content": "4"}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWER = {"role": "tool", "tool_call_id": "c1", "content": "4"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def chat(format: str, record: dict[str, Any]) -> Chat:  # noqa: A002
    made = FORMATS[format].sample(record, place="a:1")
    assert isinstance(made, Chat)
    return made


def test_each_format_fits_its_own_rows_and_no_others() -> None:
    rows: dict[str, dict[str, Any]] = {
        "messages": {"messages": [USER, REPLY], "tools": None},
        "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        "alpaca": {"instruction": "a", "input": "", "output": "b"},
        "prompt_completion": {"prompt": "a", "completion": "b"},
        "text": {"text": "a"},
    }
    assert rows.keys() == FORMATS.keys()
    for name, row in rows.items():
        assert detect([row], name="x") == name
    assert detect([{"body": 1}, rows["text"]], name="x") == "text"  # a broken row decides nothing
    with pytest.raises(JobError, match="fit no format"):
        detect([{"messages": [{"from": "human", "value": "a"}]}], name="x")


def test_a_conversation_with_tools_is_made_alike() -> None:
    made = chat(
        "messages", {"messages": [{"role": "system", "content": ""}, USER, CALLS, ANSWER, REPLY], "tools": [TOOL]}
    )
    assert made.tools == [TOOL]
    assert made.messages[2] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{**CALL, "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}],
    }
    assert made.messages[3] == ANSWER
    assert chat("messages", {"messages": [USER, CALLS]}).tools is None


def test_parts_are_joined_empty_keys_left_out_and_others_kept() -> None:
    parts = [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}]
    made = chat(
        "messages",
        {"messages": [{"role": "user", "content": parts, "name": None}, {**REPLY, "reasoning_content": "easy"}]},
    )
    assert made.messages == [USER, {**REPLY, "reasoning_content": "easy"}]


def test_columns_that_hold_json_are_read() -> None:
    import json

    record = {"messages": json.dumps([USER, REPLY]), "tools": json.dumps([TOOL])}
    assert detect([record], name="x") == "messages"
    assert chat("messages", record) == Chat(place="a:1", messages=[USER, REPLY], tools=[TOOL])


def test_sharegpt_becomes_messages() -> None:
    turns = [
        {"from": "human", "value": "2 + 2?"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 2, "b": 2}}'},
        {"from": "observation", "value": "4"},
        {"from": "gpt", "value": "4"},
    ]
    made = chat("sharegpt", {"conversations": turns, "system": "Be brief."})
    assert [one["role"] for one in made.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert made.messages[2]["tool_calls"] == [
        {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
    ]


def test_alpaca_becomes_one_turn() -> None:
    made = chat("alpaca", {"instruction": "Add.", "input": "2 2", "output": "4", "system": None})
    assert made.messages == [{"role": "user", "content": "Add.\n\n2 2"}, REPLY]
    assert chat("alpaca", {"instruction": "Add.", "output": "4"}).messages[0]["content"] == "Add."


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("messages", {"messages": []}, "empty conversation: it has no message"),
    ("messages", {"messages": None}, "missing field: 'messages'"),
    ("messages", {"messages": "hello"}, "wrong type: 'messages' must be a list, got text"),
    ("messages", {"messages": [USER, "4"]}, "wrong type: message 2 must be an object, got text"),
    ("messages", {"messages": [USER, {"content": "4"}]}, "missing field: message 2 has no 'role'"),
    ("messages", {"messages": [USER, {"role": "assistant"}]}, "missing field: message 2 of 'assistant' says nothing"),
    ("messages", {"messages": [USER, {"role": "assistant", "content": " "}]}, "empty text: message 2 of 'assistant'"),
    ("messages", {"messages": [{"role": "human", "content": "a"}]}, "unknown role: 'human' in message 1; known are"),
    ("messages", {"messages": [{"role": ["user"], "content": "a"}]}, "unknown role: "),
    ("messages", {"messages": [REPLY, USER]}, "wrong role order: message 1 is of 'assistant'; a conversation begins"),
    ("messages", {"messages": [USER, USER, REPLY]}, "wrong role order: message 2 of 'user' follows 'user', where"),
    ("messages", {"messages": [USER, REPLY, REPLY]}, "wrong role order: message 3 of 'assistant' follows 'assistant'"),
    ("messages", {"messages": [USER, REPLY, USER]}, "wrong role order: the last message is of 'user', and nothing"),
    ("messages", {"messages": [USER, CALLS, USER]}, "wrong role order: message 3 of 'user' follows a tool call, where"),
    ("messages", {"messages": [USER, {**REPLY, "weight": 0}]}, "not supported: message 2 has a weight"),
    ("messages", {"messages": [USER, ANSWER]}, "wrong role order: message 2 of 'tool' follows 'user'"),
    ("messages", {"messages": [USER, CALLS, {**ANSWER, "tool_call_id": "c2"}, REPLY]}, "wrong tool_call_id: message 3"),
    (
        "messages",
        {"messages": [{**USER, "tool_calls": [CALL]}, REPLY]},
        "wrong role: message 1 of 'user' has tool_calls",
    ),
    (
        "messages",
        {"messages": [USER, {**CALLS, "tool_calls": {"a": 1}}]},
        "wrong type: tool_calls of message 2 must be",
    ),
    ("messages", {"messages": [USER, {**CALLS, "tool_calls": [{"id": "c1"}]}]}, "wrong tool call: message 2 calls"),
    (
        "messages",
        {"messages": [USER, {**CALLS, "tool_calls": [{"function": {"name": "add", "arguments": "2, 2"}}]}]},
        "wrong tool call: arguments of 'add' in message 2 must be an object",
    ),
    ("messages", {"messages": [{"role": "user", "content": 7}, REPLY]}, "wrong type: 'content' of message 1 must be"),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "image"}]}, REPLY]},
        "not text: message 1 has a part of 'image'",
    ),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "text"}]}, REPLY]}, "missing field: a part of"),
    ("messages", {"messages": [USER, REPLY], "tools": [{"type": "function"}]}, "wrong tool: tool 1 has no name"),
    ("sharegpt", {"conversations": [{"from": "human"}]}, "missing field: turn 1 has no text in 'value'"),
    ("sharegpt", {"conversations": ["a"]}, "wrong type: turn 1 must be an object"),
    ("sharegpt", {"conversations": [{"from": "bing", "value": "a"}]}, "unknown role: 'bing' in turn 1"),
    ("sharegpt", {"conversations": []}, "empty conversation"),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "add"}]},
        "wrong tool call",
    ),
    ("alpaca", {"instruction": "a"}, "missing field: 'output'"),
    ("alpaca", {"instruction": " ", "output": "a"}, "empty text: 'instruction'"),
    ("alpaca", {"instruction": "a", "output": ""}, "empty text: message 2"),
    ("prompt_completion", {"prompt": "a", "completion": ""}, "empty text: 'completion'"),
    ("prompt_completion", {"prompt": "a"}, "missing field: 'completion'"),
    (
        "prompt_completion",
        {"prompt": [USER], "completion": "a"},
        "wrong type: 'prompt' must be text; a list of messages",
    ),
    ("text", {"text": None}, "missing field: 'text'"),
    ("text", {"text": ["a"]}, "wrong type: 'text' must be text, got a list"),
]


@pytest.mark.parametrize(("format", "record", "reason"), WRONG, ids=lambda value: str(value)[:30])
def test_what_is_no_sample_has_a_reason(format: str, record: dict[str, Any], reason: str) -> None:  # noqa: A002
    with pytest.raises(BrokenSampleError) as caught:
        FORMATS[format].sample(record, place="a:1")
    assert str(caught.value).startswith(reason)

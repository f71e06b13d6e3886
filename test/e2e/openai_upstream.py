"""Providers for the `openai` packages' calls: tools asked for and answered, as OpenAI and as Anthropic send them, and silence.

What Anthropic's looks like: the events' names and order, a ping in the middle, a tool's input in pieces of which the first is empty,
counts that grow, and a refusal of what the real one refuses.
"""
import json

import upstream
from upstream import Upstream  # noqa: F401  for who asks

ANSWER = "It is {} there."
PLACES = ("Zürich", "Reykjavík")
# Models whose answer does not come, or stops coming: one for each check, so that its call is known again.
SILENT = ("npm-timeout", "npm-abort", "pypi-timeout", "pypi-task")
STALLED = ("npm-stream", "pypi-stream", "pypi-closed")
OPENAI, ANTHROPIC = ("tools", *SILENT, *STALLED), ("claude-tools", "claude-overload")
PROVIDERS = (("scripted", "openai", OPENAI), ("scripted-claude", "anthropic", ANTHROPIC))

for name in SILENT:
    upstream.scripts[name] = upstream.silent
for name in STALLED:
    upstream.scripts[name] = upstream.stall


def pieces(text, count=3):
    step = max(-(-len(text) // count), 1)
    return [text[at:at + step] for at in range(0, len(text), step)]


def arguments_of(place):
    return json.dumps({"place": place}, ensure_ascii=False)


# ---- as OpenAI ----

@upstream.script
def tools(call):
    """Two calls at once of the tool that it is given; with their results, a text that has them."""
    tool = call.body["tools"][0]["function"]
    if not tool["parameters"]["properties"]["place"] or call.body.get("parallel_tool_calls") is False:
        call.answer({"error": {"message": "the tool did not come through", "type": "invalid_request_error"}}, 400)
        return
    results = [message["content"] for message in call.body["messages"] if message["role"] == "tool"]
    if results:
        message = {"role": "assistant", "content": ANSWER.format(", ".join(results))}
    else:
        message = {"role": "assistant", "content": None, "tool_calls": [
            {"id": f"call_{number}", "type": "function", "function": {"name": tool["name"], "arguments": arguments_of(place)}}
            for number, place in enumerate(PLACES)]}
    reason = "stop" if results else "tool_calls"
    body = {"id": "chatcmpl-1", "created": 1, "model": "tools"}
    if not call.stream:
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        call.answer({**body, "object": "chat.completion", "choices": [choice], "usage": upstream.USAGE})
        return
    call.begin_stream()
    for delta in openai_deltas(message):
        call.event({**body, "object": "chat.completion.chunk",
                    "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]})
    call.event({**body, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    call.event({**body, "object": "chat.completion.chunk", "choices": [], "usage": upstream.USAGE})
    call.event("[DONE]")
    call.end_stream()


def openai_deltas(message):
    yield {"role": "assistant", "content": None if message["content"] is None else ""}
    for piece in pieces(message["content"] or ""):
        yield {"content": piece}
    for index, tool in enumerate(message.get("tool_calls", ())):
        yield {"tool_calls": [{"index": index, "id": tool["id"], "type": "function",
                               "function": {"name": tool["function"]["name"], "arguments": ""}}]}
        for piece in pieces(tool["function"]["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


# ---- as Anthropic ----

def wrong_with(call):
    """What the Messages API would not take."""
    body = call.body
    turns = [message["role"] for message in body.get("messages", ())]
    checks = (
        ("the path", call.path != "/v1/messages"),
        ("x-api-key", call.headers.get("x-api-key") != upstream.SECRET or "authorization" in call.headers),
        ("anthropic-version", call.headers.get("anthropic-version") != "2023-06-01"),
        ("max_tokens", not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1),
        ("messages", not turns or turns[0] != "user" or any(turns[i] == turns[i + 1] for i in range(len(turns) - 1))),
        ("members", set(body) - {"model", "max_tokens", "system", "messages", "tools", "tool_choice", "temperature", "top_p",
                                 "stop_sequences", "stream", "metadata"}),
        ("tools", any(set(tool) - {"name", "description", "input_schema", "strict"} or "input_schema" not in tool
                      for tool in body.get("tools", ()))),
        ("tool_use", unanswered(body.get("messages", ()))),
    )
    return next((f"{name}: not as the Messages API has it" for name, wrong in checks if wrong), None)


def blocks(message, kind):
    return [block for block in message["content"] if block["type"] == kind] if isinstance(message["content"], list) else []


def unanswered(messages):
    """Whether a tool's call is not answered in the very next turn."""
    for at, message in enumerate(messages):
        asked = {block["id"] for block in blocks(message, "tool_use")}
        answered = {block["tool_use_id"] for block in blocks(messages[at + 1], "tool_result")} if at + 1 < len(messages) else set()
        if asked - answered:
            return True
    return False


def result_text(block):
    return block["content"] if isinstance(block["content"], str) else "".join(part["text"] for part in block["content"])


@upstream.script
def claude_tools(call):
    if wrong := wrong_with(call):
        call.answer({"type": "error", "error": {"type": "invalid_request_error", "message": wrong}, "request_id": "req_1"}, 400)
        return
    results = [result_text(block) for message in call.body["messages"] for block in blocks(message, "tool_result")]
    if results or "tools" not in call.body:
        content = [{"type": "text", "text": ANSWER.format(", ".join(results))}]
    else:
        content = [{"type": "text", "text": "I look."}] + [
            {"type": "tool_use", "id": f"toolu_{number}", "name": call.body["tools"][0]["name"], "input": {"place": place}}
            for number, place in enumerate(PLACES)]
    reason = "tool_use" if len(content) > 1 else "end_turn"
    message = {"id": "msg_01", "type": "message", "role": "assistant", "model": "claude-tools", "content": [],
               "stop_reason": None, "stop_sequence": None,
               "usage": {"input_tokens": 11, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}}
    if not call.stream:
        call.answer({**message, "content": content, "stop_reason": reason, "usage": {**message["usage"], "output_tokens": 8}})
        return
    begin(call, message)
    for index, block in enumerate(content):
        put_block(call, index, block)
    named(call, "message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 8})
    named(call, "message_stop")
    call.end_stream()


@upstream.script
def claude_overload(call):
    """It begins, and then it can't any more."""
    begin(call, {"id": "msg_01", "type": "message", "role": "assistant", "model": "claude", "content": [], "stop_reason": None,
                 "stop_sequence": None, "usage": {"input_tokens": 11, "output_tokens": 1}})
    named(call, "content_block_start", index=0, content_block={"type": "text", "text": ""})
    named(call, "ping")
    named(call, "content_block_delta", index=0, delta={"type": "text_delta", "text": "It"})
    call.wait(0.1)
    named(call, "error", error={"type": "overloaded_error", "message": "Overloaded"})
    call.end_stream()


def named(call, kind, **members):
    call.event({"type": kind, **members}, kind)


def begin(call, message):
    call.begin_stream()
    named(call, "message_start", message=message)


def put_block(call, index, block):
    is_text = block["type"] == "text"
    named(call, "content_block_start", index=index, content_block={**block, **({"text": ""} if is_text else {"input": {}})})
    if index == 0:
        named(call, "ping")
    if is_text:
        for piece in pieces(block["text"]):
            named(call, "content_block_delta", index=index, delta={"type": "text_delta", "text": piece})
    else:
        for piece in ["", *pieces(arguments_of(block["input"]["place"]))]:
            named(call, "content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": piece})
    named(call, "content_block_stop", index=index)

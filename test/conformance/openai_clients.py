"""The official `openai` package of PyPI against a running gateway: as test/e2e/openai_client.mjs, and run by its own interpreter."""
import asyncio
import json
import sys
import time

import openai

given = json.load(sys.stdin)
BASE = given["origin"] + "/v1"
MODEL = "gpt-4o-mini"
MESSAGES = [{"role": "user", "content": "Say something"}]


def client_of(key):
    return openai.OpenAI(api_key=key, base_url=BASE, max_retries=0)


client = client_of(given["key"])
checks = []


def check(run):
    checks.append(run)
    return run


def expect(good, what):
    if not good:
        raise AssertionError(what)


def refusal(kind, code, run):
    try:
        run()
    except openai.APIStatusError as error:
        expect(type(error) is kind, f"{type(error).__name__} ({error}) in place of {kind.__name__}")
        expect(error.code == code, f"code {error.code} in place of {code}")
        expect(error.request_id, "it names no request")
        return error
    raise AssertionError(f"not refused with {kind.__name__}")


@check
def models():
    expect("gpt-4" in [each.id for each in client.models.list()], "gpt-4 is not listed")
    expect(client.models.retrieve("gpt-4").owned_by == "openai", "who owns gpt-4")


@check
def completions():
    done = client.completions.create(model="gpt-4", prompt="Hello world", max_tokens=100)
    expect("Hello world" in done.choices[0].text and done.usage.total_tokens > 0, done)
    pieces = client.completions.create(model="gpt-4", prompt="Hello world", stream=True)
    expect("".join(piece.choices[0].text for piece in pieces if piece.choices) == done.choices[0].text, "streamed")


@check
def chat():
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, seed=1, temperature=0.2)
    done = raw.parse()
    expect("Say something" in done.choices[0].message.content, done)
    expect(raw.headers["x-job-id"] == done.id, "the job is not named")


@check
def streamed_chat():
    text, reason, usage = "", None, None
    for chunk in client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True,
                                                stream_options={"include_usage": True}):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
        usage = chunk.usage or usage
    expect("Say something" in text and reason == "stop" and usage.total_tokens > 0, (text, reason, usage))


@check
def a_hundred_at_once():
    async def one(many, number):
        ask = {"model": MODEL, "messages": [{"role": "user", "content": f"number {number}."}]}
        if number % 2:
            return (await many.chat.completions.create(**ask)).choices[0].message.content
        return "".join([chunk.choices[0].delta.content or "" async for chunk in
                        await many.chat.completions.create(**ask, stream=True) if chunk.choices])

    async def ask():
        async with openai.AsyncOpenAI(api_key=given["key"], base_url=BASE, max_retries=0) as many:
            return await asyncio.gather(*(one(many, number) for number in range(100)))
    for number, text in enumerate(asyncio.run(ask())):
        expect(f"number {number}." in text, f"{number}: {text}")


@check
def authentication_error():
    wrong = client_of("fsk-wrong")
    refusal(openai.AuthenticationError, "invalid_api_key", lambda: wrong.chat.completions.create(model=MODEL, messages=MESSAGES))


@check
def not_found_error():
    refusal(openai.NotFoundError, "model_not_available",
            lambda: client.chat.completions.create(model="gpt-99", messages=MESSAGES))


@check
def bad_request_error():
    error = refusal(openai.BadRequestError, "unknown_parameter",
                    lambda: client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_body={"bogus": 1}))
    expect(error.param == "bogus", error.param)


@check
def no_balance():
    poor = client_of(given["poor"])
    error = refusal(openai.APIStatusError, "insufficient_balance",
                    lambda: poor.chat.completions.create(model=MODEL, messages=MESSAGES))
    expect(error.status_code == 402, error.status_code)


@check
def rate_limit_error():
    few = client_of(given["few"])

    def many():
        for _ in range(25):
            few.chat.completions.create(model=MODEL, messages=MESSAGES)
    refusal(openai.RateLimitError, "rate_limit_exceeded", many)


@check
def a_provider_that_fails():
    try:
        client.chat.completions.create(model="sandbox-fail", messages=MESSAGES)
    except openai.InternalServerError:
        return
    raise AssertionError("no InternalServerError")


# ---- tools: models of openai_upstream.py, as OpenAI and as Anthropic have them ----

TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "The weather of a place", "strict": True,
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"],
                   "additionalProperties": False}}}]
PLACES = ["Zürich", "Reykjavík"]
WEATHERS = "It is sunny in Zürich, sunny in Reykjavík there."


def expect_calls(choice):
    calls = choice.message.tool_calls
    expect(choice.finish_reason == "tool_calls" and len(calls) == 2, choice)
    expect([call.function.name for call in calls] == ["weather"] * 2 and all(call.id for call in calls), calls)
    expect([json.loads(call.function.arguments)["place"] for call in calls] == PLACES, calls)


def calls_and_results(model):
    ask = {"model": model, "tools": TOOLS, "tool_choice": "auto"}
    done = client.chat.completions.create(messages=MESSAGES, **ask)
    expect_calls(done.choices[0])
    expect((done.usage.prompt_tokens, done.usage.completion_tokens) == (11, 8), done.usage)
    results = [{"role": "tool", "tool_call_id": call.id, "content": f"sunny in {place}"}
               for call, place in zip(done.choices[0].message.tool_calls, PLACES)]
    done = client.chat.completions.create(messages=[*MESSAGES, done.choices[0].message, *results], **ask)
    expect((done.choices[0].message.content, done.choices[0].finish_reason) == (WEATHERS, "stop"), done)


def streamed_calls(model):
    with client.chat.completions.stream(model=model, messages=MESSAGES, tools=TOOLS,
                                        stream_options={"include_usage": True}) as stream:
        kinds = [event.type for event in stream]
        done = stream.get_final_completion()
    expect_calls(done.choices[0])
    expect(kinds.count("tool_calls.function.arguments.done") == 2 and done.usage.total_tokens == 19, (kinds, done.usage))


@check
def tools_of_openai():
    calls_and_results("tools")


@check
def tools_of_openai_streamed():
    streamed_calls("tools")


@check
def tools_of_anthropic():
    calls_and_results("claude-tools")


@check
def tools_of_anthropic_streamed():
    streamed_calls("claude-tools")


@check
def an_overload_of_anthropic_in_the_middle_of_a_stream():
    text = ""
    try:
        for chunk in client.chat.completions.create(model="claude-overload", messages=MESSAGES, stream=True):
            text += chunk.choices[0].delta.content or ""
    except openai.APIError as error:
        expect(text == "It", (text, error))
        return
    raise AssertionError("no APIError")


# ---- clients that leave ----

def leave(model):
    print(json.dumps({"left": model, "at": time.monotonic()}))


@check
def a_timeout():
    try:
        client.with_options(timeout=0.5).chat.completions.create(model="pypi-timeout", messages=MESSAGES)
    except openai.APITimeoutError:
        leave("pypi-timeout")
        return
    raise AssertionError("no APITimeoutError")


@check
def a_task_that_is_cancelled():
    async def ask():
        async with openai.AsyncOpenAI(api_key=given["key"], base_url=BASE, max_retries=0) as one:
            task = asyncio.create_task(one.chat.completions.create(model="pypi-task", messages=MESSAGES))
            await asyncio.sleep(0.5)
            task.cancel()
            await asyncio.wait([task])
            leave("pypi-task")
            expect(task.cancelled(), "it is not cancelled")
    asyncio.run(ask())


def first_of(one, model):
    stream = one.chat.completions.create(model=model, messages=MESSAGES, stream=True)
    expect(next(iter(stream)).choices, "no chunk")
    return stream


@check
def a_stream_that_is_closed():
    first_of(client, "pypi-stream").close()
    leave("pypi-stream")


@check
def a_client_that_is_closed():
    one = client_of(given["key"])
    kept = first_of(one, "pypi-closed")
    one.close()
    leave("pypi-closed")
    del kept


for run in checks:
    problem = ""
    try:
        run()
    except Exception as error:  # whatever the package makes of an answer
        problem = f"{type(error).__name__}: {error}"
    print(json.dumps({"group": "openai (PyPI)", "name": run.__name__.replace("_", " "), "problem": problem}))

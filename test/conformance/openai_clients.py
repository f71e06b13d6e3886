"""The official `openai` package of PyPI against a running gateway: as openai_clients.mjs, and run by its own interpreter."""
import asyncio
import json
import sys

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
def asynchronous_chat():
    async def ask():
        async with openai.AsyncOpenAI(api_key=given["key"], base_url=BASE) as many:
            return await asyncio.gather(*(many.chat.completions.create(model=MODEL, messages=MESSAGES) for _ in range(8)))
    expect(len({done.id for done in asyncio.run(ask())}) == 8, "eight answers")


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


for run in checks:
    problem = ""
    try:
        run()
    except Exception as error:  # whatever the package makes of an answer
        problem = f"{type(error).__name__}: {error}"
    print(json.dumps({"group": "openai (PyPI)", "name": run.__name__.replace("_", " "), "problem": problem}))

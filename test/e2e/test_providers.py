"""Providers that are slow, broken, hostile: clients get an honest error in time, pay for what was delivered, and nobody else
suffers. The program runs against servers that we script byte by byte (upstream.py)."""

import concurrent.futures
import decimal
import json
import time

import pytest
import requests

import ai
from ai import CHATS, COMPLETIONS, chunks_of, events_of, payer, text_of
from fixtures import run_gateway
from stores import wait_until
from upstream import SECRET, USAGE, WORDS, Upstream, scripts, use

USD = decimal.Decimal
CALL_PRICE = USD("0.001")
PRICE_IN, PRICE_OUT = USD("0.000001"), USD("0.000002")
WHOLE = CALL_PRICE + USAGE["prompt_tokens"] * PRICE_IN + USAGE["completion_tokens"] * PRICE_OUT
SAID = "".join(WORDS)

# Script -> the status and code that a client gets when nothing was delivered.
EARLY = {
    "silent": (504, "provider_timeout"),
    "dribble": (504, "provider_timeout"),
    "head-only": (504, "provider_timeout"),
    "hang-up": (502, "provider_error"),
    "garbage": (502, None),
    "not-json": (502, "provider_error"),
    "wrong-json": (502, "provider_error"),
    "rate-limited": (429, "provider_rate_limited"),
    "server-error": (502, "provider_error"),
    "overloaded": (503, "provider_overloaded"),
    "refuse-key": (502, "provider_error"),
}
EARLY_WHOLE = {
    "too-long-length": (502, "provider_error"),
    "too-short-length": (502, "provider_error"),
    "endless": (502, "provider_error"),
    "gzipped": (502, "provider_error"),
    "redirect": (502, "provider_error"),
    "trailing": (502, "provider_error"),
}
EARLY_STREAM = {"role-then-close": (502, "provider_error")}
# In the middle of a stream: the code of the error event.
LATE = {
    "stall": "provider_timeout",
    "break-off": "provider_error",
    "error-event": None,
    "huge-line": "provider_error",
}
EARLY_CASES = ([(name, stream, *EARLY[name]) for name in EARLY for stream in (False, True)]
               + [(name, False, *wanted) for name, wanted in EARLY_WHOLE.items()]
               + [(name, True, *wanted) for name, wanted in EARLY_STREAM.items()])


@pytest.fixture(scope="module")
def upstream():
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def gateway(stores):
    yield from run_gateway(stores, ai.SETTINGS)


@pytest.fixture(scope="module")
def models(gateway, upstream):
    """Script -> the model that is it alone; "x>y": x first, then y."""
    names = {name: f"only-{name}" for name in scripts}
    for name, model in names.items():
        use_quick(gateway, upstream, model, [name])
    # A provider that failed is left alone for a while: streams have their own.
    for name in EARLY:
        names[f"{name}/stream"] = f"streams-{name}"
        use_quick(gateway, upstream, names[f"{name}/stream"], [name])
    for name in {case[0] for case in EARLY_CASES}:
        names[f"{name}>fine"] = f"first-{name}"
        use_quick(gateway, upstream, names[f"{name}>fine"], [name, "fine"])
    names["redirect/once"] = "redirect-once"
    use_quick(gateway, upstream, "redirect-once", ["redirect"])
    ai.wait_known(gateway, names["fine"])
    return names


def use_quick(gateway, upstream, model, script_names):
    """As upstream.use, by SQL and without waiting: there are many."""
    for number, name in enumerate(script_names):
        made = gateway.operator("provider", "set", {
            "provider": f"{model}-{number}"[-31:].lstrip("-"), "api_key": SECRET,
            "kind": "anthropic" if name.startswith("claude") else "openai",
            "base_url": upstream.anthropic_url if name.startswith("claude") else upstream.url,
            "header_ms": 1500, "idle_ms": 1500, "total_ms": 6000})
        assert made.status_code == 200, made.text
    routes = " ".join(f"{f'{model}-{number}'[-31:].lstrip('-')}={name}" for number, name in enumerate(script_names))
    made = gateway.operator("model", "set", {"model": model, "routes": routes, "price_in": "1", "price_out": "2"})
    assert made.status_code == 200, made.text


def ask(account, model, stream=False, **more):
    return account.call("POST", CHATS, json={"model": model, "stream": stream, "max_tokens": 64,
                                             "messages": [{"role": "user", "content": "hello"}], **more})


def job_of(gateway, answer):
    """The row of an answer's call, once it is there: status, cost, provider, error's code, text."""
    identity = answer.headers["X-Job-Id"]
    return wait_until(lambda: gateway.sql("SELECT status, cost, provider, error_code, answer_text FROM ai_job WHERE id = %s "
                                          "AND completed_at IS NOT NULL", identity), 10, "the row")[0]


def check_money(gateway, account):
    """What the account has is what it had less what its jobs cost, and the books are in order."""
    def settled():
        (has, cost) = gateway.sql(
            "SELECT available + leased, (SELECT coalesce(sum(cost), 0) FROM ai_job j WHERE j.account_id = a.id) "
            "FROM account a JOIN wallet w ON w.account_id = a.id WHERE ref = %s", account.id)[0]
        return has == 10 - cost
    wait_until(settled, 10, "balance = deposits - costs")
    told = gateway.admin("ledger", "check")
    assert told["sound"] and told["violations"] == [], told


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_provider_says_comes_through_and_is_paid_for(gateway, models, stream):
    account = payer(gateway)
    answer = ask(account, models["fine"], stream, **({"stream_options": {"include_usage": True}} if stream else {}))
    if stream:
        chunks = chunks_of(answer)
        assert text_of(chunks) == SAID and {chunk["id"] for chunk in chunks} == {answer.headers["X-Job-Id"]}
        assert [chunk["usage"] for chunk in chunks if chunk.get("usage")] == [
            {**chunks[-1]["usage"], **USAGE}] and chunks[-1]["choices"] == []
        assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]][-1] == "stop"
    else:
        body = answer.json()
        assert answer.status_code == 200 and body["choices"][0]["message"]["content"] == SAID
        assert body["model"] == models["fine"] and body["id"] == answer.headers["X-Job-Id"]
        assert {name: body["usage"][name] for name in USAGE} == USAGE
    assert job_of(gateway, answer)[:2] == ("completed", WHOLE)
    check_money(gateway, account)


def test_a_provider_gets_its_own_key_and_model_and_nothing_of_the_clients(gateway, upstream, models):
    account = payer(gateway)
    assert ask(account, models["fine"]).status_code == 200
    call = upstream.of("fine")[-1]
    assert call.headers["authorization"] == f"Bearer {SECRET}" and call.body["model"] == "fine"
    assert account.key not in json.dumps([call.headers, call.body])


@pytest.mark.parametrize("stream", [False, True])
def test_a_provider_that_speaks_as_anthropic(gateway, upstream, models, stream):
    account = payer(gateway)
    answer = ask(account, models["claude"], stream)
    said = text_of(chunks_of(answer)) if stream else answer.json()["choices"][0]["message"]["content"]
    assert said == SAID and job_of(gateway, answer)[:2] == ("completed", WHOLE)
    call = upstream.of("claude")[-1]
    assert call.path == "/v1/messages" and call.headers["x-api-key"] == SECRET and call.headers["anthropic-version"]
    check_money(gateway, account)


def test_a_stream_of_anthropics_that_fails_in_the_middle(gateway, models):
    account = payer(gateway)
    answer = ask(account, models["claude-breaks"], True)
    *chunks, last = events_of(answer)
    assert text_of(map(json.loads, chunks)) == WORDS[0] and json.loads(last)["error"]["code"]
    status, cost, _, _, text = job_of(gateway, answer)
    assert status == "failed" and text == WORDS[0] and CALL_PRICE < cost < WHOLE
    check_money(gateway, account)
    assert ask(account, models["claude-overloaded"]).status_code == 503


@pytest.mark.parametrize("stream", [False, True])
def test_without_a_count_what_was_delivered_is_estimated(gateway, models, stream):
    account = payer(gateway)
    answer = ask(account, models["uncounted"], stream)
    assert answer.status_code == 200
    tokens = -(-len(SAID) // 4)
    status, cost, *_ = job_of(gateway, answer)
    assert status == "completed" and tokens * PRICE_OUT < cost - CALL_PRICE < 100 * PRICE_IN + tokens * PRICE_OUT
    check_money(gateway, account)


@pytest.mark.parametrize("name", ["negative-usage", "huge-usage"])
def test_counts_that_can_not_be_are_estimated(gateway, models, name):
    account = payer(gateway)
    answer = ask(account, models[name])
    assert answer.status_code == 200
    usage = answer.json()["usage"]
    tokens = -(-len(SAID) // 4)
    assert usage["completion_tokens"] == tokens and 0 < usage["prompt_tokens"] < 100
    assert usage["total_tokens"] == usage["prompt_tokens"] + tokens
    check_money(gateway, account)


def test_no_count_of_a_provider_costs_more_than_was_reserved(gateway, models):
    account = payer(gateway)
    answer = ask(account, models["dear-usage"])
    assert answer.status_code == 200
    _, cost, *_ = job_of(gateway, answer)
    assert CALL_PRICE < cost < CALL_PRICE + 200 * PRICE_IN + 64 * PRICE_OUT  # its prompt's bytes, and max_tokens
    check_money(gateway, account)


def test_a_redirect_is_not_followed(gateway, upstream, models):
    before = len(upstream.calls)
    assert ask(payer(gateway), models["redirect/once"]).status_code == 502
    assert all("elsewhere" not in call.path for call in upstream.calls[before:])


# ---- before the first byte ----

@pytest.mark.parametrize("name, stream, status, code", EARLY_CASES)
def test_a_failure_before_the_first_byte_has_its_status_and_costs_nothing(gateway, models, name, stream, status, code):
    account = payer(gateway)
    began = time.monotonic()
    answer = ask(account, models[f"{name}/stream" if stream and name in EARLY else name], stream)
    assert time.monotonic() - began < 8
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "code", "param"} and (code is None or error["code"] == code)
    assert SECRET not in answer.text and "127.0.0.1" not in answer.text
    if status in (429, 503):
        assert int(answer.headers["Retry-After"]) > 0
    assert job_of(gateway, answer)[:2] == ("failed", 0)
    check_money(gateway, account)


@pytest.mark.parametrize("name, stream", [case[:2] for case in EARLY_CASES])
def test_it_falls_back_to_the_next_provider_and_is_charged_once(gateway, models, name, stream):
    account = payer(gateway)
    answer = ask(account, models[f"{name}>fine"], stream)
    assert answer.status_code == 200, answer.text
    assert (text_of(chunks_of(answer)) if stream else answer.json()["choices"][0]["message"]["content"]) == SAID
    assert job_of(gateway, answer)[1] == WHOLE
    check_money(gateway, account)


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_client_did_wrong_is_not_tried_elsewhere(gateway, upstream, models, stream):
    account = payer(gateway)
    use_quick(gateway, upstream, "wrong-first", ["refuse-request", "fine"])
    ai.wait_known(gateway, "wrong-first")
    before = len(upstream.of("fine"))
    answer = ask(account, "wrong-first", stream, temperature=1.9)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "temperature", answer.text
    assert len(upstream.of("fine")) == before
    check_money(gateway, account)


def test_a_provider_that_is_not_there(gateway, upstream, models):
    import socket
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    account = payer(gateway)
    use_quick(gateway, upstream, "nobody", ["fine"])
    gateway.operator("provider", "set", {"provider": "nobody-0", "base_url": f"http://127.0.0.1:{port}/v1"})
    ai.wait_known(gateway, "nobody")
    answer = ask(account, "nobody")
    assert answer.status_code == 502 and answer.json()["error"]["code"] == "provider_unavailable"
    check_money(gateway, account)


@pytest.mark.parametrize("name, code", [("slow-refusal", 429), ("dribbled-refusal", 503)])
def test_the_words_of_a_refusal_are_not_waited_for(gateway, upstream, name, code):
    """The provider may be silent for a minute, but its status has been said."""
    account = payer(gateway)
    model = use(gateway, upstream, name, [name], idle_ms=60000, total_ms=60000)
    began = time.monotonic()
    answer = ask(account, model)
    assert answer.status_code == code and time.monotonic() - began < 12, answer.text
    check_money(gateway, account)


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_under_status_200_is_one(gateway, upstream, models, stream):
    """As such is known what it means: nobody else is asked what the client did wrong."""
    account = payer(gateway)
    use_quick(gateway, upstream, "false-success", ["refuse-with-200", "fine"])
    ai.wait_known(gateway, "false-success")
    answer = ask(account, "false-success", stream)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "context_length_exceeded", answer.text
    check_money(gateway, account)


@pytest.mark.parametrize("usage", [False, True])
def test_a_provider_that_does_not_stream_serves_who_wants_a_stream(gateway, models, usage):
    account = payer(gateway)
    answer = ask(account, models["never-streams"], True, stream_options={"include_usage": usage})
    chunks = chunks_of(answer)
    assert text_of(chunks) == SAID
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]][-1] == "stop"
    assert [chunk["usage"]["total_tokens"] for chunk in chunks if chunk.get("usage")] == usage * [USAGE["total_tokens"]]
    assert job_of(gateway, answer)[:2] == ("completed", WHOLE)
    check_money(gateway, account)


@pytest.mark.parametrize("name", ["no-done", "cut-at-the-end"])
def test_a_stream_whose_choices_have_ended_is_whole(gateway, models, name):
    account = payer(gateway)
    answer = ask(account, models[name], True)
    assert text_of(chunks_of(answer)) == SAID
    assert job_of(gateway, answer)[0] == "completed"
    check_money(gateway, account)


# ---- in the middle ----

@pytest.mark.parametrize("name", LATE)
def test_a_failure_in_the_middle_is_an_event_and_what_came_is_paid_for(gateway, models, name):
    account = payer(gateway)
    began = time.monotonic()
    answer = ask(account, models[name], True)
    assert time.monotonic() - began < 8
    *chunks, last = events_of(answer)
    error = json.loads(last)["error"]
    assert text_of(map(json.loads, chunks)) == "".join(WORDS[:3])
    assert set(error) == {"message", "type", "code", "param"} and LATE[name] in (None, error["code"])
    assert SECRET not in answer.text
    status, cost, _, _, text = job_of(gateway, answer)
    assert status == "failed" and text == "".join(WORDS[:3]) and CALL_PRICE < cost < WHOLE
    check_money(gateway, account)


def test_a_stream_without_end_is_ended_and_costs_no_more_than_was_reserved(gateway, models):
    account = payer(gateway)
    answer = ask(account, models["endless-stream"], True, max_tokens=1000)
    *chunks, last = events_of(answer)
    assert json.loads(last)["error"]["code"] and len(chunks) > 10
    status, cost, *_ = job_of(gateway, answer)
    assert status == "failed" and cost <= CALL_PRICE + 200 * PRICE_IN + 1000 * PRICE_OUT
    check_money(gateway, account)


# ---- clients that leave, clients that are slow ----

@pytest.mark.parametrize("name, stream", [("silent", False), ("silent", True), ("head-only", False), ("head-only", True),
                                          ("stall", True)])
def test_a_provider_sees_within_a_second_that_the_client_has_left(gateway, upstream, models, name, stream):
    account = payer(gateway)
    before = len(upstream.of(name))
    with pytest.raises(requests.exceptions.RequestException):
        requests.post(gateway.url + CHATS, timeout=0.5, headers={"Authorization": f"Bearer {account.key}"},
                      json={"model": models[name], "stream": stream, "messages": [{"role": "user", "content": "x"}]},
                      stream=False)
    left = time.monotonic()
    call = upstream.of(name)[before]
    wait_until(lambda: call.left_at, 3, "the provider sees it")
    assert call.left_at - left < 1
    (job,) = ai.wait_jobs(gateway, account, 1)
    assert job[1] == "cancelled" and (job[2] > CALL_PRICE if name == "stall" else job[2] == 0)
    check_money(gateway, account)


def test_a_slow_reader_stops_the_provider(gateway, upstream, models):
    """What is sent on and not taken is bounded, whoever has it: the provider's socket backs up."""
    account = payer(gateway)
    before = len(upstream.of("endless-stream"))
    with requests.post(gateway.url + CHATS, stream=True, timeout=10, headers={"Authorization": f"Bearer {account.key}"},
                       json={"model": models["endless-stream"], "stream": True, "max_tokens": 4000,
                             "messages": [{"role": "user", "content": "x"}]}) as answer:
        assert answer.status_code == 200
        call = upstream.of("endless-stream")[before]
        seen = []

        def still():
            seen.append(call.sent)
            return len(seen) > 10 and seen[-1] == seen[-10]
        wait_until(still, 5, "the provider stands still", 0.05)
        assert call.sent < 24 << 20, call.sent
    wait_until(lambda: call.left_at, 3, "and sees that the client has left")


# ---- connections ----

@pytest.mark.parametrize("name", ["fine", "claude"])
@pytest.mark.parametrize("stream", [False, True])
def test_connections_are_kept(gateway, upstream, models, name, stream):
    account = payer(gateway)
    before = len(upstream.of(name))
    for _ in range(20):
        assert ask(account, models[name], stream).status_code == 200
    assert len({call.on for call in upstream.of(name)[before:]}) <= 3


# ---- limits and breakers ----

def test_a_provider_is_left_alone_for_as_long_as_it_says(gateway, upstream):
    account = payer(gateway)
    model = use(gateway, upstream, "limited", ["rate-limited"])
    assert ask(account, model).status_code == 429
    asked = len(upstream.of("rate-limited"))
    told = [ask(account, model) for _ in range(5)]
    assert {answer.status_code for answer in told} == {503} and len(upstream.of("rate-limited")) == asked
    assert all(0 < int(answer.headers["Retry-After"]) <= 2 for answer in told)
    wait_until(lambda: ask(account, model).status_code == 429, 5, "it is asked again", 0.1)
    check_money(gateway, account)


def test_a_provider_that_keeps_failing_is_left_alone_and_tried_again(gateway, upstream):
    account = payer(gateway)
    model = use(gateway, upstream, "flaky", ["paced"])
    upstream.failures["paced"] = 6
    before = len(upstream.of("paced"))
    statuses = [ask(account, model).status_code for _ in range(12)]
    assert statuses == [502] * 5 + [503] * 7 and len(upstream.of("paced")) == before + 5
    began = time.monotonic()

    def told():
        lines = gateway.works[0].log_lines("a provider keeps failing and is left alone for a while")
        return [line["provider"] for line in lines if line["provider"].startswith("flaky")]
    # The log is written behind the answers.
    assert wait_until(told, 5, "the log says so") == ["flaky-0"]
    wait_until(lambda: ask(account, model).status_code == 200, 15, "it works again", 0.1)
    # One more failure was found out by one call, for which the next pause was longer.
    assert len(upstream.of("paced")) == before + 7 and time.monotonic() - began > 2
    check_money(gateway, account)


def test_calls_of_others_go_on_while_a_provider_hangs(gateway, models):
    account = payer(gateway)
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        hanging = [pool.submit(ask, payer(gateway), models["silent"]) for _ in range(3)]
        began = time.monotonic()
        for _ in range(10):
            assert ask(account, models["fine"]).status_code == 200
        assert time.monotonic() - began < 3
        assert {future.result().status_code for future in hanging} == {504}


def test_no_key_of_a_providers_is_logged(gateway, models):
    for part in gateway.parts:
        assert SECRET not in part.log()

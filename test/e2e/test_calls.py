"""Completions and chats: the answers, the errors, the money, and what happens when a client leaves."""

import concurrent.futures
import decimal
import json
import threading
import time

import pytest
import requests

import ai
from accounts import error_of
from ai import CHAT, CHATS, COMPLETIONS, PROMPT, chunks_of, events_of, payer, provide, text_of
from fixtures import run_gateway
from stores import wait_until

CALL = decimal.Decimal("0.001")


@pytest.fixture(scope="module")
def calls(stores):
    yield from run_gateway(stores, ai.SETTINGS)


@pytest.fixture(scope="module")
def account(calls):
    return payer(calls)


@pytest.fixture(scope="module")
def stuck(calls):
    """A model whose streams say three words and then nothing more, and whose other answers come after a minute."""
    return provide(calls, "stuck", stall_after=3, delay_ms=0), provide(calls, "tardy", delay_ms=60000)


# ---- answers ----

@pytest.mark.parametrize("path", ["/api/v1/completions", "/v1/completions"])
def test_a_completion_has_the_seeds_shape(account, path):
    answer = account.call("POST", path, json={**PROMPT, "max_tokens": 1000, "temperature": 0.7})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["object"] == "text_completion" and body["model"] == "gpt-4" and abs(body["created"] - time.time()) < 60
    assert body["id"] == answer.headers["X-Job-Id"] and body["id"].startswith("job_")
    (choice,) = body["choices"]
    assert "Explain quantum computing" in choice["text"] and choice["index"] == 0 and choice["finish_reason"] == "stop"
    usage = body["usage"]
    assert usage["prompt_tokens"] > 0 and usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_the_seeds_curl_lines_work(calls, account):
    """`curl -d` says application/x-www-form-urlencoded, and means JSON."""
    answer = account.call("POST", COMPLETIONS, data='{"model": "gpt-4", "prompt": "Hello", "max_tokens": 50}',
                          headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 200 and answer.json()["choices"][0]["text"]
    answer = requests.post(calls.url + COMPLETIONS, data=b'{"model": "gpt-4", "prompt": "Hello", "max_tokens": 50}',
                           headers={"Authorization": f"Bearer {account.key}"}, timeout=30)
    assert answer.status_code == 200 and "Content-Type" not in answer.request.headers


@pytest.mark.parametrize("path", ["/api/v1/chat/completions", "/v1/chat/completions"])
def test_a_chat_answers_the_last_message(account, path):
    answer = account.call("POST", path, json=CHAT)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    message = body["choices"][0]["message"]
    assert body["object"] == "chat.completion" and message["role"] == "assistant" and "hello there" in message["content"]


def test_a_stream_says_the_same_in_pieces(account):
    whole = account.call("POST", CHATS, json=CHAT).json()["choices"][0]["message"]["content"]
    answer = account.call("POST", CHATS, json={**CHAT, "stream": True, "stream_options": {"include_usage": True}})
    chunks = chunks_of(answer)
    assert text_of(chunks) == whole and len(chunks) > 3
    assert {chunk["id"] for chunk in chunks} == {answer.headers["X-Job-Id"]}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]][-1] == "stop"
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] > 0
    assert text_of(chunks_of(account.call("POST", COMPLETIONS, json={**PROMPT, "stream": True})))


# ---- refusals ----

def problem(answer, status, code, param=None):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param), error
    return error


def test_what_cannot_be_done_is_refused_by_name(account):
    problem(account.call("POST", COMPLETIONS, json={**PROMPT, "model": "gpt-99"}), 404, "model_not_available", "model")
    problem(account.call("POST", COMPLETIONS, json={**PROMPT, "bogus": 1}), 400, "unknown_parameter", "bogus")
    error = problem(account.call("POST", COMPLETIONS, json={**PROMPT, "max_tokens": 100000000}), 400, "invalid_value",
                    "max_tokens")
    assert error["type"] == "invalid_request_error"
    problem(account.call("POST", CHATS, json={**CHAT, "max_completion_tokens": 100000000}), 400, "invalid_value",
            "max_completion_tokens")
    assert account.call("POST", CHATS, json={"model": "gpt-4o-mini"}).status_code == 400
    assert account.call("POST", COMPLETIONS, data="{").status_code == 400


def test_who_has_no_money_is_told_so(calls):
    poor = payer(calls, None)
    assert error_of(poor.call("POST", COMPLETIONS, json=PROMPT), 402, "insufficient_balance") == "Insufficient balance"
    error_of(poor.call("POST", COMPLETIONS, json={**PROMPT, "stream": True}), 402, "insufficient_balance")
    answer = poor.call("POST", COMPLETIONS, json=PROMPT, headers={"Prefer": "respond-async"})
    error_of(answer, 402, "insufficient_balance")
    assert "X-Job-Id" not in answer.headers and "Location" not in answer.headers
    assert poor.call("GET", ai.JOBS).json()["data"] == []


def test_a_day_costs_no_more_than_its_limit(calls):
    account = payer(calls)
    calls.admin("plan", "spend", "--account", account.id, "--most", "0.002")
    statuses = []
    def two_have_passed():
        statuses.append(account.call("POST", COMPLETIONS, json=PROMPT).status_code)
        return statuses[-1] == 402
    wait_until(two_have_passed, 20, "the limit", 0.4)  # what a reactor knows of a plan it believes for 0.9 s
    error_of(account.call("POST", COMPLETIONS, json=PROMPT), 402, "spending_limit_reached")


def test_a_failing_provider_has_its_status_before_the_first_byte(calls, account):
    model = provide(calls, "failing", fail_status=503)
    for body in ({**PROMPT, "model": model}, {**PROMPT, "model": model, "stream": True}):
        answer = account.call("POST", COMPLETIONS, json=body)
        assert answer.status_code == 503 and answer.headers["Retry-After"], answer.text
        assert answer.json()["error"]["type"] in ("server_error", "api_error")
    balance, charged = ai.money_of(calls, account)
    jobs = account.call("GET", ai.JOBS, params={"status": "failed"}).json()["data"]
    assert all(job["cost"] == "0.0" for job in jobs)


# ---- money ----

def test_exactly_ten_pass_where_ten_can_be_paid_for(calls):
    """64 clients at once; the balance is never below zero, and the ledger sums."""
    account = payer(calls, "0.01")
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: ai_call(calls, account), range(64)))
    assert sorted(answers) == [200] * 10 + [402] * 54
    rows = ai.wait_jobs(calls, account, 10)
    assert len(rows) == 10 and all(row[1:3] == ("completed", CALL) for row in rows)
    assert ai.money_of(calls, account) == (0, CALL * 10)
    assert calls.admin("ledger", "check", "--account", account.id)["violations"] == []


def ai_call(gateway, account, **more):
    return requests.post(gateway.url + COMPLETIONS, json={**PROMPT, **more}, timeout=60,
                         headers={"Authorization": f"Bearer {account.key}"}).status_code


def test_tokens_are_charged_at_the_models_prices(calls):
    model = provide(calls, "priced", price_in="0.000003", price_out="0.000015")
    account = payer(calls)
    usage = account.call("POST", COMPLETIONS, json={**PROMPT, "model": model}).json()["usage"]
    cost = CALL + usage["prompt_tokens"] * decimal.Decimal("0.000003") + usage["completion_tokens"] * decimal.Decimal("0.000015")
    (row,) = ai.wait_jobs(calls, account, 1)
    assert row[1:3] == ("completed", cost)
    assert ai.money_of(calls, account) == (10 - cost, cost)


# ---- clients that leave ----

@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_its_call(calls, stuck, stream):
    account = payer(calls)
    model = stuck[0] if stream else stuck[1]
    with pytest.raises(requests.exceptions.RequestException):
        with requests.post(calls.url + COMPLETIONS, json={**PROMPT, "model": model, "stream": stream}, stream=stream,
                           headers={"Authorization": f"Bearer {account.key}"}, timeout=1) as answer:
            for _ in answer.iter_lines():
                pass
    left = time.monotonic()
    (row,) = ai.wait_jobs(calls, account, 1)
    assert time.monotonic() - left < 2 and row[1] == "cancelled"
    # What was delivered is paid for, and nothing else.
    assert (row[2] > 0) == stream


def test_a_client_that_waits_in_line_and_leaves_is_taken_out(calls):
    model = provide(calls, "narrow", max_in_flight=1, delay_ms=2000)
    account = payer(calls)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(ai_call, calls, account, model=model)
        wait_until(lambda: in_line(calls, "narrow")["busy"] == 1, 5, "one runs")
        with pytest.raises(requests.exceptions.ReadTimeout):
            requests.post(calls.url + COMPLETIONS, json={**PROMPT, "model": model}, timeout=0.5,
                          headers={"Authorization": f"Bearer {account.key}"})
        wait_until(lambda: in_line(calls, "narrow")["queued"] == 0, 1, "the line is empty")
        assert first.result() == 200
    assert len(ai.wait_jobs(calls, account, 1)) == 1


def in_line(gateway, provider):
    fields = gateway.stores.redis.client(gateway.redis_database).hgetall(f"ai:provider:{provider}")
    return {name: int(float(fields.get(name.encode(), 0))) for name in ("busy", "queued")}


# ---- backpressure ----

def test_a_full_line_is_said_to_be_full(calls):
    model = provide(calls, "full", max_in_flight=1, queue_calls=4, delay_ms=3000)
    one, other = payer(calls), payer(calls)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        running = [pool.submit(ai_call, calls, one, model=model)]
        wait_until(lambda: in_line(calls, "full")["busy"] == 1, 5, "one runs")
        running += [pool.submit(ai_call, calls, one, model=model) for _ in range(2)]
        wait_until(lambda: in_line(calls, "full")["queued"] == 2, 5, "two wait")
        mine = one.call("POST", COMPLETIONS, json={**PROMPT, "model": model})
        error_of(mine, 429, "rate_limit_exceeded")
        assert int(mine.headers["Retry-After"]) >= 1
        running += [pool.submit(ai_call, calls, other, model=model) for _ in range(2)]
        wait_until(lambda: in_line(calls, "full")["queued"] == 4, 5, "four wait")
        full = payer(calls).call("POST", COMPLETIONS, json={**PROMPT, "model": model})
        error_of(full, 503, "overloaded")
        assert int(full.headers["Retry-After"]) >= 1
        assert [each.result() for each in running] == [200] * 5


def test_who_waits_for_too_long_is_told_in_time(calls):
    model = provide(calls, "late", max_in_flight=1, queue_wait_ms=1000, delay_ms=5000)
    account = payer(calls)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(ai_call, calls, account, model=model)
        wait_until(lambda: in_line(calls, "late")["busy"] == 1, 5, "one runs")
        asked = time.monotonic()
        for body in ({}, {"stream": True}):
            answer = account.call("POST", COMPLETIONS, json={**PROMPT, "model": model, **body})
            error_of(answer, 503, "queue_timeout")
            assert answer.headers["Retry-After"]
        assert time.monotonic() - asked < 4
        assert first.result() == 200
    balance, charged = ai.money_of(calls, account)
    assert charged in (0, CALL)


def test_two_tenants_of_unequal_load_take_turns(calls):
    model = provide(calls, "fair", max_in_flight=1, delay_ms=100)
    many, few = payer(calls), payer(calls)
    order = []
    lock = threading.Lock()

    def ask(account):
        assert ai_call(calls, account, model=model) == 200
        with lock:
            order.append(account)

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        asked = [pool.submit(ask, many) for _ in range(20)]
        wait_until(lambda: in_line(calls, "fair")["queued"] >= 15, 5, "a line")
        asked += [pool.submit(ask, few) for _ in range(4)]
        for each in asked:
            each.result()
    # Each of the four waits for no more than one of the others at a time, and not for all that came before.
    assert max(place for place, account in enumerate(order) if account is few) < 18


# ---- streams ----

def test_a_silent_stream_gets_comments(start_gateway):
    gateway = start_gateway({**ai.SETTINGS, "SSE_COMMENT_SECONDS": "1", "AI_HEAD_SECONDS": "1"})
    model = provide(gateway, "slow", delay_ms=2500)
    account = payer(gateway)
    answer = account.call("POST", COMPLETIONS, json={**PROMPT, "model": model, "stream": True})
    assert answer.text.startswith(":") and text_of(chunks_of(answer))


def test_an_error_in_the_middle_is_an_event_and_the_end(start_gateway):
    """What was delivered before is charged."""
    gateway = start_gateway(ai.SETTINGS)
    model = provide(gateway, "stuck", stall_after=3, idle_ms=500)
    account = payer(gateway)
    answer = account.call("POST", COMPLETIONS, json={**PROMPT, "model": model, "stream": True})
    events = events_of(answer)
    assert events[-1] != "[DONE]" and json.loads(events[-1])["error"]["code"]
    assert text_of(map(json.loads, events[:-1]))
    (row,) = ai.wait_jobs(gateway, account, 1)
    assert row[1] == "failed" and row[2] > 0


# ---- Idempotency-Key ----

@pytest.mark.parametrize("stream", [False, True])
def test_a_key_calls_the_provider_once(calls, stream):
    name = f"once-{'s' if stream else 'u'}"
    model = provide(calls, name, delay_ms=700)
    account = payer(calls)
    key = {"Idempotency-Key": name}
    body = {**PROMPT, "model": model, "stream": stream}

    def ask():
        return requests.post(calls.url + COMPLETIONS, json=body, timeout=30,
                             headers={"Authorization": f"Bearer {account.key}", **key})

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(), range(8)))
    (first,) = [answer for answer in answers if answer.status_code == 200]
    for answer in answers:
        if answer is not first:
            error_of(answer, 409, "idempotency_in_progress")
            assert answer.headers["Retry-After"]
    again = wait_until(lambda: (lambda answer: answer if answer.status_code == 200 else None)(ask()), 5, "the answer again")
    assert again.headers["Idempotent-Replayed"] == "true" and again.text == first.text
    for name in ("X-Job-Id", "Content-Type", "X-Cache"):
        assert again.headers[name] == first.headers[name]
    assert len(ai.wait_jobs(calls, account, 1)) == 1
    assert requests.post(calls.url + COMPLETIONS, json={**body, "prompt": "another"}, timeout=30,
                         headers={"Authorization": f"Bearer {account.key}", **key}).status_code == 422


def test_a_call_with_a_key_goes_on_without_its_client(calls):
    model = provide(calls, "alone", delay_ms=2500)
    account = payer(calls)
    headers = {"Authorization": f"Bearer {account.key}", "Idempotency-Key": "alone"}
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(calls.url + COMPLETIONS, json={**PROMPT, "model": model}, headers=headers, timeout=0.5)
    ask = lambda: requests.post(calls.url + COMPLETIONS, json={**PROMPT, "model": model}, headers=headers, timeout=30)
    answer = wait_until(lambda: (lambda answer: answer if answer.status_code != 409 else None)(ask()), 1, "it is known to have left")
    assert answer.status_code == 202 and answer.headers["Location"] == f"/v1/jobs/{answer.json()['id']}"
    (row,) = ai.wait_jobs(calls, account, 1)
    assert row[1] == "completed"
    answer = ask()
    assert "Location" not in answer.headers and answer.headers["X-Cache"] == "BYPASS"
    assert answer.status_code == 200 and answer.json() == account.call("GET", f"/v1/jobs/{row[0]}").json()["response"]
    assert answer.headers["Idempotent-Replayed"] == "true" and answer.headers["X-Job-Id"] == row[0] == answer.json()["id"]


def test_a_call_with_a_key_is_a_job_from_its_beginning(calls):
    """Also where it is asked for again meanwhile, and where it waits for too long."""
    model = provide(calls, "begun", max_in_flight=1, queue_wait_ms=1000, delay_ms=3000)
    account = payer(calls)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(keyed, account, model, "begun")
        wait_until(lambda: in_line(calls, "begun")["busy"] == 1, 5, "it runs")
        (job,) = account.call("GET", ai.JOBS).json()["data"]
        assert job["status"] == "processing"
        error_of(keyed(account, model, "begun"), 409, "idempotency_in_progress")
        late = [keyed(account, model, "late", stream) for stream in (False, True)]
        assert asked.result().json()["id"] == job["id"]
    for answer in late:
        error_of(answer, 503, "queue_timeout")
    rows = {row[0]: row for row in ai.wait_jobs(calls, account, 3)}
    assert rows.pop(job["id"])[1:3] == ("completed", CALL)
    assert [row[1:3] for row in rows.values()] == [("failed", 0)] * 2
    answer = keyed(account, model, "late")  # nothing was kept
    assert answer.status_code == 200 and "Idempotent-Replayed" not in answer.headers


def keyed(account, model, key, stream=False):
    return account.call("POST", COMPLETIONS, fresh=True, json={**PROMPT, "model": model, "stream": stream},
                        headers={"Idempotency-Key": f"{key}-{stream}"})


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_of_the_provider_leaves_the_key_free(calls, stream):
    """The SDKs ask again by themselves, under the same key."""
    model = provide(calls, "fails-stream" if stream else "fails-whole", fail_status=503)
    account = payer(calls)
    for _ in range(2):
        answer = keyed(account, model, "fails", stream)
        assert answer.status_code == 503 and "Idempotent-Replayed" not in answer.headers, answer.text
    assert [row[1:3] for row in ai.wait_jobs(calls, account, 2)] == [("failed", 0)] * 2


def test_a_refusal_for_want_of_money_is_kept_and_leaves_no_job(calls):
    poor = payer(calls, None)
    first, again = (keyed(poor, "gpt-4", "poor") for _ in range(2))
    error_of(first, 402, "insufficient_balance")
    assert again.text == first.text and again.headers["Idempotent-Replayed"] == "true"
    assert poor.call("GET", ai.JOBS).json()["data"] == []


def test_a_refusal_at_the_door_leaves_the_key_free(calls):
    model = provide(calls, "door", max_in_flight=1, queue_calls=0, delay_ms=1500)
    account = payer(calls)
    key = {"Idempotency-Key": "door"}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(ai_call, calls, account, model=model)
        wait_until(lambda: in_line(calls, "door")["busy"] == 1, 5, "one runs")
        for more in ({}, {"Prefer": "respond-async"}):
            answer = account.call("POST", COMPLETIONS, json={**PROMPT, "model": model}, headers={**key, **more})
            assert answer.status_code in (429, 503), answer.text
            assert "Location" not in answer.headers
        assert first.result() == 200
    answer = account.call("POST", COMPLETIONS, json={**PROMPT, "model": model}, headers=key)
    assert answer.status_code == 200 and "Idempotent-Replayed" not in answer.headers


# ---- the server's end ----

def test_a_restart_loses_no_call(start_gateway):
    """One with one body goes on as a job; a stream ends with an error, and what was delivered is charged."""
    gateway = start_gateway({**ai.SETTINGS, "DRAIN_SECONDS": "2"})
    tardy, stuck = provide(gateway, "tardy", delay_ms=5000), provide(gateway, "stuck", stall_after=3)
    account = payer(gateway)
    serve = gateway.serves[0]

    def ask(model, stream):
        return requests.post(gateway.url + COMPLETIONS, json={**PROMPT, "model": model, "stream": stream}, timeout=30,
                             headers={"Authorization": f"Bearer {account.key}"})

    with concurrent.futures.ThreadPoolExecutor() as pool:
        whole, stream = pool.submit(ask, tardy, False), pool.submit(ask, stuck, True)
        wait_until(lambda: in_line(gateway, "tardy")["busy"] and in_line(gateway, "stuck")["busy"], 5, "both run")
        assert serve.stop() == 0
        whole, stream = whole.result(), stream.result()
    error_of(whole, 503, "server_restarting")
    assert json.loads(events_of(stream)[-1])["error"]["code"] == "server_restarting"
    serve.start().wait_ready()
    rows = {row[0]: row for row in ai.wait_jobs(gateway, account, 2)}
    assert rows[whole.headers["X-Job-Id"]][1:3] == ("completed", CALL)
    assert rows[stream.headers["X-Job-Id"]][1] == "cancelled" and rows[stream.headers["X-Job-Id"]][2] > 0
    job = account.call("GET", f"/v1/jobs/{whole.headers['X-Job-Id']}").json()
    assert job["response"]["choices"][0]["text"]

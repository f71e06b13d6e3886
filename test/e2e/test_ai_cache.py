"""Answers that are given again: to the same account, for exactly the same request, at the model's price for that."""

import decimal

import pytest
import requests

import ai
from accounts import error_of
from ai import CHAT, CHATS, COMPLETIONS, PROMPT, chunks_of, payer, provide, text_of
from fixtures import run_gateway
from stores import wait_until
from upstream import Upstream, use

PRICES = {"price_in": "0.000002", "price_out": "0.00001"}


@pytest.fixture(scope="module")
def calls(stores):
    yield from run_gateway(stores, ai.SETTINGS)


@pytest.fixture(scope="module")
def upstream():
    server = Upstream()
    yield server
    server.close()


@pytest.fixture(scope="module")
def free(calls):
    return provide(calls, "free", cache_percent=0, **PRICES)


@pytest.fixture(scope="module")
def half(calls):
    return provide(calls, "half", cache_seconds=60, cache_percent=50, **PRICES)


def ask(account, body, cache, path=COMPLETIONS):
    answer = account.call("POST", path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Cache"] == cache
    return answer


def costs(gateway, account, count):
    return [row[2] for row in ai.wait_jobs(gateway, account, count)]


def test_who_asks_for_it_gets_the_answer_of_before(calls, free):
    account = payer(calls)
    body = {**PROMPT, "model": free}
    ask(account, body, "BYPASS")
    first = ask(account, {**body, "cache": True}, "MISS").json()
    again = ask(account, {"cache": True, "prompt": PROMPT["prompt"], "model": free}, "HIT").json()
    assert again["choices"] == first["choices"] and again["usage"] == first["usage"] and again["id"] != first["id"]
    ask(account, {**body, "cache": True, "temperature": 0.5}, "MISS")
    job = account.call("GET", f"/v1/jobs/{again['id']}").json()
    assert job["status"] == "completed" and job["cost"] == "0.0" and job["response"]["id"] == again["id"]
    rows = ai.wait_jobs(calls, account, 4)
    assert [row[3] for row in rows if row[0] == again["id"]] == ["cache"]


def test_another_account_gets_none_of_it(calls, free):
    body = {**PROMPT, "prompt": "a secret of mine", "model": free, "cache": True}
    ask(payer(calls), body, "MISS")
    ask(payer(calls), body, "MISS")


def test_a_hit_costs_the_models_share(calls, half):
    account = payer(calls)
    body = {**PROMPT, "model": half}
    usage = ask(account, body, "MISS").json()["usage"]
    ask(account, body, "HIT")
    ask(account, {**body, "cache": False}, "BYPASS")
    whole = (decimal.Decimal("0.001") + usage["prompt_tokens"] * decimal.Decimal("0.000002") +
             usage["completion_tokens"] * decimal.Decimal("0.00001"))
    assert sorted(costs(calls, account, 3)) == [whole / 2, whole, whole]
    assert ai.money_of(calls, account) == (10 - whole * 5 / 2, whole * 5 / 2)
    assert calls.admin("ledger", "check", "--account", account.id)["violations"] == []


def test_a_hit_needs_money_too(calls, half):
    account = payer(calls, "0.02")
    body = {**PROMPT, "model": half, "max_tokens": 100}
    ask(account, body, "MISS")
    def spent():
        answer = account.call("POST", COMPLETIONS, json=body)
        assert answer.headers["X-Cache"] == "HIT"
        return [answer] if answer.status_code == 402 else None
    error_of(wait_until(spent, 30, "no money is left")[0], 402, "insufficient_balance")
    balance, charged = ai.money_of(calls, account)
    assert balance >= 0 and balance + charged == decimal.Decimal("0.02")


@pytest.mark.parametrize("path,body", [(COMPLETIONS, PROMPT), (CHATS, {"messages": CHAT["messages"]})],
                         ids=["completion", "chat"])
def test_a_hit_comes_in_the_shape_that_is_asked_for(calls, half, path, body):
    account = payer(calls)
    body = {**body, "model": half}
    whole = ask(account, body, "MISS", path).json()["choices"][0]
    answer = ask(account, {**body, "stream": True, "stream_options": {"include_usage": True}}, "HIT", path)
    chunks = chunks_of(answer)
    assert text_of(chunks) == whole.get("text", whole.get("message", {}).get("content"))
    assert chunks[0]["choices"][0]["finish_reason"] == "stop" and chunks[-1]["usage"]["total_tokens"] > 0
    assert {chunk["id"] for chunk in chunks} == {answer.headers["X-Job-Id"]}


STREAM = {"stream": True}
USAGE = {"stream_options": {"include_usage": True}}


@pytest.mark.parametrize("path,body", [(COMPLETIONS, PROMPT), (CHATS, {"messages": CHAT["messages"]})],
                         ids=["completion", "chat"])
@pytest.mark.parametrize("wants_usage", [False, True], ids=["", "usage"])
def test_a_streams_answer_is_kept_too(calls, half, path, body, wants_usage):
    account = payer(calls)
    body = {**body, "model": half}
    chunks = chunks_of(ask(account, {**body, **STREAM, **(USAGE if wants_usage else {})}, "MISS", path))
    assert [("usage" in chunk) for chunk in chunks] == [wants_usage] * len(chunks)
    whole = ask(account, body, "HIT", path).json()
    fresh = ask(account, {**body, "cache": False}, "BYPASS", path).json()
    assert {**whole, "id": 0, "created": 0} == {**fresh, "id": 0, "created": 0}
    again = chunks_of(ask(account, {**body, **STREAM, **USAGE}, "HIT", path))
    assert text_of(again) == text_of(chunks) and again[-1]["usage"] == whole["usage"]
    if wants_usage:
        assert chunks[-1]["usage"] == whole["usage"]


def test_a_stream_that_has_no_end_is_not_kept(calls, upstream):
    for name in ("break-off", "stall", "role-then-close"):
        model = use(calls, upstream, f"ends-{name}", [name])
        account = payer(calls)
        body = {"model": model, "messages": CHAT["messages"], "cache": True, **STREAM}
        for _ in range(2):
            answer = account.call("POST", CHATS, json=body)
            assert answer.headers["X-Cache"] == "MISS" and "[DONE]" not in answer.text
    with requests.post(calls.url + CHATS, json={"model": use(calls, upstream, "left", ["paced"]), "cache": True, **STREAM,
                                                "messages": CHAT["messages"]}, stream=True, timeout=30,
                       headers={"Authorization": f"Bearer {account.key}"}) as answer:
        next(answer.iter_content(16))
    ai.wait_jobs(calls, account, 3)
    redis = calls.stores.redis.client(calls.redis_database)
    number = calls.sql("SELECT id FROM account WHERE ref = %s", account.id)[0][0]
    assert list(redis.scan_iter(f"ai:cache:{number}:*")) == []


def test_a_providers_stream_is_kept_as_it_was(calls, upstream):
    for name in ("fine", "uncounted", "claude"):
        model = use(calls, upstream, f"keeps-{name}", [name])
        account = payer(calls)
        body = {"model": model, "messages": CHAT["messages"], "max_tokens": 64, "cache": True}
        chunks = chunks_of(ask(account, {**body, **STREAM, **USAGE}, "MISS", CHATS))
        whole = ask(account, body, "HIT", CHATS).json()
        assert whole["choices"][0]["message"]["content"] == text_of(chunks) and whole["usage"] == chunks[-1]["usage"]
        assert whole["choices"][0]["finish_reason"] == chunks[-2]["choices"][0]["finish_reason"]


def test_a_hit_is_kept_under_its_key(calls, half):
    account = payer(calls)
    for stream in (False, True):
        body = {**PROMPT, "prompt": f"kept {stream}", "model": half}
        ask(account, body, "MISS")
        key = {"Idempotency-Key": f"hit-{stream}"}
        first, again = (account.call("POST", COMPLETIONS, json={**body, "stream": stream}, headers=key) for _ in range(2))
        assert first.headers["X-Cache"] == "HIT" and again.text == first.text
        assert again.headers["Idempotent-Replayed"] == "true" and again.headers["Content-Type"] == first.headers["Content-Type"]
    assert len(costs(calls, account, 4)) == 4


def test_an_answer_is_given_for_its_time(calls):
    model = provide(calls, "brief", cache_seconds=1)
    account = payer(calls)
    body = {**PROMPT, "model": model}
    ask(account, body, "MISS")
    wait_until(lambda: account.call("POST", COMPLETIONS, json=body).headers["X-Cache"] == "MISS", 5, "its time is over", 0.2)

"""AI calls over python-requests: accounts that can pay, providers that behave as a test needs it, streams as they come."""

import json
import time

import requests

from accounts import SETTINGS as ACCOUNT_SETTINGS, Account
from stores import wait_until

SETTINGS = {**ACCOUNT_SETTINGS, "MAX_CONNECTIONS": "20000"}
PROMPT = {"model": "gpt-4", "prompt": "Explain quantum computing"}
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello there"}]}
COMPLETIONS, CHATS, JOBS = "/v1/completions", "/v1/chat/completions", "/v1/jobs"


def payer(gateway, dollars="10", **options):
    """A new account with so much money."""
    account = Account(gateway, **options)
    if dollars:
        answer = account.call("POST", "/v1/account/deposit", json={"amount": dollars, "currency": "USD"})
        assert answer.status_code == 201, answer.text
    return account


def provide(gateway, name, model=None, routes=None, **options):
    """A sandbox provider of its own, with options of table provider, and a model on it; the model's name. Known everywhere when
    it returns."""
    model_options = {key: options.pop(key) for key in ("price_in", "price_out", "cache_seconds", "cache_percent", "max_output",
                                                       "default_output") if key in options}
    insert(gateway, "provider", {"name": name, "kind": "sandbox", **options})
    model = model or f"model-{name}"
    insert(gateway, "model", {"id": model, "owned_by": "tests", **model_options})
    for position, provider in enumerate(routes or [name]):
        insert(gateway, "model_route", {"model_id": model, "position": position, "provider": provider,
                                        "upstream_model": "sandbox"})
    wait_known(gateway, model)
    return model


def insert(gateway, table, values):
    places = ", ".join(["%s"] * len(values))
    gateway.sql(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", *values.values())


def wait_known(gateway, model):
    """Until every server lists it; workers read the catalogue as often, so they are given the same time again."""
    key = gateway.admin("key", "create", "--account", "looks", "--surface", "inference")["key"]
    gateway.admin("plan", "set", "--account", "looks", "--surface", "inference", "--plan", "enterprise")
    headers = {"Authorization": f"Bearer {key}"}
    for part in gateway.serves:
        wait_until(lambda: requests.get(part.url() + "/v1/models/" + model, headers=headers, timeout=10).status_code == 200,
                   10, f"{model} is known")
    time.sleep(1.5)  # what a worker knows of the catalogue is never older


def events_of(answer):
    """The data of a stream's events."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    blocks = [block for block in answer.text.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks), blocks
    return [block[6:] for block in blocks]


def chunks_of(answer):
    """The chunks of a stream that came to its end."""
    *chunks, last = events_of(answer)
    assert last == "[DONE]"
    return [json.loads(chunk) for chunk in chunks]


def text_of(chunks):
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or ""
                   for chunk in chunks for choice in chunk["choices"])


def money_of(gateway, account):
    """What the account has, as (balance, charged): once nothing of it is in work."""
    (row,) = gateway.sql("SELECT coalesce(available + leased, 0), (SELECT coalesce(sum(amount), 0) FROM ledger_transfer t "
                         "WHERE t.account_id = a.id AND kind IN ('charge', 'overdue')) "
                         "FROM account a LEFT JOIN wallet w ON w.account_id = a.id WHERE a.ref = %s", account.id)
    return row


def wait_jobs(gateway, account, count):
    """The rows of the account's jobs, once that many have ended."""
    def ended():
        rows = gateway.sql("SELECT j.id, j.status, j.cost, j.provider FROM ai_job j JOIN account a ON a.id = j.account_id "
                           "WHERE a.ref = %s AND completed_at IS NOT NULL ORDER BY j.seq", account.id)
        return rows if len(rows) >= count else None
    return wait_until(ended, 15, f"{count} jobs have ended")

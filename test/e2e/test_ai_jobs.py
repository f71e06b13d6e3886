"""AI calls as jobs: accepted, looked at, listed, cancelled, and finished whatever happens to who runs them."""

import concurrent.futures
import contextlib
import http.client
import json
import re
import signal
import time

import pytest
import requests

import ai
from accounts import error_of
from ai import CHAT, CHATS, COMPLETIONS, JOBS, PROMPT, chunks_of, payer, provide
from fixtures import run_gateway
from stores import wait_until

ASYNC = {"Prefer": "respond-async"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
UNKNOWN = "job_" + "0" * 22


@pytest.fixture(scope="module")
def calls(stores):
    yield from run_gateway(stores, ai.SETTINGS)


@pytest.fixture(scope="module")
def account(calls):
    return payer(calls)


@pytest.fixture(scope="module")
def tardy(calls):
    """A model that answers after a minute."""
    return provide(calls, "tardy", delay_ms=60000)


def job_of(account, job_id):
    answer = account.call("GET", f"{JOBS}/{job_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def wait_status(account, job_id, status):
    return wait_until(lambda: (lambda job: job if job["status"] == status else None)(job_of(account, job_id)), 15,
                      f"{job_id} is {status}")


@pytest.mark.parametrize("prefix", ["/api/v1", "/v1"])
def test_a_job_is_accepted_at_once_and_asked_for_later(account, prefix):
    answer = account.call("POST", prefix + "/completions", json=PROMPT, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert job["status"] == "queued" and job["object"] == "job" and job["result"] is None and job["completed_at"] is None
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}" and answer.headers["X-Job-Id"] == job["id"]
    assert answer.headers["Preference-Applied"] == "respond-async"
    done = wait_status(account, job["id"], "completed")
    assert TIME.fullmatch(done["created_at"]) and TIME.fullmatch(done["completed_at"]) and done["cost"] == "0.001"
    assert done["result"]["text"] == done["response"]["choices"][0]["text"]
    assert done["result"]["tokens_used"] == done["usage"]["total_tokens"] == done["response"]["usage"]["total_tokens"] > 0
    assert done["error"] is None and done["response"]["id"] == job["id"]
    assert account.call("GET", f"{prefix}/jobs/{job['id']}").json() == done


def test_a_chat_is_a_job_too_and_a_stream_is_served_at_once(account):
    answer = account.call("POST", CHATS, json=CHAT, headers=ASYNC)
    assert wait_status(account, answer.json()["id"], "completed")["kind"] == "chat"
    with contextlib.closing(http.client.HTTPConnection(account.gateway.url.removeprefix("http://"), timeout=30)) as connection:
        body = json.dumps(CHAT).encode()
        connection.putrequest("POST", CHATS)
        for name, value in (("Authorization", f"Bearer {account.key}"), ("Content-Length", str(len(body))),
                            ("Prefer", "wait=1"), ("Prefer", "respond-async; x=1")):  # two fields are one list
            connection.putheader(name, value)
        connection.endheaders(body)
        assert connection.getresponse().status == 202
    answer = account.call("POST", CHATS, json={**CHAT, "stream": True}, headers={"Prefer": "foo, respond-async"})
    assert chunks_of(answer) and "Preference-Applied" not in answer.headers


def test_a_call_that_was_answered_is_known_at_once(account):
    """Its row is written later, together with others."""
    for body in (PROMPT, {**PROMPT, "stream": True}):
        answer = account.call("POST", COMPLETIONS, json=body)
        job = job_of(account, answer.headers["X-Job-Id"])
        assert job["status"] == "completed" and job["cost"] == "0.001" and job["streamed"] == body.get("stream", False)
        assert job["result"]["text"] and (job["response"] is None) == job["streamed"]


def test_jobs_are_listed_newest_first(calls):
    account = payer(calls)
    ids = [account.call("POST", COMPLETIONS, json=PROMPT, headers=ASYNC).json()["id"] for _ in range(5)]
    for each in ids:
        wait_status(account, each, "completed")
    ai.wait_jobs(calls, account, 5)
    listed, cursor = [], None
    while True:
        page = account.call("GET", JOBS, params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        assert page["object"] == "list" and len(page["data"]) <= 2
        listed += [job["id"] for job in page["data"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert listed == ids[::-1]
    assert len(account.call("GET", JOBS, params={"status": "completed"}).json()["data"]) == 5
    assert account.call("GET", JOBS, params={"status": "failed"}).json()["data"] == []
    error_of(account.call("GET", JOBS, params={"status": "bogus"}), 400, "invalid_parameter")
    error_of(account.call("GET", JOBS, params={"limit": 0}), 400, "invalid_parameter")


def test_anothers_job_is_as_one_that_never_was(calls, account, tardy):
    job = account.call("POST", COMPLETIONS, json={**PROMPT, "model": tardy}, headers=ASYNC).json()["id"]
    other = payer(calls)
    for method in ("GET", "DELETE"):
        anothers, never = (other.call(method, f"{JOBS}/{each}") for each in (job, UNKNOWN))
        error_of(anothers, 404, "not_found")
        assert anothers.text == never.text
    error_of(other.call("GET", f"{JOBS}/nonsense"), 404, "not_found")
    assert job_of(account, job)["status"] in ("queued", "processing")
    assert account.call("DELETE", f"{JOBS}/{job}").json()["status"] == "cancelled"


def test_a_running_job_is_cancelled_at_its_provider(calls, account, tardy):
    job = account.call("POST", COMPLETIONS, json={**PROMPT, "model": tardy}, headers=ASYNC).json()["id"]
    wait_status(account, job, "processing")
    asked = time.monotonic()
    answer = account.call("DELETE", f"{JOBS}/{job}")
    assert answer.status_code == 200 and answer.json()["status"] == "cancelled" and answer.json()["cost"] == "0.0"
    assert time.monotonic() - asked < 1.5
    assert account.call("DELETE", f"{JOBS}/{job}").json()["status"] == "cancelled"
    wait_until(lambda: busy(calls, "tardy") == 0, 2, "the place is free")


def test_a_job_is_cancelled_at_any_moment_of_its_beginning(account, tardy):
    for _ in range(20):
        job = account.call("POST", COMPLETIONS, json={**PROMPT, "model": tardy}, headers=ASYNC).json()["id"]
        assert account.call("DELETE", f"{JOBS}/{job}").json()["status"] == "cancelled"


def busy(gateway, provider):
    return int(float(gateway.stores.redis.client(gateway.redis_database).hget(f"ai:provider:{provider}", "busy") or 0))


def test_a_call_whose_client_waits_is_cancelled_from_elsewhere(account, tardy):
    for stream in (False, True):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            waiting = pool.submit(account.call, "POST", COMPLETIONS, json={**PROMPT, "model": tardy, "stream": stream},
                                  headers={"X-Request-Id": "waits"})
            job = wait_until(lambda: next(iter(running(account)), None), 5, "it runs")
            assert job_of(account, job)["status"] == "processing"
            assert account.call("DELETE", f"{JOBS}/{job}").json()["status"] == "cancelled"
            error_of(waiting.result(), 410, "cancelled")


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_in_line_whose_client_waits_is_cancelled_from_elsewhere(calls, stream):
    model = provide(calls, "line-stream" if stream else "line-whole", max_in_flight=1, delay_ms=20000)
    account = payer(calls)
    first = account.call("POST", COMPLETIONS, json={**PROMPT, "model": model}, headers=ASYNC).json()["id"]
    wait_status(account, first, "processing")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(account.call, "POST", COMPLETIONS, json={**PROMPT, "model": model, "stream": stream})
        job = wait_until(lambda: next(iter(running(account, b"wait")), None), 5, "it waits")
        asked = time.monotonic()
        answer = account.call("DELETE", f"{JOBS}/{job}")
        assert (answer.json()["status"], answer.json()["cost"]) == ("cancelled", "0.0")
        error_of(waiting.result(), 410, "cancelled")
        assert time.monotonic() - asked < 2
    account.call("DELETE", f"{JOBS}/{first}")


def running(account, state=b"run"):
    """Ids of the account's calls that are in Redis in that state."""
    redis = account.gateway.stores.redis.client(account.gateway.redis_database)
    number = str(account.gateway.sql("SELECT id FROM account WHERE ref = %s", account.id)[0][0]).encode()
    return [key.decode().rpartition(":")[2] for key in redis.scan_iter("ai:call:*")
            if redis.hmget(key, "a", "s") == [number, state]]


def test_a_job_in_line_is_cancelled_for_nothing(calls):
    model = provide(calls, "single", max_in_flight=1, delay_ms=3000)
    account = payer(calls)
    first, second = (account.call("POST", COMPLETIONS, json={**PROMPT, "model": model}, headers=ASYNC).json()["id"]
                     for _ in range(2))
    wait_status(account, first, "processing")
    assert job_of(account, second)["status"] == "queued"
    answer = account.call("DELETE", f"{JOBS}/{second}")
    assert answer.status_code == 200 and (answer.json()["status"], answer.json()["cost"]) == ("cancelled", "0.0")
    wait_status(account, first, "completed")
    assert {row[1] for row in ai.wait_jobs(calls, account, 2)} == {"completed", "cancelled"}


def test_what_has_ended_cannot_be_cancelled(account):
    job = account.call("POST", COMPLETIONS, json=PROMPT).json()["id"]
    error_of(account.call("DELETE", f"{JOBS}/{job}"), 409, "job_ended")


def test_keys_hold_for_jobs(calls, account, tardy):
    key = {"Idempotency-Key": "a-job"}
    first = account.call("POST", COMPLETIONS, json=PROMPT, headers={**ASYNC, **key})
    again = account.call("POST", COMPLETIONS, json=PROMPT, headers={**ASYNC, **key})
    assert again.status_code == 202 and again.text == first.text and again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"]
    job = account.call("POST", COMPLETIONS, json={**PROMPT, "model": tardy}, headers=ASYNC).json()["id"]
    key = {"Idempotency-Key": "its-end"}
    first = account.call("DELETE", f"{JOBS}/{job}", headers=key)
    again = account.call("DELETE", f"{JOBS}/{job}", headers=key)
    assert first.json()["status"] == "cancelled" and again.text == first.text
    assert again.headers["Idempotent-Replayed"] == "true"


def test_a_failed_job_says_why(calls):
    model = provide(calls, "broken", fail_status=400)
    account = payer(calls)
    job = account.call("POST", COMPLETIONS, json={**PROMPT, "model": model}, headers=ASYNC).json()["id"]
    failed = wait_status(account, job, "failed")
    assert failed["error"]["code"] and failed["error"]["message"] and failed["result"] is None and failed["cost"] == "0.0"


def test_scopes_of_jobs(calls, account):
    reads = account.make_key(scopes=["jobs:read"])["key"]
    calls_only = account.make_key(scopes=["ai:call"])["key"]
    job = account.call("POST", COMPLETIONS, calls_only, json=PROMPT).json()["id"]
    error_of(account.call("GET", f"{JOBS}/{job}", calls_only), 403, "insufficient_scope")
    assert account.call("GET", f"{JOBS}/{job}", reads).status_code == 200
    error_of(account.call("POST", COMPLETIONS, reads, json=PROMPT), 403, "insufficient_scope")


def test_accepted_jobs_survive_a_server_and_a_worker(start_gateway):
    gateway = start_gateway(ai.SETTINGS, serves=2)
    model = provide(gateway, "steady", delay_ms=1500)
    account = payer(gateway)
    ids = [account.call("POST", COMPLETIONS, json={**PROMPT, "model": model}, headers=ASYNC).json()["id"] for _ in range(6)]
    gateway.works[0].kill()
    gateway.serves[1].stop()
    gateway.works[0].start().wait_ready()
    for each in ids:
        assert wait_until(lambda each=each: (lambda job: job if job["completed_at"] else None)(job_of(account, each)), 30,
                          "it has ended")["status"] == "completed"
    rows = ai.wait_jobs(gateway, account, 6)
    assert len(rows) == 6
    assert gateway.admin("ledger", "check", "--account", account.id)["violations"] == []


def test_a_job_that_is_submitted_again_keeps_to_its_bounds(start_gateway):
    """Redis has lost jobs that wait. Submitted again, one is held to what its account may spend by now, and one whose time is over is
    not run: both end, for nothing. The third runs."""
    gateway = start_gateway(ai.SETTINGS)
    model = provide(gateway, "patient", delay_ms=10)
    spent, late, well = (payer(gateway) for _ in range(3))
    gateway.works[0].stop()
    ids = {account: account.call("POST", COMPLETIONS, json={**PROMPT, "model": model}, headers=ASYNC).json()["id"]
           for account in (spent, late, well)}
    gateway.stores.redis.client(gateway.redis_database).flushdb()
    gateway.admin("plan", "spend", "--account", spent.id, "--most", "0.0001")
    gateway.sql("UPDATE ai_job SET meta = (meta::jsonb || '{\"created\": 1}')::text WHERE id = %s", ids[late])
    gateway.sql("UPDATE ai_job SET ring_at = now()")
    gateway.works[0].start().wait_ready()
    for account, status, code in ((spent, "failed", "spending_limit_reached"), (late, "failed", "queue_timeout"),
                                  (well, "completed", None)):
        job = wait_status(account, ids[account], status)
        assert (job["error"] or {}).get("code") == code, job
        ((_, _, cost),) = [row[:3] for row in ai.wait_jobs(gateway, account, 1)]
        assert (cost > 0) == (status == "completed")
        assert gateway.admin("ledger", "check", "--account", account.id)["violations"] == []


def test_a_job_in_line_whose_time_is_over_leaves_the_line(start_gateway):
    """However often its row is due, it is not run after its time; what was reserved for it is free again."""
    gateway = start_gateway(ai.SETTINGS)
    model = provide(gateway, "narrow", max_in_flight=1, delay_ms=20000)
    account = payer(gateway)
    first, second = (account.call("POST", COMPLETIONS, json={**PROMPT, "model": model}, headers=ASYNC).json()["id"]
                     for _ in range(2))
    wait_status(account, first, "processing")
    gateway.sql("UPDATE ai_job SET meta = (meta::jsonb || '{\"created\": 1}')::text, ring_at = now() WHERE id = %s", second)
    job = wait_status(account, second, "failed")
    assert job["error"]["code"] == "queue_timeout" and job["cost"] == "0.0", job
    redis = gateway.stores.redis.client(gateway.redis_database)
    assert int(redis.hget("ai:provider:narrow", "queued")) == 0
    assert account.call("DELETE", f"{JOBS}/{first}").status_code == 200
    wait_status(account, first, "cancelled")

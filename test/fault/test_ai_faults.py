"""AI calls while workers and stores die: each client gets an answer or a clear error, each accepted job ends, nothing is charged
twice or for nothing, and what was reserved comes back."""

import asyncio
import contextlib
import decimal
import json
import os
import random
import re
import signal
import socket
import threading
import time
import uuid as uuids

import pytest
import requests

import ai
from ai import CHATS, payer, text_of
from stores import wait_until
from upstream import USAGE, WORDS, Upstream, use
from wakegate import ROOT

USD = decimal.Decimal
WHOLE = USD("0.001") + USAGE["prompt_tokens"] * USD("0.000001") + USAGE["completion_tokens"] * USD("0.000002")
SAID = "".join(WORDS)
LOAD_S = 8
CLIENTS = 6
SHORT = {**ai.SETTINGS, "PG_TIMEOUT_MS": "2000", "LEASE_IDLE_SECONDS": "1", "AI_CALL_SECONDS": "20"}
KINDS = ("whole", "stream", "job", "keyed")
INSIST_S = 60


@pytest.fixture(scope="module")
def upstream():
    server = Upstream()
    yield server
    server.close()


class Outcome:
    """What a client came to: the status, whether it has all of the answer, the job's id."""

    def __init__(self, kind, answer):
        self.kind = kind
        self.job = answer.headers.get("X-Job-Id")
        self.status = answer.status_code
        self.error = None
        self.whole = False
        if self.status == 202:
            self.job = answer.json()["id"]
        elif self.status != 200:
            self.error = answer.json()["error"]
        elif kind in ("whole", "keyed"):
            self.whole = answer.json()["choices"][0]["message"]["content"] == SAID
            assert self.whole
        else:
            self._read_stream(answer)

    def _read_stream(self, answer):
        events = [block[6:] for block in answer.text.split("\n\n") if block.startswith("data: ")]
        if events[-1] == "[DONE]":
            chunks, self.whole = events[:-1], True
        else:
            chunks, self.error = events[:-1], json.loads(events[-1])["error"]
        self.text = text_of(map(json.loads, chunks))
        assert self.text == SAID if self.whole else SAID.startswith(self.text), self.text


def ask(account, model, kind, timeout_s=60):
    if kind == "keyed":
        return insist(account, model)
    headers = {"Authorization": f"Bearer {account.key}", **({"Prefer": "respond-async"} if kind == "job" else {})}
    answer = requests.post(account.gateway.serves[0].url() + CHATS, headers=headers, timeout=timeout_s,
                           json={"model": model, "stream": kind == "stream", "max_tokens": 64,
                                 "messages": [{"role": "user", "content": "hello"}]})
    return Outcome(kind, answer)


def insist(account, model):
    """Under one key until there is an answer."""
    key, until = str(uuids.uuid4()), time.monotonic() + INSIST_S
    while True:
        answer = requests.post(account.gateway.serves[0].url() + CHATS, timeout=60, json={
            "model": model, "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]},
            headers={"Authorization": f"Bearer {account.key}", "Idempotency-Key": key})
        if answer.status_code == 200 or time.monotonic() > until:
            return Outcome("keyed", answer)
        assert answer.status_code == 202 or answer.json()["error"]["code"], answer.text
        time.sleep(0.05)


def rows_of(gateway, account):
    """The account's jobs: id -> (status, cost, error's code)."""
    return {row[0]: row[1:] for row in gateway.sql(
        "SELECT j.id, j.status, j.cost, j.error_code FROM ai_job j JOIN account a ON a.id = j.account_id "
        "WHERE a.ref = %s", account.id)}


def check_money(gateway, account, deposited=USD(10)):
    """Once all is quiet: what the account has is what its jobs left of it, each charge is a job's, and nothing is reserved."""
    def quiet():
        (has, leased) = gateway.sql("SELECT available + leased, leased FROM wallet JOIN account ON account.id = account_id "
                                    "WHERE ref = %s", account.id)[0]
        (cost,) = gateway.sql("SELECT coalesce(sum(cost), 0) FROM ai_job j JOIN account a ON a.id = j.account_id "
                              "WHERE a.ref = %s", account.id)[0]
        state.append((has, leased, cost))
        return leased == 0 and has == deposited - cost
    state = []
    try:
        wait_until(quiet, 60, "the reserve is back and the sum is right", 0.2)
    except AssertionError as error:
        raise AssertionError(f"{error}: has, leased, cost = {state[-1]}") from None
    wrong = gateway.sql("SELECT t.ref, t.amount, j.cost FROM ledger_transfer t LEFT JOIN ai_job j ON j.id = t.ref "
                        "WHERE t.kind IN ('charge', 'overdue') AND t.amount IS DISTINCT FROM j.cost")
    assert wrong == []
    told = gateway.admin("ledger", "check")
    assert told["sound"] and told["violations"] == [], told
    store = gateway.stores.redis.client(gateway.redis_database)
    for key in store.scan_iter("ai:provider:*"):
        assert int(store.hget(key, "busy") or 0) == 0 and int(store.hget(key, "queued") or 0) == 0, store.hgetall(key)


def check_ends(gateway, account, outcomes):
    """Every call that was accepted has one row that says what its client was told."""
    def ended():
        rows = rows_of(gateway, account)
        left = [outcome.job for outcome in outcomes if outcome.kind == "job" and outcome.status == 202
                and rows.get(outcome.job, ("none",))[0] in ("none", "queued", "processing")]
        seen[:] = left
        return not left
    seen = []
    try:
        wait_until(ended, 90, "every accepted job has ended", 0.2)
    except AssertionError as error:
        rows = gateway.sql("SELECT id, status, fence, worker, ring_at - now(), now() - created_at FROM ai_job WHERE id = ANY (%s)",
                           seen)
        raise AssertionError(f"{error}: {rows}") from None

    def told():
        rows = rows_of(gateway, account)
        return all(rows.get(outcome.job, ("none",))[:2] == ("completed", WHOLE) for outcome in outcomes if outcome.whole)
    wait_until(told, 30, "who has a whole answer has paid for it, once", 0.2)


# ---- crash points ----

def crash_points():
    with open(os.path.join(ROOT, "core/base/crash.h"), encoding="utf-8") as file:
        return re.findall(r'^ *X\("(ai-[a-z-]+)"', file.read(), re.MULTILINE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("point", crash_points())
def test_a_worker_killed_at_this_point_neither_loses_nor_doubles_the_call(start_gateway, upstream, tmp_path, point, kind):
    if point == "ai-first-piece" and kind != "stream":
        pytest.skip("only streams have pieces")
    extra = {"WAKEGATE_CRASH_AT": point, "WAKEGATE_CRASH_ONCE": str(tmp_path / "crashed")}
    gateway = start_gateway(SHORT, work_env=extra, supervised=True)
    account = payer(gateway)
    model = use(gateway, upstream, "paced", ["paced"])
    before = len(upstream.of("paced"))
    outcome = ask(account, model, kind)
    assert outcome.status in (200, 202), outcome.error
    if kind == "job":
        wait_until(lambda: rows_of(gateway, account)[outcome.job][0] == "completed", 60, "the job ends", 0.1)
        assert rows_of(gateway, account)[outcome.job][1] == WHOLE
    elif point in ("ai-first-piece", "ai-answered") and kind == "stream":
        # It had begun: what was delivered is paid for, and the rest can't come.
        assert outcome.error["code"] and outcome.text and SAID.startswith(outcome.text)
        wait_until(lambda: rows_of(gateway, account).get(outcome.job, [None])[0] == "failed", 30, "the row")
        assert 0 < rows_of(gateway, account)[outcome.job][1] <= WHOLE + USD("0.0002")
    else:
        assert outcome.whole
        check_ends(gateway, account, [outcome])
    assert (tmp_path / "crashed").exists()
    wait_until(lambda: gateway.works[0].statuses == [-9], 10, "it was killed once")
    assert len(rows_of(gateway, account)) == 1 and len(upstream.of("paced")) - before <= 2
    check_money(gateway, account)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_server_killed_behind_the_row_of_a_call_with_a_key_loses_nothing(start_gateway, upstream, tmp_path, stream):
    """The queue has not heard of it: the row is due, and the repetition gets what it came to."""
    gateway = start_gateway(SHORT, serve_env={
        "WAKEGATE_CRASH_AT": "call-accepted", "WAKEGATE_CRASH_ONCE": str(tmp_path / "crashed")})
    serve = gateway.serves[0]
    account = payer(gateway)
    model = use(gateway, upstream, "kept", ["fine"])
    before = len(upstream.of("fine"))

    def ask_again():
        try:
            answer = requests.post(serve.url() + CHATS, timeout=30, json={
                "model": model, "stream": stream, "max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]},
                headers={"Authorization": f"Bearer {account.key}", "Idempotency-Key": "kept"})
        except requests.exceptions.ConnectionError:
            return None
        if answer.status_code == 409:
            assert int(answer.headers["Retry-After"]) > 0
            return None
        return answer

    assert ask_again() is None and serve.wait() == -signal.SIGKILL
    serve.start().wait_ready()
    answer = wait_until(ask_again, 30, "the answer", 0.3)
    outcome = Outcome("stream" if stream else "whole", answer)
    assert outcome.whole and answer.headers["Idempotent-Replayed"] == "true"
    check_ends(gateway, account, [outcome])
    assert len(rows_of(gateway, account)) == 1 and len(upstream.of("fine")) - before == 1
    assert ask_again().text == answer.text
    check_money(gateway, account)


# ---- under load ----

class Load:
    """Clients that call in all ways, one after the other."""

    def __init__(self, gateway, upstream, clients=CLIENTS):
        self.gateway = gateway
        self.model = use(gateway, upstream, "quick", ["fine"])
        self.account = payer(gateway)
        self.outcomes = []
        self.broken = 0
        self.errors = []
        self.ending = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def _run(self, number):
        kinds = random.Random(number)
        while not self.ending.is_set():
            try:
                outcome = ask(self.account, self.model, kinds.choice(KINDS))
                if outcome.status not in (200, 202):
                    assert outcome.status in (429, 500, 502, 503, 504) and outcome.error["code"], vars(outcome)
                    time.sleep(0.05)
                with self.lock:
                    self.outcomes.append(outcome)
            except Exception as error:
                with self.lock:
                    self.errors.append(error)
                return

    def whole(self):
        with self.lock:
            return sum(outcome.whole for outcome in self.outcomes)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def check(self):
        assert self.errors == []
        kinds = [outcome.kind for outcome in self.outcomes if outcome.whole or outcome.status == 202]
        assert all(kinds.count(kind) > 3 for kind in KINDS), {kind: kinds.count(kind) for kind in KINDS}
        check_ends(self.gateway, self.account, self.outcomes)
        check_money(self.gateway, self.account)


def kill_a_worker(gateway):
    random.choice(gateway.works).process.kill()


def restart_redis(gateway):
    gateway.stores.redis.stop(signal.SIGKILL)
    gateway.stores.redis.start()


def restart_postgres(gateway):
    gateway.stores.postgres.stop(signal.SIGINT)
    gateway.stores.postgres.start()


FAULTS = {
    "worker-killed": kill_a_worker,
    "redis-emptied": lambda gateway: gateway.stores.redis.client(gateway.redis_database).flushdb(),
    "redis-restarted": restart_redis,
    "postgresql-restarted": restart_postgres,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_calls_go_on_through_faults(own_stores, start_gateway, upstream, fault):
    gateway = start_gateway(SHORT, stores=own_stores, works=2, supervised=True)
    with Load(gateway, upstream) as load:
        end = time.monotonic() + LOAD_S
        while time.monotonic() < end or load.whole() < 30:
            before = load.whole()
            assert time.monotonic() < end + 60 and not load.errors, load.errors
            with contextlib.suppress(AssertionError):
                wait_until(lambda: load.whole() > before + 2 or load.errors, 15, "calls are answered")
            time.sleep(random.uniform(0, 0.3))
            FAULTS[fault](gateway)
        before = load.whole()
        wait_until(lambda: load.whole() > before + 5 or load.errors, 60, "calls are answered afterwards")
    load.check()


def test_a_worker_that_is_told_to_end_loses_no_call(start_gateway, upstream):
    """Unstreamed calls and jobs are ended by it or by the other; streams end."""
    gateway = start_gateway({**SHORT, "DRAIN_SECONDS": "2"}, works=2, supervised=True)
    with Load(gateway, upstream) as load:
        for _ in range(6):
            before = load.whole()
            wait_until(lambda: load.whole() > before + 5 or load.errors, 60, "calls are answered")
            work = random.choice(gateway.works)
            started = len(work.statuses)
            work.process.terminate()
            wait_until(lambda: len(work.statuses) > started, 30, "it ends")
            assert work.statuses[-1] == 0
            work.wait_ready()
    load.check()
    assert {outcome.status for outcome in load.outcomes} <= {200, 202}
    assert [outcome.error for outcome in load.outcomes if outcome.kind != "stream" and outcome.error] == []


def test_a_job_outlives_its_worker_and_the_queue_together(start_gateway, upstream):
    """The queue has forgotten a job that runs, and its worker ends: nobody can be given it, but its row is there."""
    gateway = start_gateway({**SHORT, "DRAIN_SECONDS": "1"}, supervised=True)
    account = payer(gateway)
    model = use(gateway, upstream, "moves", ["silent"], header_ms=15000, total_ms=15000)
    outcome = ask(account, model, "job")
    wait_until(lambda: upstream.of("silent"), 10, "it runs")
    gateway.stores.redis.client(gateway.redis_database).flushdb()
    use(gateway, upstream, "moves", ["fine"])
    gateway.works[0].process.terminate()
    wait_until(lambda: gateway.works[0].statuses, 30, "the worker ends")
    assert rows_of(gateway, account)[outcome.job][0] == "processing"
    gateway.sql("UPDATE ai_job SET ring_at = now() RETURNING 1")
    check_ends(gateway, account, [outcome])
    assert rows_of(gateway, account)[outcome.job][:2] == ("completed", WHOLE)


@contextlib.contextmanager
def redis_away(gateway):
    """It has lost nothing, and nobody finds its socket."""
    store = gateway.stores.redis
    client = store.client()
    client.ping()
    os.rename(store.socket, store.socket + ".away")
    try:
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)
        wait_until(lambda: requests.get(gateway.url + "/health", timeout=10).status_code == 503, 10, "Redis is away")
        yield
    finally:
        os.rename(store.socket + ".away", store.socket)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_while_redis_is_away_cancels_its_call(own_stores, start_gateway, upstream, stream):
    gateway = start_gateway(SHORT, stores=own_stores)
    account = payer(gateway)
    script = "stall" if stream else "silent"
    model = use(gateway, upstream, "leaves", [script], header_ms=60000, idle_ms=60000, total_ms=60000)
    before = len(upstream.of(script))
    body = json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "x"}]}).encode()
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), timeout=20) as client:
        client.sendall(f"POST {CHATS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {account.key}\r\nX-Request-Id: leaver\r\n"
                       f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: len(upstream.of(script)) > before, 10, "the provider is asked")
        if stream:
            assert b" 200 " in client.recv(4096)
        away = contextlib.ExitStack()
        away.enter_context(redis_away(gateway))
    with away:
        wait_until(lambda: '"leaver"' in gateway.serves[0].log(), 10, "its leaving is noticed")
        (call,) = upstream.of(script)[before:]
        assert not call.left_at
    wait_until(lambda: call.left_at, 5, "the provider sees it")
    ((_, status, cost),) = [row[:3] for row in ai.wait_jobs(gateway, account, 1)]
    assert status == "cancelled" and (cost > 0) == stream
    check_money(gateway, account)


# ---- many that wait ----

HELD = 2000
PLACES = 10


async def hold(port, key, model, results, name):
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": "x" * 500}]}).encode()
    writer.write(f"POST {CHATS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
                 f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.read()
    writer.close()
    results.append((name, int(head.split()[1]), b"retry-after:" in head.lower(), time.monotonic() - began))


def rss_mb(part):
    with open(f"/proc/{part.process.pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1]) / 1024


def test_thousands_that_wait_for_a_provider_that_allows_ten(start_gateway, upstream):
    gateway = start_gateway({**SHORT, "AI_CALL_SECONDS": "60"})
    many, few = payer(gateway), payer(gateway)
    model = use(gateway, upstream, "narrow", ["paced"], max_in_flight=PLACES, queue_wait_ms=6000, queue_calls=20000)
    port = int(gateway.url.rpartition(":")[2])
    before = {part: rss_mb(part) for part in gateway.parts}
    results = []

    async def all_of_them():
        calls = [hold(port, *((few.key, model, results, "few") if number % 10 == 0 else (many.key, model, results, "many")))
                 for number in range(HELD)]
        await asyncio.wait_for(asyncio.gather(*calls), 60)

    def most_in_flight():
        now = time.monotonic()
        return sum(1 for call in upstream.of("paced") if now - call.at < 0.7)

    peak = []
    ending = threading.Event()

    def watch():
        while not ending.wait(0.2):
            peak.append((max(rss_mb(part) - before[part] for part in gateway.parts), most_in_flight()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    asyncio.run(all_of_them())
    ending.set()
    watcher.join()
    # Everyone is answered, in time; who was too late is told when to come again.
    assert len(results) == HELD and max(result[3] for result in results) < 15
    assert {result[1] for result in results} <= {200, 429, 503}
    assert all(result[2] for result in results if result[1] != 200)
    served = [result[0] for result in results if result[1] == 200]
    assert len(served) > 2 * PLACES
    assert served.count("few") > len(served) / 3, (served.count("few"), len(served))
    assert max(flight for _, flight in peak) <= PLACES and max(grown for grown, _ in peak) < 400
    check_money(gateway, many)
    check_money(gateway, few)

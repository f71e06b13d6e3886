"""Webhooks while workers are killed and stores go away: each delivery arrives at least once, under one webhook-id, none is lost, and
the log tells no less than what happened."""

import collections
import os
import random
import re
import signal
import time

import pytest

from accounts import SETTINGS as ACCOUNT_SETTINGS
from stores import wait_until
from wakegate import ROOT
from webhooks import SETTINGS, Hooks, open_sink

# A lease has to outlast a slice, an attempt and the statements around them.
SHORT = {**ACCOUNT_SETTINGS, **SETTINGS, "WEBHOOK_TIMEOUT_MS": "1000", "PG_TIMEOUT_MS": "2000", "JOB_LEASE_SECONDS": "13",
         "POD_STOP_TIMEOUT_MS": "500", "POD_READY_TIMEOUT_MS": "2000", "POD_ANSWER_TIMEOUT_MS": "1500"}
LEASE_S = 13
UNKNOWN = "The worker ended meanwhile: whether it arrived is not known"


def crash_points():
    with open(os.path.join(ROOT, "core/base/crash.h"), encoding="utf-8") as file:
        return re.findall(r'^ *X\("(webhook-[a-z-]+)"', file.read(), re.MULTILINE)


@pytest.fixture
def sink():
    with open_sink() as sink:
        yield sink


def wait_delivered(hooks, hook, timeout_s):
    def left():
        return hooks.gateway.sql("SELECT count(*) FROM webhook_due WHERE endpoint_id = "
                                 "(SELECT id FROM webhook_endpoint WHERE ref = %s)", hook["id"])[0][0]
    wait_until(lambda: left() == 0, timeout_s, "all is delivered", 0.1)


def check(hooks, hook, sink, path, events):
    """What arrived is what was to, each under its id; of no delivery more arrived than attempts are logged, and each that is logged
    as answered did arrive."""
    arrived = collections.Counter(arrival.id for arrival in sink.at(path))
    assert set(arrived) == set(events)
    bodies = collections.defaultdict(set)
    for arrival in sink.at(path):
        bodies[arrival.id].add(arrival.body)
    assert all(len(different) == 1 for different in bodies.values())
    rows = hooks.gateway.sql(
        "SELECT d.event_id, count(a.number), count(*) FILTER (WHERE a.status = 200), count(*) FILTER (WHERE a.ok), "
        "count(*) FILTER (WHERE a.ms IS NULL AND a.error <> %s) FROM webhook_delivery d "
        "JOIN webhook_endpoint w ON w.id = d.endpoint_id LEFT JOIN webhook_attempt a ON a.delivery_id = d.id "
        "WHERE w.ref = %s GROUP BY d.id", UNKNOWN, hook["id"])
    assert len(rows) == len(events)
    for event_id, logged, answered, ok, odd in rows:
        assert answered <= arrived[event_id] <= logged and ok >= 1 and odd == 0, (event_id, arrived[event_id], logged, answered)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("point", crash_points())
def test_a_worker_killed_once_loses_no_delivery(start_gateway, tmp_path, sink, point, ordered):
    gateway = start_gateway(SHORT, supervised=True, work_env={
        "WAKEGATE_CRASH_AT": point, "WAKEGATE_CRASH_ONCE": str(tmp_path / "crashed")})
    hooks = Hooks(gateway)
    hook = hooks.make(sink.url(), ordered=ordered)
    events = hooks.emit(40, data=lambda number: {"id": f"object-{number % 4}", "number": number})
    wait_delivered(hooks, hook, 4 * LEASE_S)
    check(hooks, hook, sink, "/hook", events)
    wait_until(lambda: (tmp_path / "crashed").exists() and -signal.SIGKILL in gateway.works[0].statuses, 20, "the crash")
    if ordered:
        for number in range(4):
            first = dict.fromkeys(arrival.json["data"]["number"] for arrival in sink.at()
                                  if arrival.json["data"]["id"] == f"object-{number}")
            assert list(first) == list(range(number, 40, 4))


def test_workers_killed_at_random_lose_no_delivery(start_gateway, sink):
    gateway = start_gateway(SHORT, works=2, supervised=True)
    hooks = Hooks(gateway)
    chance = random.Random(20261128)
    sink.on("/hook", lambda arrival, handler: (500 if hash(arrival.id + arrival.headers["webhook-timestamp"]) % 10 == 0 else 200,
                                               {}, b""))
    hook = hooks.make(sink.url())
    events = []
    for _ in range(12):
        events += hooks.emit(200)
        deadline = time.monotonic() + chance.uniform(0.3, 1.5)
        wait_until(lambda: time.monotonic() > deadline or not hooks.gateway.sql("SELECT 1 FROM webhook_due LIMIT 1"), 5)
        chance.choice(gateway.works).process.kill()

    def all_delivered():
        hooks.make_due(hook)
        return not hooks.gateway.sql("SELECT 1 FROM webhook_due LIMIT 1")
    wait_until(all_delivered, 8 * LEASE_S, "all is delivered", 0.5)
    check(hooks, hook, sink, "/hook", events)


def test_stores_that_go_away_lose_no_delivery(own_stores, start_gateway, sink):
    """Redis is emptied and restarted, PostgreSQL crashes and comes back, while ten thousand deliveries are under way."""
    gateway = start_gateway(SHORT, stores=own_stores)
    hooks = Hooks(gateway)
    hook = hooks.make(sink.url())
    events = hooks.emit(10000)
    sink.wait(200)
    own_stores.redis.client(gateway.redis_database).flushdb()
    sink.wait(1000)
    own_stores.postgres.stop(signal.SIGQUIT)
    own_stores.postgres.start()
    count = len(sink.at())
    sink.wait(min(count + 500, 10000), timeout_s=60)
    own_stores.redis.stop(signal.SIGKILL)
    own_stores.redis.start()
    wait_delivered(hooks, hook, 120)
    check(hooks, hook, sink, "/hook", events)


def test_without_redis_deliveries_go_on(own_stores, start_gateway, sink):
    gateway = start_gateway(SHORT, stores=own_stores)
    hooks = Hooks(gateway)
    hook = hooks.make(sink.url())
    own_stores.redis.stop(signal.SIGKILL)
    events = hooks.emit(20)
    wait_delivered(hooks, hook, 60)
    own_stores.redis.start()
    check(hooks, hook, sink, "/hook", events)

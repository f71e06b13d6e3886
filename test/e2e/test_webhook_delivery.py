"""How webhooks are delivered when endpoints fail, are slow, or want order; times are read off rows, not waited for."""

import email.utils
import socket
import threading
import time

import pytest
import requests

from accounts import SETTINGS as ACCOUNT_SETTINGS
from events import add
from fixtures import run_gateway
from stores import wait_until
from webhooks import SETTINGS, Hooks, closed_port, open_sink

TIMEOUT_MS = 1500
WAITS_S = [5, 300, 1800, 7200, 18000, 36000, 36000]


@pytest.fixture(scope="module")
def gateway(stores):
    yield from run_gateway(stores, {**ACCOUNT_SETTINGS, **SETTINGS, "WEBHOOK_TIMEOUT_MS": str(TIMEOUT_MS)})


@pytest.fixture(scope="module")
def sink():
    with open_sink() as sink:
        yield sink


@pytest.fixture
def hooks(gateway):
    return Hooks(gateway)


def due_in_s(hooks, delivery):
    """The time to the next try, from the moment that it was set: when the last attempt was logged."""
    (seconds,), = hooks.gateway.sql(
        "SELECT extract(epoch FROM due.next_at - a.at)::float FROM webhook_due due JOIN webhook_attempt a USING (delivery_id) "
        "WHERE delivery_id = %s ORDER BY a.number DESC LIMIT 1", int(delivery["id"][4:]))
    return seconds


def emit_one(hooks, hook, **what):
    event_id, = hooks.emit(**what)
    return wait_until(lambda: next((found for found in hooks.deliveries(hook) if found["event_id"] == event_id), None))


# ---- failures ----

def test_the_schedule_of_retries(hooks, sink):
    """Eight tries, then it has failed for good."""
    sink.on("/schedule", (500, {}, b"no"))
    hook = hooks.make(sink.url("/schedule"))
    delivery = emit_one(hooks, hook)
    for number, expected_s in enumerate(WAITS_S, 1):
        found = hooks.wait_attempts(delivery, number)
        assert found["status"] == "pending" and found["next_attempt_at"]
        assert 0.9 * expected_s <= due_in_s(hooks, delivery) <= 1.1 * expected_s + 2
        hooks.make_due(hook)
    found = hooks.wait_status(delivery, "failed")
    assert len(found["attempts"]) == 8 and found["next_attempt_at"] is None
    assert {arrival.id for arrival in sink.at("/schedule")} == {delivery["event_id"]} and len(sink.at("/schedule")) == 8
    for attempt in found["attempts"]:
        assert (attempt["status"], attempt["ok"], attempt["answer"], attempt["error"]) == (500, False, "no", "Status 500")
    timestamps = [int(arrival.headers["webhook-timestamp"]) for arrival in sink.at("/schedule")]
    assert timestamps == sorted(timestamps)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_success(hooks, sink, status):
    sink.on(f"/{status}", status)
    hook = hooks.make(sink.url(f"/{status}"))
    found = hooks.wait_status(hooks.test(hook), "delivered")
    assert found["last_status"] == status and found["last_error"] is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_not_followed(hooks, sink, status):
    sink.on(f"/{status}", (status, {"Location": sink.url("/elsewhere")}, b""))
    hook = hooks.make(sink.url(f"/{status}"))
    found = hooks.wait_attempts(hooks.test(hook), 1)
    assert found["status"] == "pending" and found["last_status"] == status
    assert found["last_error"] == "Redirects are not followed"
    assert sink.at("/elsewhere") == []


@pytest.mark.parametrize("status", [304, 400, 401, 404, 429, 500, 503])
def test_every_other_status_is_a_failure(hooks, sink, status):
    sink.on(f"/{status}", status)
    hook = hooks.make(sink.url(f"/{status}"))
    found = hooks.wait_attempts(hooks.test(hook), 1)
    assert found["status"] == "pending" and found["last_status"] == status and found["next_attempt_at"]


def test_no_connection_is_a_failure(hooks):
    hook = hooks.make(f"http://127.0.0.1:{closed_port()}/")
    attempt, = hooks.wait_attempts(hooks.test(hook), 1)["attempts"]
    assert attempt["status"] is None and attempt["error"] == "No connection" and attempt["answer"] is None


def test_a_name_that_does_not_exist_is_a_failure(hooks):
    hook = hooks.make("http://nothing.invalid/hook")
    attempt, = hooks.wait_attempts(hooks.test(hook), 1, 30)["attempts"]
    assert attempt["status"] is None and not attempt["ok"]


def test_410_disables_the_endpoint_and_its_owner_is_told(hooks, sink):
    sink.on("/gone", 410)
    gone, watcher = hooks.make(sink.url("/gone"), ["job.*"]), hooks.make(sink.url("/watch"), ["webhook.disabled"])
    hooks.emit()
    arrival, = sink.wait(1, "/watch")
    assert arrival.json["event"] == "webhook.disabled"
    assert arrival.json["data"] == {"webhook_id": gone["id"], "url": gone["url"], "reason": "gone"}
    shown = hooks.ok("GET", f"/{gone['id']}")
    assert not shown["enabled"] and shown["disabled_reason"] == "gone"
    assert len(sink.at("/gone")) == 1 and hooks.ok("GET", f"/{watcher['id']}")["enabled"]


def test_an_endpoint_that_fails_for_five_days_is_disabled_and_its_owner_told(hooks, sink):
    sink.on("/days", 500)
    hook = hooks.make(sink.url("/days"), ["job.*"])
    hooks.make(sink.url("/told"), ["webhook.disabled"])
    delivery = emit_one(hooks, hook)
    hooks.wait_attempts(delivery, 1)
    for hours, enabled in ((119, True), (121, False)):
        assert hooks.ok("GET", f"/{hook['id']}")["failing_since"]
        hooks.gateway.sql("UPDATE webhook_endpoint SET failing_since = now() - %s * interval '1 hour' WHERE ref = %s",
                          hours, hook["id"])
        count = len(sink.at("/days"))
        hooks.make_due(hook)
        sink.wait(count + 1, "/days")
        hooks.wait_attempts(delivery, count + 1)
        if enabled:
            assert hooks.ok("GET", f"/{hook['id']}")["enabled"]
    arrival, = sink.wait(1, "/told")
    assert arrival.json["data"] == {"webhook_id": hook["id"], "url": hook["url"], "reason": "failing"}
    assert hooks.ok("GET", f"/{hook['id']}")["disabled_reason"] == "failing"


def test_a_success_ends_the_time_of_failing(hooks, sink):
    sink.on("/well", 500)
    hook = hooks.make(sink.url("/well"))
    delivery = emit_one(hooks, hook)
    hooks.wait_attempts(delivery, 1)
    assert hooks.ok("GET", f"/{hook['id']}")["failing_since"]
    sink.on("/well", 200)
    hooks.make_due(hook)
    hooks.wait_status(delivery, "delivered")
    assert hooks.ok("GET", f"/{hook['id']}")["failing_since"] is None


@pytest.mark.parametrize("value,least_s,most_s", [
    ("120", 119, 122), ("1", 4.4, 6), ("999999", 86399, 86402), ("rubbish", 4.4, 6),
    (lambda: email.utils.formatdate(time.time() + 600, usegmt=True), 595, 602)])
def test_retry_after_is_honoured_within_bounds(hooks, sink, value, least_s, most_s):
    text = value() if callable(value) else value
    sink.on("/after", (503, {"Retry-After": text}, b""))
    hook = hooks.make(sink.url("/after"))
    delivery = hooks.test(hook)
    hooks.wait_attempts(delivery, 1)
    assert least_s <= due_in_s(hooks, delivery) <= most_s + 1


# ---- the circuit breaker ----

def test_a_dead_endpoint_is_left_in_peace_and_probed(hooks, sink):
    sink.on("/dead", 500)
    hook = hooks.make(sink.url("/dead"))
    hooks.emit(300)
    shown = wait_until(lambda: (found := hooks.ok("GET", f"/{hook['id']}"))["paused_until"] and found, 20, "a pause")
    wait_until(lambda: hooks.gateway.sql("SELECT count(*) FROM job WHERE state = 'running'")[0][0] == 0)
    count = len(sink.at("/dead"))
    assert shown["enabled"] and 10 <= count < 200
    hooks.emit(5)  # new ones wait with the others
    hooks.gateway.sql("UPDATE webhook_endpoint SET paused_until = NULL WHERE ref = %s", hook["id"])
    hooks.gateway.sql("UPDATE job SET run_at = now(), ring_at = now() WHERE kind = 'webhook' AND state = 'queued'")
    sink.wait(count + 1, "/dead")
    wait_until(lambda: hooks.gateway.sql("SELECT pauses FROM webhook_endpoint WHERE ref = %s", hook["id"])[0][0] == 2)
    assert len(sink.at("/dead")) == count + 1  # one probe, not sixty-four
    pause_s, = hooks.gateway.sql("SELECT extract(epoch FROM paused_until - now())::float FROM webhook_endpoint WHERE ref = %s",
                                 hook["id"])[0]
    assert 15 < pause_s < 22.5
    sink.on("/dead", 200)
    hooks.make_due(hook)
    wait_until(lambda: len(hooks.deliveries(hook, status="delivered")) == 305, 30, "all arrive in the end")


def test_a_test_delivery_goes_out_during_a_pause(hooks, sink):
    sink.on("/paused", 500)
    hook = hooks.make(sink.url("/paused"))
    hooks.emit(20)
    wait_until(lambda: hooks.ok("GET", f"/{hook['id']}")["paused_until"], 20, "a pause")
    count = len(sink.at("/paused"))
    sink.on("/paused", 200)
    hooks.wait_status(hooks.test(hook), "delivered")
    assert len(sink.at("/paused")) > count


# ---- order ----

def numbers_at(sink, path, object_id):
    return [arrival.json["data"]["number"] for arrival in sink.at(path) if arrival.json["data"]["id"] == object_id]


def test_an_ordered_endpoint_gets_each_objects_events_in_order(hooks, sink):
    """Every third attempt fails; what is behind it waits for it, what is of other objects does not."""
    seen = {}
    lock = threading.Lock()

    def answer(arrival, handler):
        with lock:
            seen[arrival.id] = seen.get(arrival.id, 0) + 1
            return (500 if seen[arrival.id] == 1 and arrival.json["data"]["number"] % 3 == 0 else 200), {}, b""

    sink.on("/ordered", answer)
    hook = hooks.make(sink.url("/ordered"), ordered=True)
    objects = [f"object-{number}" for number in range(5)]
    hooks.emit(60, data=lambda number: {"id": objects[number % 5], "number": number})

    def all_delivered():
        hooks.make_due(hook)
        return hooks.gateway.sql("SELECT count(*) FROM webhook_due WHERE endpoint_id = (SELECT id FROM webhook_endpoint "
                                 "WHERE ref = %s)", hook["id"])[0][0] == 0
    wait_until(all_delivered, 60, "all are delivered", 0.1)
    for number, name in enumerate(objects):
        got = numbers_at(sink, "/ordered", name)
        expected = [value for value in range(number, 60, 5) for _ in range(2 if value % 3 == 0 else 1)]
        assert got == expected


def test_a_failed_delivery_holds_back_its_object_alone(hooks, sink):
    sink.on("/block", lambda arrival, handler: (500 if arrival.json["data"]["id"] == "bad" else 200, {}, b""))
    hook = hooks.make(sink.url("/block"), ordered=True)
    hooks.emit(20, data=lambda number: {"id": "bad" if number % 2 == 0 else "good", "number": number})
    wait_until(lambda: len(numbers_at(sink, "/block", "good")) == 10, 20, "the good ones arrive")
    assert numbers_at(sink, "/block", "bad") == [0]
    hooks.emit(2, data=lambda number: {"id": "bad" if number == 0 else "good", "number": 20 + number})
    wait_until(lambda: len(numbers_at(sink, "/block", "good")) == 11, 20, "later ones too")
    assert numbers_at(sink, "/block", "bad") == [0]
    sink.on("/block", 200)
    hooks.make_due(hook)
    wait_until(lambda: len(numbers_at(sink, "/block", "bad")) == 12, 20, "then the bad ones, in order")
    assert numbers_at(sink, "/block", "bad") == [0, *range(0, 21, 2)]


def test_a_replay_frees_what_a_failure_holds_back(hooks, sink):
    """In its order: who has mended his server doesn't wait for hours."""
    sink.on("/freed", 500)
    hook = hooks.make(sink.url("/freed"), ordered=True)
    hooks.emit(6, data=lambda number: {"id": "same", "number": number})
    sink.wait(1, "/freed")
    row = "SELECT until > now() + interval '1 hour' FROM webhook_block WHERE endpoint_id = (SELECT id FROM webhook_endpoint WHERE ref = %s)"
    wait_until(lambda: hooks.gateway.sql(row, hook["id"]), 10, "the object is held back")
    hooks.gateway.sql("WITH w AS (SELECT id FROM webhook_endpoint WHERE ref = %s), b AS (UPDATE webhook_block SET until = now() + "
                      "interval '10 hours' FROM w WHERE endpoint_id = w.id) UPDATE webhook_due SET next_at = now() + interval '10 hours' "
                      "FROM w WHERE endpoint_id = w.id AND tries > 0 RETURNING 1", hook["id"])
    sink.on("/freed", 200)
    newest = hooks.deliveries(hook)[0]
    hooks.ok("POST", f"/deliveries/{newest['id']}/replay", 202)
    sink.wait(7, "/freed")
    assert numbers_at(sink, "/freed", "same") == [0, 0, 1, 2, 3, 4, 5]


def test_without_order_one_that_fails_holds_back_nothing(hooks, sink):
    sink.on("/free", lambda arrival, handler: (500 if arrival.json["data"]["number"] == 0 else 200, {}, b""))
    hook = hooks.make(sink.url("/free"))
    hooks.emit(10, data=lambda number: {"id": "one", "number": number})
    wait_until(lambda: len(hooks.deliveries(hook, status="delivered")) == 9, 20, "the others arrive")


# ---- answers that are hostile ----

def endless(arrival, handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(10000):
        handler.wfile.write(b"x" * 65536)


def slow(arrival, handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.1)  # that it takes its time is what the test is about


def silent(arrival, handler):
    time.sleep(TIMEOUT_MS / 1000 + 1)  # as above


def reset(arrival, handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")


def huge(arrival, handler):
    handler.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {64 << 20}\r\n\r\n".encode())
    for _ in range(1024):
        handler.wfile.write(b"y" * 65536)


def garbage(arrival, handler):
    handler.wfile.write(b"\x00\x01\x02 this is no HTTP at all\r\n\r\n")


def huge_header(arrival, handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"z" * 300000 + b"\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("how,ok,error", [
    (endless, True, None), (huge, True, None), (slow, False, "No whole answer in time"),
    (silent, False, "No whole answer in time"), (reset, False, "The connection broke off"), (garbage, False, None),
    (huge_header, False, None)])
def test_a_hostile_answer_is_bounded_logged_and_delays_nobody(hooks, sink, how, ok, error):
    path = f"/{how.__name__}"
    sink.on(path, how)
    bad, good = hooks.make(sink.url(path), ["job.failed"]), hooks.make(sink.url(path + "-good"), ["job.completed"])
    delivery = emit_one(hooks, bad, name="job.failed")
    hooks.emit(20)
    begun = time.monotonic()
    sink.wait(20, path + "-good", 5)
    attempt = hooks.wait_attempts(delivery, 1)["attempts"][0]
    assert time.monotonic() - begun < TIMEOUT_MS / 1000 + 5
    assert attempt["ok"] == ok and (error is None or attempt["error"] == error)
    assert attempt["duration_ms"] < TIMEOUT_MS + 1000
    assert len(attempt["answer"] or "") <= 4096
    if how in (endless, huge):
        assert len(attempt["answer"]) == 4096
    assert len(hooks.deliveries(good)) == 20


def test_an_answer_is_kept_as_text_whatever_it_is(hooks, sink):
    sink.on("/binary", (200, {}, b"\x00\xff\xfe ok \xc3\xa4 \xe4\xb8\xad " + b"\xf0\x9f\x9a\x80" * 2000))
    hook = hooks.make(sink.url("/binary"))
    answer = hooks.wait_status(hooks.test(hook), "delivered")["attempts"][0]["answer"]
    assert answer.startswith("\ufffd\ufffd\ufffd ok \u00e4 \u4e2d \U0001f680") and len(answer.encode()) in range(4090, 4097)


# ---- fairness ----

def test_one_tenants_thousands_do_not_delay_another(gateway, hooks, sink):
    """Ten thousand deliveries of one tenant are under way; another's test delivery takes its usual time."""
    crowd = hooks.make(sink.url("/crowd"))
    other = Hooks(gateway)
    mine = other.make(sink.url("/single"))
    hooks.emit(10000)
    sink.wait(500, "/crowd", 30)
    times = []
    for number in range(5):
        begun = time.monotonic()
        other.test(mine)
        sink.wait(number + 1, "/single", 10)
        times.append(time.monotonic() - begun)
    assert len(sink.at("/crowd")) < 10000, "they were over before it was measured"
    assert max(times) < 3, times
    hooks.ok("PATCH", f"/{crowd['id']}", json={"enabled": False})


def test_endpoints_that_hang_take_no_more_than_their_tenants_share(start_gateway, sink):
    """Of eight places one tenant's hanging endpoints take four; another's delivery goes on at once."""
    gateway = start_gateway({**ACCOUNT_SETTINGS, **SETTINGS, "WEBHOOK_TIMEOUT_MS": "8000", "WORKER_CONCURRENCY": "8"})
    sink.on("/hang", lambda arrival, handler: time.sleep(4))  # that it takes its time is what the test is about
    hanging, other = Hooks(gateway), Hooks(gateway)
    for _ in range(12):
        hanging.make(sink.url("/hang"))
    mine = other.make(sink.url("/quick"))
    hanging.emit()
    sink.wait(4, "/hang")
    begun = time.monotonic()
    other.test(mine)
    sink.wait(1, "/quick", 3)
    assert time.monotonic() - begun < 2


# ---- what an operator sees ----

def test_metrics_tell_what_waits_and_how_it_went(start_gateway, sink):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gateway = start_gateway({**ACCOUNT_SETTINGS, **SETTINGS}, work_env={"METRICS_LISTEN": f"127.0.0.1:{port}"})
    hooks = Hooks(gateway)

    def metrics():
        lines = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    sink.on("/broken", 500)
    sink.on("/leaves", 410)
    broken, leaves = hooks.make(sink.url("/broken"), ["job.*"]), hooks.make(sink.url("/leaves"), ["job.*"])
    hooks.make(sink.url("/fine"), ["job.*"])
    add(gateway, hooks.account, 1, 1)
    sink.wait(1, "/broken"), sink.wait(1, "/leaves"), sink.wait(1, "/fine")
    wait_until(lambda: not hooks.ok("GET", f"/{leaves['id']}")["enabled"], 20, "the endpoint that is gone is disabled")
    wait_until(lambda: metrics()["wakegate_webhook_in_flight"] == 0, 20, "all attempts are over")
    told = metrics()
    assert told["wakegate_webhook_first_seconds_count"] == 3
    assert told['wakegate_webhook_disabled_total{reason="gone"}'] == 1
    assert told["wakegate_webhook_given_up_total"] == 0
    gateway.sql("UPDATE webhook_due SET tries = 7, next_at = now() - interval '1 hour' WHERE endpoint_id = "
                "(SELECT id FROM webhook_endpoint WHERE ref = %s) RETURNING 1", broken["id"])
    gateway.sql("UPDATE webhook_endpoint SET enabled = false WHERE ref = %s RETURNING 1", broken["id"])
    wait_until(lambda: (told := metrics())["wakegate_webhook_pending"] == 2 and
               told['wakegate_webhook_endpoints{state="disabled"}'] == 2 and told['wakegate_webhook_endpoints{state="enabled"}'] == 1,
               40, "what waits is counted", 0.5)
    assert metrics()["wakegate_webhook_overdue_seconds"] == 0  # of a disabled one nothing is late
    hooks.ok("PATCH", f"/{broken['id']}", json={"enabled": True})
    wait_until(lambda: metrics()["wakegate_webhook_given_up_total"] == 1, 20, "the last try is counted")
    wait_until(lambda: metrics()["wakegate_webhook_pending"] == 1, 40, "less waits", 0.5)
    assert metrics()["wakegate_events_waiting"] == 0

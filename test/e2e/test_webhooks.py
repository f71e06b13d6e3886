"""Webhooks as their owners handle them: endpoints, signed deliveries, the log, replay, rotation."""

import base64
import concurrent.futures
import hashlib
import hmac
import json
import re
import subprocess
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest

from accounts import SETTINGS as ACCOUNT_SETTINGS, error_of
from fixtures import run_gateway
from stores import wait_until
from webhooks import SETTINGS, Hooks, open_sink, seed_signature


@pytest.fixture(scope="module")
def gateway(stores):
    yield from run_gateway(stores, {**ACCOUNT_SETTINGS, **SETTINGS})


@pytest.fixture(scope="module")
def sink():
    with open_sink() as sink:
        yield sink


@pytest.fixture
def hooks(gateway):
    return Hooks(gateway)


def test_an_event_arrives_signed_by_both_schemes(hooks, sink):
    hook = hooks.make(sink.url("/signed"), ["job.completed"])
    event_id, = hooks.emit()
    arrival, = sink.wait(1, "/signed")
    assert arrival.id == event_id
    assert arrival.headers["Content-Type"] == "application/json"
    assert arrival.headers["X-Webhook-Signature"] == seed_signature(arrival.body, hook["secret"])
    assert set(arrival.json) == {"event", "timestamp", "data"}
    assert arrival.json["event"] == "job.completed" and arrival.json["data"] == {"id": "job_0", "number": 0}
    delivery, = hooks.deliveries(hook)
    found = hooks.wait_status(delivery, "delivered")
    assert found["body"].encode() == arrival.body
    attempt, = found["attempts"]
    assert attempt["status"] == 200 and attempt["ok"] and attempt["answer"] == "ok" and attempt["error"] is None


def standard_signature(arrival, secret):
    """As the Standard Webhooks specification says it, by other means than the program's."""
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    content = f"{arrival.id}.{arrival.headers['webhook-timestamp']}.".encode() + arrival.body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


# ---- endpoints ----

def test_a_secret_is_made_and_shown_once(hooks, sink):
    hook = hooks.make(sink.url())
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", hook["secret"])
    assert re.fullmatch(r"we_[A-Za-z0-9]{22}", hook["id"])
    shown = hooks.ok("GET", f"/{hook['id']}")
    assert shown == {name: value for name, value in hook.items() if name != "secret"}
    assert hook["secret"] not in hooks.call("GET").text
    rows = hooks.gateway.sql("SELECT w::text FROM webhook_endpoint w WHERE ref = %s", hook["id"])
    assert hook["secret"] not in rows[0][0] and hook["secret"].encode().hex() not in rows[0][0]


def test_the_seeds_own_body_makes_an_endpoint(hooks):
    answer = hooks.call("POST", json={"url": "https://your-app.com/webhook", "events": ["job.completed", "job.failed"],
                                      "secret": "whsec_..."})
    assert answer.status_code == 201 and answer.json()["secret"] == "whsec_..."
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("change", [
    {"url": None}, {"url": 5}, {"url": ""}, {"url": "ftp://example.com/"}, {"url": "/hook"}, {"url": "example.com/hook"},
    {"url": "https://"}, {"url": "https://user:secret@example.com/"}, {"url": "https://user@example.com/"},
    {"url": "https://example.com/#part"}, {"url": "https://example.com/ x"}, {"url": "https://example.com/\n"},
    {"url": "https://example.com:0/"}, {"url": "https://example.com:99999/"}, {"url": "https://exa%6dple.com/"},
    {"url": "https://ex\u00e4mple.com/"}, {"url": "https://example.com/" + "x" * 2048}, {"url": "javascript:alert(1)"},
    {"events": None}, {"events": []}, {"events": "job.completed"}, {"events": [1]}, {"events": ["job"]},
    {"events": ["*.completed"]}, {"events": ["Job.completed"]}, {"events": ["job.completed.now"]}, {"events": [""]},
    {"events": ["job.completed"] * 51}, {"events": ["job completed"]}, {"events": ["job.complete"]}, {"events": ["jobs.*"]},
    {"secret": "short"}, {"secret": "x" * 257}, {"secret": "with a space"}, {"secret": "line\nbreak"}, {"secret": 12345678},
    {"ordered": 1}, {"enabled": "yes"}, {"surfaces": ["moon"]}, {"surfaces": "gpu"}, {"description": "x" * 201},
    {"description": "line\nbreak"}, {"description": 1},
])
def test_what_can_not_be_is_refused(hooks, change):
    body = {"url": "https://example.com/hook", "events": ["job.*"], **change}
    error_of(hooks.call("POST", json=body), 400, "invalid_parameter")
    assert hooks.ok("GET")["data"] == []


def test_a_name_that_is_no_events_is_refused_with_those_that_are(hooks):
    """A typo would else be an endpoint that never hears anything."""
    hook = hooks.make("https://example.com/hook", ["job.*"])
    for method, path, body in (("POST", "", {"url": "https://example.com/", "events": ["job.failed", "job.complete"]}),
                               ("PATCH", f"/{hook['id']}", {"events": ["job.complete"]}),
                               ("POST", f"/{hook['id']}/test", {"event": "job.complete"})):
        message = error_of(hooks.call(method, path, json=body), 400, "invalid_parameter")
        assert "job.complete." in message and "job.completed, job.failed" in message
    for name in ("line\nbreak", "x" * 500):
        assert "of that name" in error_of(hooks.call("POST", json={"url": "https://example.com/", "events": [name]}), 400,
                                          "invalid_parameter")


def test_every_event_of_the_seeds_can_be_asked_for(hooks):
    """Those of APIs that are not served yet, too."""
    names = ["instance.created", "instance.upgraded", "instance.usage_alert", "job.completed", "job.failed", "instance.deleted",
             "instance.hibernated", "instance.ready", "failover.triggered", "snapshot.completed", "billing.low_balance"]
    assert hooks.make("https://example.com/hook", names)["events"] == names


def test_an_endpoint_is_changed_and_deleted(hooks, sink):
    hook = hooks.make("https://example.com/hook", ["job.*"], description="first")
    changed = hooks.ok("PATCH", f"/{hook['id']}", json={"url": sink.url(), "events": ["instance.ready", "*"],
                                                      "surfaces": ["gpu"], "ordered": True, "description": "second"})
    assert (changed["url"], changed["events"], changed["surfaces"], changed["ordered"], changed["description"]) == (
        sink.url(), ["instance.ready", "*"], ["gpu"], True, "second")
    back = hooks.ok("PATCH", f"/{hook['id']}", json={"surfaces": None, "description": None})
    assert back["surfaces"] is None and back["description"] == "" and back["ordered"]
    assert hooks.ok("DELETE", f"/{hook['id']}") == {"id": hook["id"], "object": "webhook", "deleted": True}
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/deliveries"), ("POST", "/test"),
                         ("POST", "/rotate-secret"), ("POST", "/replay?since=0")):
        body = {"json": {}} if method == "PATCH" else {}
        error_of(hooks.call(method, f"/{hook['id']}{path}", **body), 404, "not_found")


def test_endpoints_are_listed_page_by_page(hooks):
    made = [hooks.make(f"https://example.com/{number}")["id"] for number in range(5)]
    first = hooks.ok("GET", params={"limit": 3})
    second = hooks.ok("GET", params={"limit": 3, "cursor": first["next_cursor"]})
    assert [hook["id"] for hook in first["data"] + second["data"]] == made[::-1]
    assert second["next_cursor"] is None


def test_an_account_has_so_many_endpoints_and_no_more(gateway, start_gateway, stores):
    small = start_gateway({**ACCOUNT_SETTINGS, "WEBHOOK_ENDPOINTS": "3"}, works=0)
    hooks = Hooks(small)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: hooks.call("POST", json={"url": "https://example.com", "events": ["*"]}), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [403] * 5
    error_of(hooks.call("POST", json={"url": "https://example.com", "events": ["*"]}), 403, "webhook_limit_reached")
    hooks.ok("DELETE", f"/{hooks.ok('GET')['data'][0]['id']}")
    hooks.make("https://example.com")


def test_another_accounts_endpoint_is_no_endpoint(gateway, hooks, sink):
    hook = hooks.make(sink.url("/mine"))
    delivery = hooks.test(hook)
    stranger = Hooks(gateway)
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/deliveries"), ("POST", "/test"),
                         ("POST", "/rotate-secret"), ("POST", "/replay?since=0")):
        body = {"json": {"enabled": False}} if method == "PATCH" else {}
        theirs = stranger.call(method, f"/{hook['id']}{path}", **body)
        nobodys = stranger.call(method, f"/we_{'0' * 22}{path}", **body)
        assert theirs.status_code == nobodys.status_code == 404 and theirs.text == nobodys.text
    for method, path in (("GET", ""), ("POST", "/replay")):
        theirs = stranger.call(method, f"/deliveries/{delivery['id']}{path}")
        nobodys = stranger.call(method, f"/deliveries/dlv_999999999{path}")
        assert theirs.status_code == nobodys.status_code == 404 and theirs.text == nobodys.text
    assert stranger.ok("GET")["data"] == [] and hooks.ok("GET", f"/{hook['id']}")["enabled"]


def test_a_key_needs_the_scope(hooks):
    other = hooks.account.make_key(scopes=["account:read"])["key"]
    error_of(hooks.account.call("GET", "/api/v1/webhooks", other), 403, "insufficient_scope")
    fits = hooks.account.make_key(scopes=["webhooks"])["key"]
    assert hooks.account.call("GET", "/api/v1/webhooks", fits).status_code == 200


def test_the_same_resource_under_all_three_paths(gateway, hooks, sink):
    hook = hooks.make(sink.url("/paths"))
    gpu = Hooks(gateway, "/api", hooks.account, hooks.account.make_key(surface="gpu")["key"])
    for base in (hooks, Hooks(gateway, "/v1", hooks.account), gpu):
        assert [found["id"] for found in base.ok("GET")["data"]] == [hook["id"]]
    answer = gpu.call("GET", "/we_0")
    assert answer.status_code == 404
    assert answer.json() == {"error": {"code": "not_found", "message": "Webhook not found", "details": {}}}
    answer = gpu.account.call("GET", "/api/webhooks", hooks.account.key)
    assert answer.status_code == 401 and set(answer.json()["error"]) == {"code", "message", "details"}


def test_the_gpu_seeds_own_line_makes_an_endpoint(gateway, hooks):
    key = hooks.account.make_key(surface="gpu")["key"]
    body = json.dumps({"url": "https://your-app.com/webhooks/dumont", "events": ["instance.created", "failover.triggered"],
                       "secret": "your_webhook_secret"})
    done = subprocess.run(["curl", "-s", "-X", "POST", f"{gateway.url}/api/webhooks", "-H", f"Authorization: Bearer {key}",
                           "-d", body], check=True, capture_output=True)
    made = json.loads(done.stdout)
    assert made["secret"] == "your_webhook_secret" and made["events"] == ["instance.created", "failover.triggered"]


# ---- what goes to whom ----

def test_an_endpoint_gets_what_it_asks_for(hooks, sink):
    wanted = {"/all": ["*"], "/kind": ["job.*"], "/name": ["job.failed", "instance.ready"], "/other": ["billing.*"]}
    for path, events in wanted.items():
        hooks.make(sink.url(path), events)
    hooks.make(sink.url("/gpu"), ["*"], surfaces=["gpu"])
    hooks.make(sink.url("/off"), ["*"], enabled=False)
    sent = [("job.completed", "inference"), ("job.failed", "inference"), ("instance.ready", "session"),
            ("instance.ready", "gpu")]
    for name, surface in sent:
        hooks.emit(name=name, surface=surface, ring=False)
    hooks.ring()
    names = lambda path: sorted(arrival.json["event"] for arrival in sink.at(path))
    sink.wait(4, "/all"), sink.wait(2, "/kind"), sink.wait(3, "/name"), sink.wait(1, "/gpu")
    assert names("/all") == sorted(name for name, _ in sent)
    assert names("/kind") == ["job.completed", "job.failed"]
    assert names("/name") == ["instance.ready", "instance.ready", "job.failed"]
    assert names("/gpu") == ["instance.ready"]
    assert names("/other") == names("/off") == []


def test_accounts_get_their_own_events_alone(gateway, hooks, sink):
    stranger = Hooks(gateway)
    hooks.make(sink.url("/ada"))
    stranger.make(sink.url("/bob"))
    mine, theirs = set(hooks.emit(5)), set(stranger.emit(5))
    assert {arrival.id for arrival in sink.wait(5, "/ada")} == mine
    assert {arrival.id for arrival in sink.wait(5, "/bob")} == theirs


SURFACE_HEADERS = {"session": None, "inference": None, "provision": "X-Self-Signature", "gpu": "X-Dumont-Signature"}


@pytest.mark.parametrize("secret", [None, "your_webhook_secret", "whsec_bm90IGEgdmVyeSBnb29kIHNlY3JldCE="])
@pytest.mark.parametrize("surface", SURFACE_HEADERS)
def test_each_surface_signs_under_its_own_name(hooks, sink, surface, secret):
    path = f"/{surface}-{secret}"
    hook = hooks.make(sink.url(path), **({"secret": secret} if secret else {}))
    hooks.emit(surface=surface)
    arrival, = sink.wait(1, path)
    signature = seed_signature(arrival.body, hook["secret"])
    assert arrival.headers["X-Webhook-Signature"] == signature
    for header in filter(None, SURFACE_HEADERS.values()):
        assert arrival.headers[header] == (signature if header == SURFACE_HEADERS[surface] else None)
    assert arrival.headers["webhook-signature"] == standard_signature(arrival, hook["secret"])
    assert abs(int(arrival.headers["webhook-timestamp"]) - arrival.at) < 5


def test_the_bytes_that_are_signed_are_those_of_the_event(hooks, sink):
    """Whatever an event's data holds: text in any script, quotes, large and small numbers, nesting."""
    data = {"id": "x", "text": "\u00e4\u00f6\u4e16\u754c\U0001f680 \"quoted\" \\ / \u2028 <b>", "big": 12345678901234567890,
            "small": 1e-7, "list": [None, True, {"a": []}], "empty": {}}
    hook = hooks.make(sink.url("/bytes"))
    hooks.emit(data=lambda number: data)
    arrival, = sink.wait(1, "/bytes")
    assert arrival.json["data"] == data
    assert arrival.headers["X-Webhook-Signature"] == seed_signature(arrival.body, hook["secret"])
    assert arrival.headers["webhook-signature"] == standard_signature(arrival, hook["secret"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", arrival.json["timestamp"])


# ---- tests, replays ----

def test_a_test_delivery(hooks, sink):
    hook = hooks.make(sink.url("/test"), ["billing.low_balance"])
    delivery = hooks.test(hook)
    assert delivery["status"] in ("pending", "delivered") and delivery["event"] == "webhook.test"
    arrival, = sink.wait(1, "/test")
    assert arrival.json["event"] == "webhook.test" and arrival.json["data"] == {"test": True, "webhook_id": hook["id"]}
    hooks.test(hook, event="job.failed", surface="gpu", data={"id": "job_1"})
    arrival = sink.wait(2, "/test")[1]
    assert arrival.json["event"] == "job.failed" and arrival.json["data"] == {"id": "job_1"}
    assert arrival.headers["X-Dumont-Signature"] == seed_signature(arrival.body, hook["secret"])
    for body in ({"event": "*"}, {"event": "x"}, {"surface": "moon"}, {"data": []}, {"data": {"x": "x" * 65536}}):
        error_of(hooks.call("POST", f"/{hook['id']}/test", json=body), 400, "invalid_parameter")


def test_one_delivery_is_replayed_with_its_id(hooks, sink):
    hook = hooks.make(sink.url("/again"))
    hooks.emit()
    first, = sink.wait(1, "/again")
    delivery, = hooks.deliveries(hook)
    hooks.wait_status(delivery, "delivered")
    hooks.ok("POST", f"/deliveries/{delivery['id']}/replay", 202)
    second = sink.wait(2, "/again")[1]
    assert second.id == first.id and second.body == first.body
    found = hooks.wait_attempts(delivery, 2)
    assert [attempt["number"] for attempt in found["attempts"]] == [1, 2] and found["attempt_count"] == 2
    assert hooks.wait_status(delivery, "delivered")["next_attempt_at"] is None


def test_all_since_a_time_are_replayed(hooks, sink):
    hook = hooks.make(sink.url("/since"))
    old, = hooks.emit()
    sink.wait(1, "/since")
    hooks.gateway.sql("UPDATE webhook_delivery SET created_at = now() - interval '2 hours' WHERE event_id = %s", old)
    hooks.gateway.sql("UPDATE event SET at = now() - interval '2 hours' WHERE id = %s", old)
    new = hooks.emit(3)
    sink.wait(4, "/since")
    for delivery in hooks.deliveries(hook):
        hooks.wait_status(delivery, "delivered")
    since = (datetime.now(timezone.utc) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert hooks.ok("POST", f"/{hook['id']}/replay", 202, params={"since": since}) == {"webhook": hook["id"], "replayed": 3}
    assert sorted(arrival.id for arrival in sink.wait(7, "/since")[4:]) == sorted(new)
    assert hooks.ok("POST", f"/{hook['id']}/replay", 202, params={"since": "0"})["replayed"] == 4
    sink.wait(11, "/since")
    for since in (None, "", "yesterday", "-1", "2026-13-01T00:00:00Z"):
        error_of(hooks.call("POST", f"/{hook['id']}/replay", params={"since": since}), 400, "invalid_parameter")


def test_a_replay_brings_what_an_endpoint_never_got(hooks, sink):
    """It was not there yet, or disabled: the events are kept."""
    before = hooks.emit(2)
    hook = hooks.make(sink.url("/missed"), ["job.*"])
    hooks.ok("PATCH", f"/{hook['id']}", json={"enabled": False})
    meanwhile = hooks.emit(2)
    hooks.emit(name="instance.ready")
    hooks.ok("PATCH", f"/{hook['id']}", json={"enabled": True})
    assert hooks.ok("POST", f"/{hook['id']}/replay", 202, params={"since": "0"})["replayed"] == 4
    assert sorted(arrival.id for arrival in sink.wait(4, "/missed")) == sorted(before + meanwhile)
    for delivery in hooks.deliveries(hook):
        hooks.wait_status(delivery, "delivered")
    assert hooks.ok("POST", f"/{hook['id']}/replay", 202, params={"since": "0", "status": "failed"})["replayed"] == 0


def test_a_replay_that_is_asked_for_while_it_is_under_way_comes_after_it(hooks, sink):
    arrived, answer = threading.Event(), threading.Event()
    sink.on("/meanwhile", lambda arrival, handler: (arrived.set(), answer.wait(10), (200, {}, b""))[2])
    hook = hooks.make(sink.url("/meanwhile"))
    delivery = hooks.test(hook)
    assert arrived.wait(10)
    hooks.ok("POST", f"/deliveries/{delivery['id']}/replay", 202)
    answer.set()
    sink.wait(2, "/meanwhile")
    assert hooks.wait_status(delivery, "delivered")["attempt_count"] == 2


def test_deliveries_of_a_state_are_found_among_many(gateway, hooks, sink):
    """However many there are, a request looks at some thousands; the cursor goes on."""
    hook = hooks.make(sink.url("/many"), enabled=False)
    gateway.sql(
        "WITH w AS (SELECT id FROM webhook_endpoint WHERE ref = %s), d AS (INSERT INTO webhook_delivery "
        "(endpoint_id, event_id, surface, name, body) SELECT w.id, 'evt_' || n, 'gpu', 'job.failed', '{}' "
        "FROM w, generate_series(1, 12000) AS n RETURNING id, endpoint_id, event_id), "
        "due AS (INSERT INTO webhook_due (delivery_id, endpoint_id, next_at) SELECT id, endpoint_id, now() FROM d "
        "WHERE event_id IN ('evt_7', 'evt_11000')) "
        "INSERT INTO webhook_attempt (delivery_id, number, at, ms, ok, status) SELECT id, 1, now(), 1, event_id NOT IN "
        "('evt_3', 'evt_4', 'evt_11999'), 200 FROM d RETURNING 1", hook["id"])
    found = lambda status, limit: [row["event_id"] for row in hooks.deliveries(hook, status=status, limit=limit)]
    for limit in (1, 200):
        assert found("failed", limit) == ["evt_11999", "evt_4", "evt_3"]
        assert found("pending", limit) == ["evt_11000", "evt_7"]
    page = hooks.ok("GET", f"/{hook['id']}/deliveries", params={"status": "failed"})
    assert len(page["data"]) == 1 and page["next_cursor"]
    assert len(found("delivered", 200)) == 12000 - 5 and len(hooks.deliveries(hook)) == 12000


def test_the_newest_attempts_are_shown(gateway, hooks, sink):
    hook = hooks.make(sink.url("/often"))
    delivery = hooks.test(hook)
    sink.wait(1, "/often")
    gateway.sql("INSERT INTO webhook_attempt (delivery_id, number, at, ms, ok, status) "
                "SELECT %s::bigint, n, now(), 1, true, 200 FROM generate_series(2, 300) AS n RETURNING 1", delivery["id"][4:])
    shown = hooks.delivery(delivery)
    assert [row["number"] for row in shown["attempts"]] == list(range(101, 301)) and shown["attempt_count"] == 300


def test_only_what_failed_is_replayed_when_that_is_asked(hooks, sink):
    sink.on("/half", lambda arrival, handler: (500 if arrival.json["data"]["number"] % 2 else 200, {}, b""))
    hook = hooks.make(sink.url("/half"))
    hooks.emit(4)
    sink.wait(4, "/half")
    hooks.gateway.sql("UPDATE webhook_due SET tries = 7")
    for delivery in hooks.deliveries(hook):
        hooks.wait_attempts(delivery, 1)
    hooks.make_due(hook)
    failed = [delivery for delivery in hooks.deliveries(hook) if delivery["attempt_count"]]
    wait_until(lambda: len(hooks.deliveries(hook, status="failed")) == 2, 20, "two have failed")
    assert len(failed) == 4 and len(hooks.deliveries(hook, status="delivered")) == 2
    sink.on("/half", 200)
    assert hooks.ok("POST", f"/{hook['id']}/replay", 202, params={"since": "0", "status": "failed"})["replayed"] == 2
    wait_until(lambda: len(hooks.deliveries(hook, status="delivered")) == 4, 20, "all are delivered")


def test_nothing_is_sent_to_a_disabled_endpoint(hooks, sink):
    hook = hooks.make(sink.url("/closed"))
    hooks.emit()
    sink.wait(1, "/closed")
    delivery, = hooks.deliveries(hook)
    hooks.wait_status(delivery, "delivered")
    shown = hooks.ok("PATCH", f"/{hook['id']}", json={"enabled": False})
    assert not shown["enabled"] and shown["disabled_reason"] == "owner" and shown["disabled_at"]
    hooks.emit()
    error_of(hooks.call("POST", f"/{hook['id']}/test"), 409, "webhook_disabled")
    error_of(hooks.call("POST", f"/deliveries/{delivery['id']}/replay"), 409, "webhook_disabled")
    error_of(hooks.call("POST", f"/{hook['id']}/replay?since=0"), 409, "webhook_disabled")
    shown = hooks.ok("PATCH", f"/{hook['id']}", json={"enabled": True})
    assert shown["enabled"] and shown["disabled_reason"] is None and shown["disabled_at"] is None
    test = hooks.test(hook)
    hooks.wait_status(test, "delivered")
    assert len(sink.at("/closed")) == 2


def test_what_an_operator_has_disabled_its_owner_can_not_enable(gateway, hooks, sink):
    hook = hooks.make(sink.url(path := "/operators"), enabled=False)
    gateway.admin("webhook", "disable", hook["id"])  # though its owner has already
    assert hooks.ok("GET", f"/{hook['id']}")["disabled_reason"] == "operator"
    error_of(hooks.call("PATCH", f"/{hook['id']}", json={"enabled": True, "description": "mine"}), 403, "forbidden")
    assert hooks.ok("PATCH", f"/{hook['id']}", json={"description": "mine"})["disabled_reason"] == "operator"
    assert hooks.ok("PATCH", f"/{hook['id']}", json={"enabled": False})["disabled_reason"] == "operator"
    gateway.admin("webhook", "enable", hook["id"])
    delivery = hooks.test(hook)
    assert sink.wait(1, path)[0].id == delivery["event_id"]


def test_what_waits_goes_on_when_an_endpoint_is_enabled_again(hooks, sink):
    sink.on("/later", 500)
    hook = hooks.make(sink.url("/later"))
    hooks.emit()
    sink.wait(1, "/later")
    delivery, = hooks.deliveries(hook)
    hooks.wait_attempts(delivery, 1)
    hooks.ok("PATCH", f"/{hook['id']}", json={"enabled": False})
    hooks.make_due(hook)
    assert hooks.delivery(delivery)["status"] == "pending" and hooks.delivery(delivery)["next_attempt_at"] is None
    sink.on("/later", 200)
    hooks.ok("PATCH", f"/{hook['id']}", json={"enabled": True})
    assert hooks.wait_status(delivery, "delivered")["attempt_count"] == 2


# ---- secrets ----

def test_two_signatures_while_a_rotated_secret_overlaps(hooks, sink):
    hook = hooks.make(sink.url("/rotate"))
    rotated = hooks.ok("POST", f"/{hook['id']}/rotate-secret", json={"overlap_seconds": 3600})
    assert rotated["secret"] != hook["secret"] and rotated["old_secret_until"]
    hooks.emit()
    arrival, = sink.wait(1, "/rotate")
    assert arrival.headers["webhook-signature"].split(" ") == [
        standard_signature(arrival, rotated["secret"]), standard_signature(arrival, hook["secret"])]
    assert arrival.headers["X-Webhook-Signature"] == seed_signature(arrival.body, rotated["secret"])
    hooks.gateway.sql("UPDATE webhook_endpoint SET old_secret_until = now() - interval '1 second' WHERE ref = %s", hook["id"])
    hooks.emit()
    arrival = sink.wait(2, "/rotate")[1]
    assert arrival.headers["webhook-signature"] == standard_signature(arrival, rotated["secret"])
    assert hooks.ok("GET", f"/{hook['id']}")["old_secret_until"] is None


def test_without_an_overlap_the_old_secret_ends_at_once(hooks, sink):
    hook = hooks.make(sink.url("/at-once"))
    rotated = hooks.ok("POST", f"/{hook['id']}/rotate-secret", json={"secret": "a secret of my own".replace(" ", "-")})
    assert rotated["secret"] == "a-secret-of-my-own" and rotated["old_secret_until"] is None
    hooks.emit()
    arrival, = sink.wait(1, "/at-once")
    assert arrival.headers["webhook-signature"] == standard_signature(arrival, rotated["secret"])
    for body in ({"overlap_seconds": -1}, {"overlap_seconds": 604801}, {"overlap_seconds": "1"}, {"secret": "short"}):
        error_of(hooks.call("POST", f"/{hook['id']}/rotate-secret", json=body), 400, "invalid_parameter")


def test_secrets_survive_another_encryption_key(gateway, hooks, sink):
    """Both secrets of an endpoint are sealed anew with all else that is sealed."""
    hook = hooks.make(sink.url("/vault"))
    rotated = hooks.ok("POST", f"/{hook['id']}/rotate-secret", json={"overlap_seconds": 3600})
    sealed = "SELECT secret, old_secret FROM webhook_endpoint WHERE ref = %s"
    before = [bytes(value) for value in gateway.sql(sealed, hook["id"])[0]]
    gateway.admin("vault", "rotate", env={"NEW_ENCRYPTION_KEY": "another-secret-of-the-operator-0123456789"})
    after = [bytes(value) for value in gateway.sql(sealed, hook["id"])[0]]
    assert all(old != new and old[1:5] != new[1:5] for old, new in zip(before, after))
    hooks.emit()
    arrival, = sink.wait(1, "/vault")
    assert arrival.headers["webhook-signature"].split(" ") == [
        standard_signature(arrival, rotated["secret"]), standard_signature(arrival, hook["secret"])]


# ---- what goes ----

def test_old_deliveries_and_deleted_endpoints_leave_nothing(start_gateway, sink):
    gateway = start_gateway({**ACCOUNT_SETTINGS, **SETTINGS})
    hooks = Hooks(gateway)
    kept, deleted = hooks.make(sink.url("/kept")), hooks.make(sink.url("/deleted"))
    old, = hooks.emit()
    sink.wait(1, "/kept"), sink.wait(1, "/deleted")
    gateway.sql("UPDATE webhook_delivery SET created_at = now() - interval '8 days' WHERE event_id = %s", old)
    new, = hooks.emit()
    sink.wait(2, "/kept"), sink.wait(2, "/deleted")
    wait_until(lambda: gateway.sql("SELECT count(*) FROM webhook_attempt")[0][0] == 4, 20, "all is logged")
    hooks.ok("DELETE", f"/{deleted['id']}")
    assert gateway.sql("SELECT webhook_forget(36500, 100)")[0][0] == 0  # a worker may have some of it in hand yet
    gateway.sql("UPDATE webhook_endpoint SET deleted_at = now() - interval '3 minutes' WHERE ref = %s", deleted["id"])
    for part in gateway.works:  # it looks for what is old when it starts
        part.stop()
        part.start().wait_ready()
    wait_until(lambda: gateway.sql("SELECT count(*) FROM webhook_endpoint")[0][0] == 1, 20, "the endpoint is gone")
    assert gateway.sql("SELECT event_id FROM webhook_delivery") == [(new,)]
    assert gateway.sql("SELECT count(*) FROM webhook_attempt")[0][0] == 1
    assert gateway.sql("SELECT count(*) FROM webhook_due")[0][0] == 0
    assert [delivery["event_id"] for delivery in hooks.deliveries(kept)] == [new]


def test_changes_are_recorded(hooks, sink):
    hook = hooks.make(sink.url("/audit"))
    hooks.ok("PATCH", f"/{hook['id']}", json={"description": "x"})
    hooks.ok("POST", f"/{hook['id']}/rotate-secret")
    delivery = hooks.test(hook)
    hooks.ok("POST", f"/deliveries/{delivery['id']}/replay", 202)
    hooks.ok("POST", f"/{hook['id']}/replay?since=0", 202)
    hooks.ok("DELETE", f"/{hook['id']}")
    rows = hooks.gateway.sql("SELECT action, object FROM audit WHERE account_id = %s AND action LIKE 'webhook.%%' ORDER BY id",
                             hooks.number)
    assert rows == [("webhook.create", hook["id"]), ("webhook.update", hook["id"]), ("webhook.rotate_secret", hook["id"]),
                    ("webhook.test", hook["id"]), ("webhook.replay", delivery["id"]), ("webhook.replay", hook["id"]),
                    ("webhook.delete", hook["id"])]


# ---- from what happens to the delivery ----

def test_a_session_tells_of_itself(gateway, hooks, sink):
    """A real cause, its relay and its bell: no look of the reconciler's is waited for."""
    hook = hooks.make(sink.url("/session"), ["instance.*"])
    key = hooks.account.make_key(surface="session")["key"]
    begun = time.monotonic()
    made = hooks.account.call("POST", "/session/create", headers={"X-API-Key": key, "Authorization": None},
                              json={"user_id": "ada@example.com"})
    assert made.status_code == 201, made.text
    arrival, = sink.wait(1, "/session", 4)
    assert time.monotonic() - begun < 4  # a ring that is lost comes after five seconds
    assert arrival.json["event"] == "instance.created" and arrival.json["data"]["uuid"] == made.json()["uuid"]
    delivery, = hooks.deliveries(hook)
    assert delivery["surface"] == "session" and delivery["event_id"] == arrival.id

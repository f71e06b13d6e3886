"""Streams of events, over WebSocket and as server-sent events."""

import json
import re
import select
import subprocess
import threading
import time

import pytest
import requests

from accounts import SETTINGS, Account, call, error_of
from events import NUMBER, PATH, Sse, add, ids, listen, listen_and_say, number_of, since, ws_url
from fixtures import run_gateway
from stores import wait_until
from wakegate import BINARY, environment, run
from websocket_client import connect


@pytest.fixture(scope="module")
def live(stores):
    """Two servers, which know of each other by the stores alone."""
    yield from run_gateway(stores, {**SETTINGS, "CORS_ORIGINS": "https://app.example.com", "SSE_COMMENT_SECONDS": "1"},
                           serves=2)


@pytest.fixture
def account(live):
    return Account(live)


# ---- what is told ----

def test_a_session_tells_its_life(live, account):
    key = account.make_key(surface="session")["key"]
    headers = {"X-API-Key": key}

    def session(method, path, prefer=None, **options):
        answer = requests.request(method, live.url + path, headers={**headers, "Prefer": prefer}, timeout=60, **options)
        assert answer.status_code < 300, answer.text
        return answer.json()

    with listen(live, account.key) as listener, Sse(live, account.key, part=1) as sse:
        uuid = session("POST", "/session/create", json={"user_id": "ada"})["uuid"]
        message = session("POST", f"/session/{uuid}/chat", "wait=30", json={"message": "hello"})
        session("POST", f"/session/{uuid}/sleep")
        wait_until(lambda: session("GET", f"/session/{uuid}/status")["replicas"] == 0, 30, "asleep")
        session("DELETE", f"/session/{uuid}")
        got = [listener.next() for _ in range(5)]
        assert [each["type"] for each in got] == [
            "instance.created", "instance.ready", "message.delivered", "instance.hibernated", "instance.deleted"]
        assert [sse.next() for _ in range(5)] == got
    catalogue = {each["name"]: each for each in map(json.loads, run("events").stdout.splitlines())}
    for each in got:
        assert set(each) == {"id", "type", "timestamp", "data"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each["timestamp"])
        assert re.fullmatch(r"evt_[0-9a-f]{29}", each["id"])
        assert each["data"]["uuid"] == uuid and each["data"]["user_id"] == "ada"
        assert set(each["data"]) == set(catalogue[each["type"]]["data"]["properties"])
    assert len({each["id"] for each in got}) == 5
    assert got[2]["data"]["message_id"] == message["message_id"]


def test_what_was_taken_back_is_never_told(live, account):
    number = number_of(live, account)
    with listen(live, account.key) as listener:
        with pytest.raises(Exception, match="division by zero"):
            live.sql("SELECT event_add(%s, 'inference', 'job.failed', '{}'), 1 / 0", number)
        add(live, account, 1, 1)
        assert listener.numbers(1) == [1]
        assert listener.silent() == []


def test_tenants_hear_their_own_alone(live, account):
    other = Account(live)
    with listen(live, account.key) as mine, listen(live, other.key, part=1) as theirs:
        add(live, account, 1, 3)
        add(live, other, 101, 103)
        assert mine.numbers(3) == [1, 2, 3]
        assert theirs.numbers(3) == [101, 102, 103]
        assert mine.silent() == theirs.silent() == []
    # An id of the other's is as good as one that never was, and no way to its history.
    with listen(live, account.key, last_event_id=ids(live, other)[0]) as listener:
        gap = listener.next()
        assert gap["type"] == "gap" and gap["reason"] == "unknown"
        assert listener.silent() == []


# ---- who may listen ----

def test_the_first_message_may_say_who_it_is(live, account):
    token = account.logged_in()["token"]
    for credential in (account.key, token):
        with listen(live) as listener:
            error = listener.ask("subscribe", "error", events=["job.*"])[0]
            assert error["code"] == "unauthorized"
            told = listener.ask("auth", "authenticated", token=credential)[0]
            assert told["events"] == ["*"]
            add(live, account, 1, 1)
            assert listener.numbers(1) == [1]
            assert listener.ask("auth", "error", token=credential)[0]["code"] == "already_authenticated"


@pytest.mark.parametrize("token, code", [("fsk-nonsense", 4401), ("", 4401), ("eyJ.eyJ.x", 4401)])
def test_who_says_nothing_good_is_closed(live, token, code):
    with listen(live) as listener:
        listener.say(type="auth", token=token)
        if not token:  # it may try again, but not for long
            assert listener.next()["code"] == "invalid_message"
            began = time.monotonic()
            assert listener.closed() == code and 5 < since(began) < 12
        else:
            assert listener.next()["code"] == "invalid_api_key"
            assert listener.closed() == code


def test_a_key_without_the_scope_does_not_listen(live, account):
    key = account.make_key(scopes=["account:read"])["key"]
    with listen(live) as listener:
        listener.say(type="auth", token=key)
        assert listener.next()["code"] == "insufficient_scope"
        assert listener.closed() == 4403
    error_of(account.call("GET", PATH, key), 403, "insufficient_scope")
    error_of(account.call("POST", PATH + "/ticket", key), 403, "insufficient_scope")
    allowed = account.make_key(scopes=["events"])["key"]
    with listen(live, allowed) as listener:
        assert listener.silent() == []


def test_a_key_that_must_sign_or_come_from_elsewhere_does_not_listen(live, account):
    for options, code, close in (({"require_signature": True}, "signature_required", 4401),
                                 ({"allow_from": ["192.0.2.0/24"]}, "address_not_allowed", 4403)):
        key = account.make_key(**options)["key"]
        with listen(live) as listener:
            listener.say(type="auth", token=key)
            assert listener.next()["code"] == code
            assert listener.closed() == close


def test_an_event_stream_needs_credentials(live, account):
    answer = call(live, "GET", PATH, headers={"Accept": "text/event-stream"})
    error_of(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    error_of(account.call("GET", PATH, "fsk-nonsense"), 401, "invalid_api_key")
    error_of(account.call("GET", PATH, headers={"Accept": "application/json"}), 426, "upgrade_required")
    assert account.call("HEAD", PATH).status_code == 200


def test_a_foreign_page_is_refused(live, account):
    for origin, fine in (("https://app.example.com", True), ("https://evil.example.com", False)):
        try:
            with connect(ws_url(live), extra_headers={"Authorization": f"Bearer {account.key}", "Origin": origin}):
                assert fine
        except Exception as refused:  # websockets' name for it differs by version
            assert not fine and "403" in str(refused)


def ticket_of(account, token=None, part=0):
    answer = account.call("POST", PATH + "/ticket", token, url=account.gateway.serves[part].url())
    assert answer.status_code == 201 and answer.json()["expires_in"] == 60
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.json()["ticket"]


def test_a_ticket_opens_one_stream_on_any_server(live, account):
    ticket = ticket_of(account)
    with listen(live, part=1, ticket=ticket) as listener:
        add(live, account, 1, 1)
        assert listener.numbers(1) == [1]
    for part in (0, 1):
        error_of(call(live, "GET", PATH, params={"ticket": ticket}, url=live.serves[part].url()), 401, "invalid_token")
    error_of(call(live, "GET", PATH, params={"ticket": "wgt_nonsense"}), 401, "invalid_token")
    with Sse(live, None, ticket=ticket_of(account), last_event_id=ids(live, account)[0]) as sse:
        add(live, account, 2, 2)
        assert sse.numbers(1) == [2]
    assert ticket not in "".join(part.log() for part in live.parts)


def test_a_ticket_is_taken_once_by_many(live, account):
    ticket = ticket_of(account)
    statuses = []

    def take(part):
        answer = requests.get(live.serves[part].url() + PATH, params={"ticket": ticket}, stream=True, timeout=20)
        statuses.append(answer.status_code)
        answer.close()

    threads = [threading.Thread(target=take, args=(i % 2,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [401] * 19


def test_a_ticket_is_worth_no_more_than_its_key(live, account):
    made = account.make_key(scopes=["events"])
    ticket = ticket_of(account, made["key"])
    assert account.call("DELETE", f"/v1/api-keys/{made['id']}").status_code == 200
    error_of(call(live, "GET", PATH, params={"ticket": ticket}), 401, "invalid_token")


# ---- what ends it ----

def test_what_is_revoked_ends_open_streams_within_a_second_or_two(live, account):
    login = account.logged_in()
    key = account.make_key(scopes=["events"])
    ends = [
        (key["key"], lambda: account.call("DELETE", f"/v1/api-keys/{key['id']}")),
        (login["token"], lambda: account.call("POST", "/api/auth/logout", login["token"])),
    ]
    for token, end in ends:
        with listen(live, token) as first, listen(live, token, part=1) as second, Sse(live, token, part=1) as sse, \
                listen(live, account.key) as other:
            first.silent(), second.silent()
            assert end().status_code in (200, 204)
            began = time.monotonic()
            assert first.closed() == second.closed() == 4401
            assert sse.next() == {"type": "error", "code": "unauthorized", "message": "The key or log-in no longer holds"}
            assert sse.next() is None
            assert since(began) < 2
            assert other.silent() == []


def test_a_ban_ends_open_streams(live, account):
    with listen(live, account.key) as listener, Sse(live, account.key, part=1) as sse:
        listener.silent()
        live.operator("ban", "add", {"account": account.email, "reason": "spam"}).raise_for_status()
        began = time.monotonic()
        assert listener.closed() == 4403
        assert sse.next()["code"] == "account_banned"
        assert since(began) < 2


def test_an_account_has_so_many_streams(start_gateway):
    gateway = start_gateway({**SETTINGS, "EVENT_STREAMS_PER_ACCOUNT": "2", "REACTORS": "1"}, works=0)
    account = Account(gateway)
    other = Account(gateway)
    with listen(gateway, account.key), listen(gateway, account.key):
        answer = account.call("GET", PATH)
        error_of(answer, 429, "rate_limit_exceeded")
        assert int(answer.headers["Retry-After"]) > 0
        with listen(gateway) as listener:
            listener.say(type="auth", token=account.key)
            assert listener.next()["code"] == "rate_limit_exceeded"
            assert listener.closed() == 4429
        with listen(gateway, other.key) as listener:
            assert listener.silent() == []
    wait_until(lambda: Sse(gateway, account.key).answer.status_code == 200, 10, "their places are free again")


def test_sigterm_ends_streams_in_order(start_gateway):
    gateway = start_gateway({**SETTINGS, "DRAIN_SECONDS": "20"}, works=0)
    account = Account(gateway)
    with listen(gateway, account.key) as listener, Sse(gateway, account.key) as sse, listen(gateway) as unknown:
        listener.silent()
        began = time.monotonic()
        gateway.serves[0].process.terminate()
        assert listener.closed() == 1001 and unknown.closed() == 1001
        assert sse.next() is None
        assert gateway.serves[0].wait() == 0
        assert since(began) < 10


# ---- filters ----

def test_filters(live, account):
    with listen(live, account.key, events="job.*,instance.ready") as some, listen(live, account.key) as narrowing, \
            Sse(live, account.key, events=NUMBER) as sse:
        told = narrowing.ask("subscribe", "subscribed", events=["billing.*"])[0]
        assert told["events"] == ["billing.low_balance"]
        told = narrowing.ask("subscribe", "subscribed", events=["instance.ready", "job.*"])[0]
        assert sorted(told["events"]) == ["billing.low_balance", "instance.ready", "job.completed", "job.failed"]
        told = narrowing.ask("unsubscribe", "unsubscribed", events=["job.completed", "instance.*"])[0]
        assert sorted(told["events"]) == ["billing.low_balance", "job.failed"]
        for number, name in enumerate(["instance.created", "instance.ready", "job.completed", NUMBER, "billing.low_balance",
                                       "webhook.disabled", NUMBER]):
            add(live, account, number, number, name)
        assert some.numbers(4) == [1, 2, 3, 6]
        assert narrowing.numbers(3) == [3, 4, 6]
        assert sse.numbers(2) == [3, 6]
        assert some.silent() == narrowing.silent() == []
        assert narrowing.ask("unsubscribe", "unsubscribed", events=["*"])[0]["events"] == []
        add(live, account, 7, 7)
        assert some.numbers(1) == [7]
        assert narrowing.silent() == []


@pytest.mark.parametrize("message, code", [
    ('{"type":"subscribe"}', "invalid_events"), ('{"type":"subscribe","events":"job.*"}', "invalid_events"),
    ('{"type":"subscribe","events":["nonsense"]}', "unknown_event"), ('{"type":"subscribe","events":[7]}', "unknown_event"),
    (json.dumps({"type": "subscribe", "events": ["*"] * 65}), "invalid_events"), ('{"type":"resume"}', "invalid_message"),
    ('{"type":"dance"}', "unknown_type"), ("{}", "unknown_type"), ("[]", "unknown_type"), ("nonsense", "invalid_json"),
    ('{"type":"ping","type":"ping"}', "invalid_json"), (b'{"type":"ping"}', "invalid_json")])
def test_what_makes_no_sense_is_answered_and_changes_nothing(live, account, message, code):
    with listen(live, account.key) as listener:
        listener.socket.send(message)
        assert listener.next()["code"] == code
        add(live, account, 1, 1)
        assert listener.numbers(1) == [1]


def test_bad_wishes_in_the_query_are_refused(live, account):
    for events in ("nonsense", "", "job.complete", ",".join(["*"] * 65)):
        error_of(account.call("GET", PATH, params={"events": events}), 400, "invalid_parameter")


def test_a_message_that_is_too_long_is_1009(live, account):
    with listen(live, account.key) as listener:
        listener.socket.send(json.dumps({"type": "ping", "pad": "x" * 17000}))
        assert listener.closed() == 1009


# ---- going on ----

def test_what_was_missed_comes_first(live, account):
    add(live, account, 1, 5)
    history = wait_until(lambda: len(known := ids(live, account)) == 5 and known, 10, "the events are numbered")
    with listen(live, account.key, last_event_id=history[1]) as query, \
            listen(live, account.key, part=1) as message, \
            Sse(live, account.key, last_id=history[2]) as sse, \
            listen_and_say(live, account.key, part=1, last_event_id=history[3]) as auth:
        told, before = message.ask("resume", "resumed", last_event_id=history[0])
        assert [each["data"]["number"] for each in before] == [2, 3, 4, 5]
        assert told["last_event_id"] == history[4]
        assert query.numbers(3) == [3, 4, 5]
        assert sse.numbers(2) == [4, 5] and sse.id == history[4]
        assert auth.numbers(1) == [5]
        add(live, account, 6, 6)
        assert query.numbers(1) == message.numbers(1) == sse.numbers(1) == [6]
        assert auth.until(NUMBER)[0]["data"]["number"] == 6
    with listen(live, account.key, last_event_id=history[4]) as listener:
        assert listener.numbers(1) == [6]
        assert listener.silent() == []


def test_a_late_resume_gives_nothing_twice(live, account):
    add(live, account, 1, 3)
    history = wait_until(lambda: len(known := ids(live, account)) == 3 and known, 10, "the events are numbered")
    with listen(live, account.key) as listener:
        listener.silent()
        add(live, account, 4, 5)
        assert listener.numbers(2) == [4, 5]
        before = listener.ask("resume", "resumed", last_event_id=history[0])[1]
        assert [each["data"]["number"] for each in before] == [2, 3]
        add(live, account, 6, 6)
        assert listener.numbers(1) == [6]


def test_what_is_said_at_once_is_answered_in_its_place(live, account):
    """All in one go, before the server has said a word."""
    add(live, account, 1, 3)
    history = wait_until(lambda: len(known := ids(live, account)) == 3 and known, 10, "the events are numbered")
    with listen(live) as listener:
        listener.say(type="auth", token=account.key)
        listener.say(type="subscribe", events=["job.*"])
        listener.say(type="resume", last_event_id=history[0])
        listener.say(type="ping")
        kinds = [listener.next()["type"] for _ in range(6)]
        assert sorted(kinds) == sorted(["authenticated", "subscribed", NUMBER, NUMBER, "resumed", "pong"])
        assert kinds.index(NUMBER) < kinds.index("resumed")


def test_where_one_stands_is_told_before_the_first_event(live, account):
    """So that nothing is missed by who is cut before he had any."""
    with listen(live, account.key) as listener, Sse(live, account.key) as sse:
        place = listener.ask("ping", "pong")[0]["last_event_id"]
        add(live, account, 1, 1)
        assert sse.numbers(1) == [1]
    with listen(live, account.key, last_event_id=place) as listener:
        assert listener.numbers(1) == [1]


def test_past_the_history_there_is_a_gap(live, account):
    add(live, account, 1, 4)
    history = wait_until(lambda: len(known := ids(live, account)) == 4 and known, 10, "the events are numbered")
    live.sql("DELETE FROM event WHERE account_id = %s AND seq <= 2", number_of(live, account))
    # Servers that have just told of them would still know: these have never heard of the account.
    with listen(live, account.key, last_event_id=history[0]) as listener, Sse(live, account.key, last_id=history[0]) as sse:
        for got in (listener.next(), sse.next()):
            assert got["type"] == "gap" and got["reason"] == "expired" and got["last_event_id"] == history[0]
        assert listener.numbers(2) == sse.numbers(2) == [3, 4]
    for nonsense in ("x", "evt_1", "evt_" + "f" * 29, "0" * 33):
        with listen(live, account.key, last_event_id=nonsense) as listener:
            assert listener.next()["reason"] == "unknown"
            assert listener.silent() == []


def test_what_is_forgotten_between_others_is_a_gap_too(live, account):
    """Events become too old by the time of their cause, which is not always the order of their numbers; and while they are sent."""
    add(live, account, 1, 6)
    history = wait_until(lambda: len(known := ids(live, account)) == 6 and known, 10, "the events are numbered")
    live.sql("DELETE FROM event WHERE account_id = %s AND seq IN (3, 4)", number_of(live, account))
    with listen(live, account.key, last_event_id=history[0]) as listener, Sse(live, account.key, last_id=history[0]) as sse:
        for got in (listener, sse):
            assert got.numbers(1) == [2]
            gap = got.next()
            assert gap["type"] == "gap" and gap["reason"] == "expired" and gap["last_event_id"] is None
            assert got.numbers(2) == [5, 6]


# ---- in a terminal ----

@pytest.fixture
def tail(tmp_path):
    """tail(url, key, *words): `wakegate tail`; its lines come from `stdout`."""
    running = []

    def start(url, key, *words):
        credentials = tmp_path / "credentials.env"
        credentials.write_text(f"WAKEGATE_URL={url}\nFABSTIR_API_KEY={key}\n")
        running.append(subprocess.Popen([BINARY, "tail", "--credentials", str(credentials), *words], env=environment(),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def test_tail_prints_goes_on_after_a_break_and_ends(start_gateway, tail):
    gateway = start_gateway({**SETTINGS, "DRAIN_SECONDS": "5"}, works=0)
    account = Account(gateway)
    add(gateway, account, 1, 2)
    history = wait_until(lambda: len(known := ids(gateway, account)) == 2 and known, 10, "the events are numbered")
    gateway.settings["PORT"] = gateway.url.rpartition(":")[2]
    gateway.write_settings()
    all_of, some = (tail(gateway.url, account.key, "--last-event-id", history[0], *words)
                    for words in (("--json",), ("--events", "job.completed,instance.*")))
    assert json.loads(all_of.stdout.readline())["data"]["number"] == 2
    assert gateway.serves[0].stop() == 0
    add(gateway, account, 3, 3)
    add(gateway, account, 4, 4, "job.completed")
    gateway.serves[0].start().wait_ready()
    assert [json.loads(all_of.stdout.readline())["data"]["number"] for _ in range(2)] == [3, 4]
    moment, name, data = some.stdout.readline().split(maxsplit=2)
    assert (name, json.loads(data)) == ("job.completed", {"number": 4}) and moment.endswith("Z")
    for process in (all_of, some):
        process.terminate()
        assert process.wait(20) == 0


def test_tail_says_why_it_is_refused(live, tail):
    for key, words, why in (("fsk-nonsense", (), "401"), (Account(live).key, ("--events", "nonsense"), "400")):
        process = tail(live.url, key, *words)
        assert process.wait(20) == 1
        assert why in process.stderr.read()
    assert run("tail", "--credentials", "/nonexistent/file").returncode == 2


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_what_others_wrote_does_not_command_the_terminal(live, account, tail, words):
    data = {"text": "\x1b[2J \x9b2J \x7f \u0085 \u00e4 \u4e16 \u00a0"}
    process = tail(live.url, account.key, *words)
    hears = lambda: live.sql("SELECT event_add(%s, 'inference', 'job.failed', %s)", number_of(live, account), json.dumps(data)) and \
        select.select([process.stdout], [], [], 1)[0]
    wait_until(hears, 20, "it listens")
    line = process.stdout.readline()
    assert not any(ord(c) < 0x20 or 0x7f <= ord(c) < 0xa0 for c in line.rstrip("\n"))
    told = json.loads(line if words else line.split(maxsplit=2)[2])
    assert (told["data"] if words else told) == data


SEED = """
    const WebSocket = require('ws');
    const ws = new WebSocket(process.argv[1]);          // the seed's snippet, and who it is
    ws.on('open', () => ws.send(JSON.stringify({type: 'auth', token: process.argv[2]})));
    ws.on('message', (data) => {
      const event = JSON.parse(data);
      console.log('Event:', event.type, JSON.stringify(event.data));
      if (event.data) ws.close();
    });
    ws.on('close', (code) => console.log(code));
"""


def test_the_seeds_snippet_hears_events(live, account):
    process = subprocess.Popen(["node", "-e", SEED, ws_url(live), account.key], stdout=subprocess.PIPE, text=True,
                               env={"PATH": "/usr/bin:/bin", "NODE_PATH": "/usr/share/nodejs"})
    assert process.stdout.readline() == "Event: authenticated undefined\n"
    add(live, account, 1, 1)
    assert process.stdout.read().split("\n")[:2] == ['Event: job.failed {"number":1}', "1005"]
    assert process.wait(10) == 0

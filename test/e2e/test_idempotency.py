"""Idempotency-Key: a POST or DELETE that is repeated has one effect, and its first answer is given again."""

import concurrent.futures
import http.client
import threading
import urllib.parse
import uuid as uuids

import pytest
import requests

from books import asked_texts
from stores import wait_until

OWN_FIELDS = {"date", "x-request-id", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "connection",
              "idempotent-replayed"}


def new_key():
    return str(uuids.uuid4())


def post(client, path, key, method="POST", headers=None, **options):
    return client.call(method, path, headers={"Idempotency-Key": key, **(headers or {})}, **options)


def fields(answer):
    return {name.lower(): value for name, value in answer.headers.items() if name.lower() not in OWN_FIELDS}


def check_replay(first, again):
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (again.status_code, again.content, fields(again)) == (first.status_code, first.content, fields(first))
    assert again.headers["X-Request-Id"] != first.headers["X-Request-Id"]


def twice(client, path, **options):
    """The first answer, once the second was the same."""
    key = new_key()
    first = post(client, path, key, **options)
    check_replay(first, post(client, path, key, **options))
    return first


def count(gateway, statement, *values):
    return gateway.sql(f"SELECT count(*) FROM {statement}", *values)[0][0]


def rows_of(gateway, user_id):
    return count(gateway, "instance WHERE user_id = %s", user_id)


# ---- every route of the session surface ----

def test_a_session_is_made_once(gateway, client):
    first = twice(client, "/session/create", json={"user_id": "once"})
    assert first.status_code == 201
    assert rows_of(gateway, "once") == 1
    uuid = first.json()["uuid"]
    assert client.status(uuid).json()["session"]["user_id"] == "once"


def test_waking_and_sleeping_are_answered_as_the_first_time(gateway, client):
    uuid = client.create()
    key = new_key()
    first = post(client, f"/session/{uuid}/wake", key)
    assert (first.status_code, first.json()["status"]) == (202, "queued")
    client.wait_status(uuid, "active")
    check_replay(first, post(client, f"/session/{uuid}/wake", key))
    assert twice(client, f"/session/{uuid}/wake").json()["status"] == "active"
    assert twice(client, f"/session/{uuid}/sleep").status_code == 202
    client.wait_status(uuid, "sleeping")
    # A replay has no effect: it does not wake what sleeps.
    check_replay(first, post(client, f"/session/{uuid}/wake", key))
    assert client.status(uuid).json()["session"]["status"] == "sleeping"


def test_a_message_to_a_pod_that_sleeps_is_queued_once(gateway, client):
    uuid = client.create()
    key = new_key()
    first = post(client, f"/session/{uuid}/chat", key, json={"message": "hello"})
    assert first.status_code == 202
    check_replay(first, post(client, f"/session/{uuid}/chat", key, json={"message": "hello"}))
    [message] = client.wait_settled(uuid, 1)
    assert message["message_id"] == first.json()["message_id"]
    # What was answered first is answered now, though more is known.
    check_replay(first, post(client, f"/session/{uuid}/chat", key, json={"message": "hello"}))


def test_a_message_to_a_pod_that_is_awake_is_delivered_once(recorder):
    client = recorder.client()
    uuid = client.awake()
    first = twice(client, f"/session/{uuid}/chat", json={"message": "direct"})
    assert first.status_code == 200 and first.json()["response"] == "1: direct"
    waited = twice(client, f"/session/{uuid}/chat", json={"message": "waited"}, headers={"Prefer": "wait=20"})
    assert waited.status_code == 200 and waited.headers["Preference-Applied"] == "wait=20"
    assert asked_texts(recorder, uuid) == ["direct", "waited"]


def test_a_message_that_the_worker_delivers_is_answered_as_the_first_time(recorder):
    client = recorder.client()
    uuid = client.create()
    first = twice(client, f"/session/{uuid}/chat", json={"message": "wakes"}, headers={"Prefer": "wait=30"})
    assert first.status_code == 200 and first.json()["response"] == "1: wakes"


def test_a_message_that_failed_is_not_sent_again(recorder):
    """The 502 is not kept, but the message is: its id is what a repetition gets."""
    client = recorder.client()
    uuid = client.awake()
    key = new_key()
    assert post(client, f"/session/{uuid}/chat", key, json={"message": "!500"}).status_code == 502
    again = post(client, f"/session/{uuid}/chat", key, json={"message": "!500"})
    assert again.status_code == 202 and again.headers["Idempotent-Replayed"] == "true"
    [message] = client.all_messages(uuid)
    assert (message["message_id"], message["status"]) == (again.json()["message_id"], "failed")
    assert asked_texts(recorder, uuid) == ["!500"]


def test_a_client_that_leaves_finds_its_message(recorder):
    client = recorder.client()
    uuid = client.awake()
    key = new_key()
    slow = {"json": {"message": "!slow 2"}}
    with pytest.raises(requests.exceptions.Timeout):
        post(client, f"/session/{uuid}/chat", key, timeout=0.5, **slow)
    running = post(client, f"/session/{uuid}/chat", key, **slow)
    assert running.status_code == 409 and int(running.headers["Retry-After"]) > 0
    answer = wait_until(lambda: (a := post(client, f"/session/{uuid}/chat", key, **slow)).status_code != 409 and a, 20)
    assert answer.status_code in (200, 202) and answer.headers["Idempotent-Replayed"] == "true"
    [message] = client.wait_settled(uuid, 1)
    assert message["message_id"] == answer.json()["message_id"]
    assert asked_texts(recorder, uuid) == ["!slow 2"]


def test_a_session_is_deleted_once(gateway, client):
    uuid = client.awake()
    first = twice(client, f"/session/{uuid}", method="DELETE")
    assert first.status_code == 200 and first.json()["status"] == "terminated"
    assert count(gateway, "instance WHERE id = %s", uuid) == 0
    assert post(client, f"/session/{uuid}", new_key(), method="DELETE").status_code == 404


def test_refusals_below_500_are_answers_too(client):
    uuid = "a" + "b" * 15
    assert twice(client, f"/session/{uuid}/wake").status_code == 404
    assert twice(client, "/session/create", json={"user_id": ""}).status_code == 400
    assert twice(client, "/session/create", data="{").status_code == 400


# ---- the key ----

def test_the_same_key_with_another_request_is_422(gateway, client):
    key = new_key()
    first = post(client, "/session/create", key, json={"user_id": "first body"})
    assert first.status_code == 201
    uuid = first.json()["uuid"]
    others = [post(client, "/session/create", key, json={"user_id": "other body"}),
              post(client, "/session/create?x=1", key, json={"user_id": "first body"}),
              post(client, f"/session/{uuid}/wake", key, json={"user_id": "first body"}),
              post(client, f"/session/{uuid}", key, method="DELETE")]
    for other in others:
        assert other.status_code == 422, other.text
        assert "Idempotent-Replayed" not in other.headers
    assert rows_of(gateway, "other body") == 0 and rows_of(gateway, "first body") == 1
    check_replay(first, post(client, "/session/create", key, json={"user_id": "first body"}))


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tinside", b"caf\xc3\xa9", b"\x7f"])
def test_a_key_that_is_none_is_400(gateway, client, key):
    answer = post(client, "/session/create", key, json={"user_id": "bad key"})
    assert answer.status_code == 400, answer.text
    assert rows_of(gateway, "bad key") == 0


@pytest.mark.parametrize("key", ["x", "x" * 255, "with spaces and \"quotes\" ~!{}", "'; DROP TABLE idempotency; --"])
def test_any_printable_key_will_do(client, key):
    assert twice_with(client, key).status_code == 201


def twice_with(client, key):
    first = post(client, "/session/create", key, json={"user_id": "fine key"})
    check_replay(first, post(client, "/session/create", key, json={"user_id": "fine key"}))
    return first


def test_two_keys_are_none(gateway):
    url = urllib.parse.urlsplit(gateway.url)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=20)
    connection.putrequest("POST", "/session/create")
    for name, value in (("X-API-Key", gateway.key()), ("Idempotency-Key", "one"), ("Idempotency-Key", "two"),
                        ("Content-Length", "19")):
        connection.putheader(name, value)
    connection.endheaders(b'{"user_id": "twice"}'[:19])
    assert connection.getresponse().status == 400
    connection.close()


def test_reading_takes_no_notice_of_a_key(client):
    for _ in range(2):
        answer = client.call("GET", "/session", headers={"Idempotency-Key": "x" * 300})
        assert answer.status_code == 200 and "Idempotent-Replayed" not in answer.headers


def test_tenants_have_keys_of_their_own(gateway, client):
    other = gateway.client("others")
    key = new_key()
    first = post(client, "/session/create", key, json={"user_id": "tenants"})
    second = post(other, "/session/create", key, json={"user_id": "tenants"})
    assert first.status_code == second.status_code == 201
    assert first.json()["uuid"] != second.json()["uuid"]
    check_replay(first, post(client, "/session/create", key, json={"user_id": "tenants"}))
    check_replay(second, post(other, "/session/create", key, json={"user_id": "tenants"}))


# ---- at once, and over restarts ----

def test_a_second_one_while_the_first_runs_is_409(gateway, client):
    uuid = client.create()
    key = new_key()
    connection = gateway.stores.postgres.connect(gateway.database)
    connection.autocommit = False
    with connection.cursor() as cursor, concurrent.futures.ThreadPoolExecutor(1) as pool:
        cursor.execute("SELECT 1 FROM instance WHERE id = %s FOR UPDATE", (uuid,))
        running = pool.submit(post, client, f"/session/{uuid}/wake", key)
        wait_until(lambda: count(gateway, "pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s",
                                 "%UPDATE instance%"))
        refused = post(client, f"/session/{uuid}/wake", key)
        assert refused.status_code == 409 and int(refused.headers["Retry-After"]) > 0
        # Others do not wait for it.
        assert post(client, "/session/create", new_key(), json={"user_id": "beside"}).status_code == 201
        connection.rollback()
        first = running.result()
    connection.close()
    assert first.status_code == 202
    check_replay(first, post(client, f"/session/{uuid}/wake", key))


def test_fifty_at_once_on_two_servers_have_one_effect(start_gateway):
    gateway = start_gateway(serves=2, works=0)
    clients = [gateway.client(url=part.url()) for part in gateway.serves]
    for round_number in range(3):
        key, user_id = new_key(), f"fifty {round_number}"
        barrier = threading.Barrier(50)

        def send(number):
            barrier.wait()
            return post(clients[number % 2], "/session/create", key, json={"user_id": user_id})

        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(send, range(50)))
        made = [answer for answer in answers if answer.status_code == 201]
        assert {answer.status_code for answer in answers} <= {201, 409}
        assert [answer.headers.get("Idempotent-Replayed") for answer in made].count(None) == 1
        assert len({answer.content for answer in made}) == 1
        assert rows_of(gateway, user_id) == 1
        for client in clients:
            answer = post(client, "/session/create", key, json={"user_id": user_id})
            assert answer.headers["Idempotent-Replayed"] == "true" and answer.content == made[0].content


def test_a_kept_answer_outlives_the_server(start_gateway):
    gateway = start_gateway(works=0)
    key = new_key()
    first = post(gateway.client(), "/session/create", key, json={"user_id": "restart"})
    assert first.status_code == 201
    assert gateway.serves[0].stop() == 0
    gateway.serves[0].start().wait_ready()
    check_replay(first, post(gateway.client(), "/session/create", key, json={"user_id": "restart"}))
    gateway.serves[0].kill()
    gateway.serves[0].start().wait_ready()
    check_replay(first, post(gateway.client(), "/session/create", key, json={"user_id": "restart"}))
    assert rows_of(gateway, "restart") == 1


# ---- what is not kept ----

def test_an_internal_error_has_had_no_effect_and_is_tried_anew(start_gateway):
    gateway = start_gateway(works=0)
    client = gateway.client()
    key = new_key()
    gateway.sql("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'for a test'; END $$; "
                "CREATE TRIGGER refuse BEFORE INSERT ON instance FOR EACH ROW EXECUTE FUNCTION refuse()")
    for _ in range(2):
        answer = post(client, "/session/create", key, json={"user_id": "trouble"})
        assert answer.status_code == 500 and "Idempotent-Replayed" not in answer.headers
    assert count(gateway, "idempotency") == 0
    gateway.sql("DROP TRIGGER refuse ON instance")
    first = post(client, "/session/create", key, json={"user_id": "trouble"})
    assert first.status_code == 201 and "Idempotent-Replayed" not in first.headers
    check_replay(first, post(client, "/session/create", key, json={"user_id": "trouble"}))


def test_an_answer_that_cannot_be_kept_is_503_without_an_effect(start_gateway):
    gateway = start_gateway(works=0)
    client = gateway.client()
    uuid = client.create()
    gateway.sql("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN RAISE EXCEPTION 'for a test'; END $$; "
                "CREATE TRIGGER refuse BEFORE INSERT ON idempotency FOR EACH ROW EXECUTE FUNCTION refuse()")
    before = count(gateway, "job"), count(gateway, "audit")
    answers = [post(client, "/session/create", new_key(), json={"user_id": "not kept"}),
               post(client, f"/session/{uuid}/wake", new_key()),
               post(client, f"/session/{uuid}/chat", new_key(), json={"message": "not kept"}),
               post(client, f"/session/{uuid}", new_key(), method="DELETE")]
    for answer in answers:
        assert answer.status_code in (500, 503), answer.text
        assert list(answer.json()) == ["error"]
        assert answer.headers.get("Content-Type") == "application/json"
    assert rows_of(gateway, "not kept") == 0 and count(gateway, "message") == 0
    assert (count(gateway, "job"), count(gateway, "audit")) == before
    assert client.status(uuid).json()["session"]["status"] == "created"


def test_a_limit_is_not_kept(start_gateway):
    gateway = start_gateway({"SESSION_RATE_PER_MINUTE": "2"}, works=0)
    client = gateway.client()
    keys = [new_key() for _ in range(3)]
    answers = [post(client, "/session/create", key, json={"user_id": "limited"}) for key in keys]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert count(gateway, "idempotency") == 2


def test_rows_are_sealed(gateway, client):
    key = new_key()
    answer = post(client, "/session/create", key, json={"user_id": "sealed user"})
    [(owner, sealed, request)] = gateway.sql("SELECT owner, answer, request FROM idempotency WHERE key = %s", key)
    assert owner.startswith("session:")
    for plain in (answer.json()["uuid"].encode(), b"sealed user", b"Content-Type", gateway.key().encode()):
        assert plain not in bytes(sealed) and plain not in bytes(request)


# ---- the record ----

def test_a_change_is_recorded_once_and_says_who(gateway, client):
    created = twice(client, "/session/create", json={"user_id": "audited"})
    uuid = created.json()["uuid"]
    waked = twice(client, f"/session/{uuid}/wake")
    client.wait_status(uuid, "active")
    twice(client, f"/session/{uuid}/sleep")
    twice(client, f"/session/{uuid}", method="DELETE")
    rows = gateway.sql("SELECT action, actor, address, request_id, account_id FROM audit WHERE object = %s ORDER BY id",
                       uuid)
    assert [row[0] for row in rows] == ["session.create", "session.wake", "session.sleep", "session.delete"]
    [(key_id, account)] = gateway.sql("SELECT k.id, k.account_id FROM api_key k JOIN account a ON a.id = k.account_id "
                                      "WHERE a.name = 'tests' ORDER BY k.id LIMIT 1")
    assert {(row[1], row[2], row[4]) for row in rows} == {(f"key {key_id}", "127.0.0.1", account)}
    assert [row[3] for row in rows[:2]] == [created.headers["X-Request-Id"], waked.headers["X-Request-Id"]]
    # Without a key it is recorded, too.
    plain = client.create()
    assert count(gateway, "audit WHERE object = %s", plain) == 1


# ---- answers that show a secret ----

def check_no_secret_in_rows(gateway, secret):
    for owner, key, sealed, request in gateway.sql("SELECT owner, key, answer, request FROM idempotency"):
        for value in (owner.encode(), key.encode(), bytes(sealed), bytes(request)):
            assert secret.encode() not in value


def bearer(gateway, key, path, secret, **body):
    return requests.post(gateway.url + path, json=body, timeout=30,
                         headers={"Authorization": f"Bearer {secret}", "Idempotency-Key": key})


def test_a_new_api_key_is_shown_again_and_is_the_same(gateway):
    secret = gateway.admin("key", "create", "--account", "secrets", "--surface", "inference")["key"]
    key = new_key()
    first = bearer(gateway, key, "/api/v1/api-keys", secret, name="kept")
    assert first.status_code == 201, first.text
    again = bearer(gateway, key, "/api/v1/api-keys", secret, name="kept")
    check_replay(first, again)
    assert again.json()["key"] == first.json()["key"]
    assert count(gateway, "api_key WHERE name = 'kept'") == 1
    check_no_secret_in_rows(gateway, first.json()["key"])
    # It is a key: the commit came before the answer.
    listed = requests.get(gateway.url + "/api/v1/api-keys", timeout=30,
                          headers={"Authorization": f"Bearer {first.json()['key']}"})
    assert listed.status_code == 200, listed.text


def test_a_key_is_not_shown_what_a_wider_one_of_its_account_made(gateway):
    def make(*options):
        return gateway.admin("key", "create", "--account", "wider", "--surface", "inference", *options)["key"]
    wide = make()
    key = new_key()
    first = bearer(gateway, key, "/api/v1/api-keys", wide, name="wide")
    for options in (["--scopes", "keys:write"], ["--allow-from", "127.0.0.0/8"]):
        answer = bearer(gateway, key, "/api/v1/api-keys", make(*options), name="wide")
        assert answer.status_code == 201 and "Idempotent-Replayed" not in answer.headers
        assert answer.json()["key"] != first.json()["key"]
        assert (answer.json()["scopes"], answer.json()["allow_from"]) != (first.json()["scopes"], [])
    # One that may do the same is shown it: a key may have been rotated between the two.
    check_replay(first, bearer(gateway, key, "/api/v1/api-keys", make(), name="wide"))


def test_refusals_of_nobody_are_not_kept(gateway):
    before = count(gateway, "idempotency")
    for path, body, status in (("/api/auth/refresh", {"refresh_token": "x"}, 401), ("/api/auth/login", {}, 400),
                               ("/api/auth/register", {"email": "x"}, 400)):
        for _ in range(2):
            answer = requests.post(gateway.url + path, json=body, headers={"Idempotency-Key": "nobody"}, timeout=30)
            assert answer.status_code == status and "Idempotent-Replayed" not in answer.headers
    assert count(gateway, "idempotency") == before


def test_a_registration_that_is_repeated_makes_one_account(gateway):
    key, email = new_key(), f"{new_key()}@example.com"
    body = {"email": email, "password": "a long enough password", "organization": "Once"}

    def register(**changes):
        return requests.post(gateway.url + "/api/auth/register", json={**body, **changes}, timeout=30,
                             headers={"Idempotency-Key": key})

    first = register()
    assert first.status_code in (200, 201), first.text
    check_replay(first, register())
    assert register(password="another long password").status_code == 422
    assert count(gateway, "account WHERE email = %s", email) == 1
    check_no_secret_in_rows(gateway, body["password"])
    for value in first.json().values():
        if isinstance(value, str) and len(value) > 40:
            check_no_secret_in_rows(gateway, value)

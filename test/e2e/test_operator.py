"""What an operator can do, on the command line and over the operator API: the same verbs, the same answers."""

import hashlib
import hmac
import json
import re
import subprocess
import threading
import time

import pytest
import requests

from description import routes
from fixtures import run_gateway
from stores import wait_until
from wakegate import ADMIN_TOKEN, BINARY, ENCRYPTION_KEY, environment, run

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
PASSWORD = "correct horse battery"
READS = ("list", "show", "counts", "dead", "check")


@pytest.fixture(scope="module")
def gateway(stores):
    yield from run_gateway(stores, {"ADDRESS_RATE_PER_MINUTE": "1000000", "LOGIN_RATE_PER_MINUTE": "1000000"})


class CommandLine:
    """Verbs on the command line. Secrets are given in the environment."""

    name = "cli"
    variables = {"password": "WAKEGATE_PASSWORD"}
    actor_address = None

    def __init__(self, gateway):
        self.gateway = gateway

    def run(self, noun, verb, json=True, **arguments):
        words, env = [noun, verb], {}
        for name, value in arguments.items():
            if name in self.variables:
                env[self.variables[name]] = value
            elif value is True or value == "true":
                words.append("--" + name.replace("_", "-"))
            else:
                words += ["--" + name.replace("_", "-"), str(value)]
        return run("admin", *words, "--env-file", self.gateway.env_file, *(["--json"] if json else []), env=env)

    def __call__(self, noun, verb, **arguments):
        words, env = [noun, verb], {}
        for name, value in arguments.items():
            if name in self.variables:
                env[self.variables[name]] = value
            else:
                words += ["--" + name] + ([] if value is True or value == "true" else [str(value)])
        return self.gateway.admin(*words, env=env)

    def refusal(self, noun, verb, **arguments):
        """Its line on stderr, without the program's name."""
        done = self.run(noun, verb, **arguments)
        assert done.returncode in (1, 2) and done.stdout == "", done
        lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        assert len(lines) == 1, done.stderr
        return lines[0].removeprefix("wakegate admin: ")


class Api:
    """The same over HTTP."""

    name = "api"
    actor_address = "127.0.0.1"

    def __init__(self, gateway):
        self.gateway = gateway

    def __call__(self, noun, verb, **arguments):
        answer = self.gateway.operator(noun, verb, arguments)
        assert answer.status_code == 200, answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Type"] == "application/json"
        return answer.json()

    def refusal(self, noun, verb, **arguments):
        answer = self.gateway.operator(noun, verb, arguments)
        body = answer.json()
        assert answer.status_code in (400, 404, 409) and set(body["error"]) == {"code", "message"}, answer.text
        return body["error"]["message"]


@pytest.fixture(params=[CommandLine, Api], ids=["cli", "api"])
def operator(gateway, request):
    return request.param(gateway)


def unique(operator, name):
    """A name that the other way has not used."""
    return f"{name}-{operator.name}"


def a_second_later():
    """Reactors believe what they have learned for 0.9 s; what is asked from now on must have the new answer."""
    time.sleep(1)


def bearer(secret):
    return {"Authorization": f"Bearer {secret}"}


def get(gateway, path, secret, **options):
    # A connection each time, so that all reactors are asked.
    return requests.get(gateway.url + path, headers=bearer(secret), timeout=30, **options)


# ---- accounts ----


def test_an_account_without_an_address(operator):
    name = unique(operator, "plain")
    made = operator("account", "create", name=name, organization="Some & Sons")
    assert re.fullmatch(r"user_[0-9a-f]{32}", made["ref"]) and re.fullmatch(TIME, made["created_at"])
    assert made == {"id": made["id"], "ref": made["ref"], "name": name, "email": None, "organization": "Some & Sons",
                    "plans": {}, "banned": False, "ban_reason": None, "banned_until": None,
                    "created_at": made["created_at"]}
    for who in (name, made["ref"], made["id"]):
        assert operator("account", "show", account=who) == made
    assert made in operator("account", "list")


def login(gateway, email, password):
    return requests.post(gateway.url + "/api/auth/login", json={"email": email, "password": password}, timeout=30)


def test_an_account_that_can_log_in_gets_a_password_and_another(operator, gateway):
    email = unique(operator, "ada") + "@example.com"
    made = operator("account", "create", name=unique(operator, "ada"), email=email.upper())
    assert made["email"] == email and len(made["password"]) >= 20
    assert login(gateway, email, made["password"]).status_code == 200
    changed = operator("account", "password", account=email, password=PASSWORD)
    assert "password" not in changed and changed["id"] == made["id"]
    assert login(gateway, email, made["password"]).status_code == 401
    assert login(gateway, email, PASSWORD).status_code == 200


def test_a_password_of_ones_own_is_not_shown(operator, gateway):
    email = unique(operator, "own") + "@example.com"
    made = operator("account", "create", name=unique(operator, "own"), email=email, password=PASSWORD)
    assert "password" not in made and PASSWORD not in str(made)
    assert login(gateway, email, PASSWORD).status_code == 200


def test_accounts_are_listed_in_pages(operator, gateway):
    for i in range(3):
        operator("account", "create", name=unique(operator, f"page{i}"))
    listed = operator("account", "list", limit=1000)
    assert [row["id"] for row in listed] == sorted((row["id"] for row in listed), reverse=True)
    first = operator("account", "list", limit=2)
    assert first + operator("account", "list", limit=1000, cursor=first[-1]["id"]) == listed


# ---- keys ----


def test_a_key_with_all_that_it_can_have(operator, gateway):
    account = unique(operator, "keys")
    made = operator("key", "create", account=account, surface="session", name="a name",
                    scopes="session:read", allow_from="127.0.0.1 10.0.0.0/8", expires_in=3600, require_signature=True)
    secret, signing = made.pop("key"), made.pop("signing_secret")
    assert secret.startswith("wgs_") and len(signing) > 40
    expected = {"account": account, "surface": "session", "name": "a name", "scopes": ["session:read"],
                "allow_from": ["127.0.0.1", "10.0.0.0/8"], "signing": True, "require_signature": True,
                "revoked_at": None}
    assert {name: made[name] for name in expected} == expected
    assert re.fullmatch(r"key_\w{22}", made["ref"]) and secret.startswith(made["shown"])
    assert re.fullmatch(TIME, made["created_at"]) and re.fullmatch(TIME, made["expires_at"])
    assert set(made) == {*expected, "id", "ref", "shown", "created_at", "expires_at"}
    assert operator("key", "list", account=account) == [made]


def test_a_key_makes_its_account_and_takes_the_same_one_later(operator, gateway):
    account = unique(operator, "made-by-key")
    first = operator("key", "create", account=account, surface="session")
    again = operator("key", "create", account=account, surface="gpu")
    assert first["scopes"] is None and first["allow_from"] is None and first["expires_at"] is None
    assert "signing_secret" not in first and again["key"].startswith("dumont_sk_")
    assert [key["id"] for key in operator("key", "list", account=account)] == [again["id"], first["id"]]
    assert requests.get(gateway.url + "/session", headers={"X-API-Key": first["key"]}, timeout=30).status_code == 200


def test_a_key_is_rotated_and_revoked_by_number_and_by_ref(operator, gateway):
    account = unique(operator, "rotates")
    old = operator("key", "create", account=account, surface="inference", name="n", scopes="keys:read ai:call")
    new = operator("key", "rotate", key=old["ref"])
    assert {name: new[name] for name in ("account", "name", "scopes", "surface")} == {
        name: old[name] for name in ("account", "name", "scopes", "surface")}
    assert get(gateway, "/api/v1/api-keys", new["key"]).status_code == 200
    wait_until(lambda: get(gateway, "/api/v1/api-keys", old["key"]).status_code == 401, 3, "the old key ends")
    revoked = operator("key", "revoke", key=new["id"])
    assert revoked["id"] == new["id"] and re.fullmatch(TIME, revoked["revoked_at"]) and "key" not in revoked
    wait_until(lambda: get(gateway, "/api/v1/api-keys", new["key"]).status_code == 401, 3, "the new key ends")
    assert operator.refusal("key", "revoke", key=new["id"]) == "no such key holds"


def test_an_overlap_leaves_both_keys(operator, gateway):
    old = operator("key", "create", account=unique(operator, "overlaps"), surface="inference")
    new = operator("key", "rotate", key=old["id"], overlap=3600)
    a_second_later()
    for key in (old, new):
        assert get(gateway, "/api/v1/api-keys", key["key"]).status_code == 200
    assert "rotated" in operator.refusal("key", "rotate", key=old["id"])


# ---- clients ----


def test_an_oauth_client(operator, gateway):
    account = unique(operator, "clients")
    uris = ["https://client.example/back", "http://127.0.0.1:9/back"]
    made = operator("client", "create", account=account, name="Some client", redirect_uri=" ".join(uris),
                    scopes="provision:read", test=True)
    secret = made.pop("client_secret")
    assert made == {"client_id": made["client_id"], "account": account, "name": "Some client", "redirect_uris": uris,
                    "grants": made["grants"], "scopes": ["provision:read"], "public": False, "test": True,
                    "created_at": made["created_at"], "revoked_at": None}
    assert made["client_id"].startswith("test_") and "authorization_code" in made["grants"]
    assert made in operator("client", "list")
    client = made["client_id"]
    assert token(gateway, client, secret).status_code == 200
    rotated = operator("client", "rotate", client=client)
    assert set(rotated) == {"client_id", "client_secret"} and rotated["client_secret"] != secret
    assert token(gateway, client, secret).status_code == 401
    assert token(gateway, client, rotated["client_secret"]).status_code == 200
    assert operator("client", "revoke", client=client) == {"client_id": client, "revoked": True}
    assert token(gateway, client, rotated["client_secret"]).status_code == 401
    listed = [row for row in operator("client", "list") if row["client_id"] == client]
    assert re.fullmatch(TIME, listed[0]["revoked_at"])
    assert client in operator.refusal("client", "revoke", client=client)


def token(gateway, client, secret):
    return requests.post(gateway.url + "/oauth/token", auth=(client, secret), timeout=30,
                         data={"grant_type": "client_credentials"})


def test_a_public_client_has_no_secret(operator):
    made = operator("client", "create", account=unique(operator, "clients"), name="An app",
                    redirect_uri="com.example.app:/back", public=True)
    assert made["public"] and "client_secret" not in made
    assert "secret" in operator.refusal("client", "rotate", client=made["client_id"])
    assert "redirect_uri" in operator.refusal("client", "create", account="clients", name="x", public=True)


# ---- plans ----


def limit_of(answer, name):
    rows = [row for row in answer["limits"] if row["limit"] == name]
    assert len(rows) == 1, rows
    return rows[0]


def test_the_table_of_plans(operator):
    rows = operator("plan", "list")
    assert {"surface": "inference", "plan": "free", "limit": "inference-minute", "routes": None, "per": "account",
            "most": 10, "window_seconds": 60, "burst": 0} in rows
    assert operator("plan", "list", surface="gpu") == [row for row in rows if row["surface"] == "gpu"]


def test_a_plan_and_a_limit_count_within_a_second(operator, gateway):
    account = unique(operator, "plans")
    key = operator("key", "create", account=account, surface="inference")["key"]

    def limit():
        return int(get(gateway, "/api/v1/whoami", key).headers["X-RateLimit-Limit"])

    before = operator("plan", "show", account=account)
    assert before["plans"]["inference"] == "free" and limit_of(before, "inference-minute")["most"] == 10
    assert not limit_of(before, "inference-minute")["own"]
    answers = [get(gateway, "/api/v1/whoami", key).status_code for _ in range(25)]
    assert 429 in answers, answers
    after = operator("plan", "set", account=account, surface="inference", plan="pro")
    assert after == operator("plan", "show", account=account)
    assert after["plans"]["inference"] == "pro" and limit_of(after, "inference-minute")["most"] == 1000
    a_second_later()
    assert {limit() for _ in range(8)} == {1000}
    assert get(gateway, "/api/v1/whoami", key).status_code == 200
    own = operator("plan", "limit", account=account, name="inference-minute", most=777)
    assert limit_of(own, "inference-minute") | {"most": 777, "own": True} == limit_of(own, "inference-minute")
    wait_until(lambda: {limit() for _ in range(8)} == {777}, 3, "the limit of its own counts")
    operator("plan", "limit", account=account, name="inference-minute", most=0)
    wait_until(lambda: {limit() for _ in range(8)} == {1000}, 3, "the plan's limit counts again")
    assert operator("plan", "show", account=account) == after
    assert operator("account", "show", account=account)["plans"] == {"inference": "pro"}


# ---- bans ----


def banned_account(operator, gateway, name):
    """An account with a key of each kind, a log-in, an OAuth token: functions that ask for something with each."""
    email = f"{name}@example.com"
    password = operator("account", "create", name=name, email=email)["password"]
    session = operator("key", "create", account=name, surface="session")["key"]
    inference = operator("key", "create", account=name, surface="inference")["key"]
    operator("plan", "set", account=name, surface="inference", plan="enterprise")
    jwt = login(gateway, email, password).json()["token"]
    client = operator("client", "create", account=name, name="c")
    return [
        lambda: requests.get(gateway.url + "/session", headers={"X-API-Key": session}, timeout=30),
        lambda: get(gateway, "/api/v1/whoami", inference),
        lambda: get(gateway, "/api/v1/whoami", jwt),
    ], client


def test_a_ban_refuses_all_within_a_second_and_its_end_lets_all_in(operator, gateway):
    name = unique(operator, "banned")
    calls, client = banned_account(operator, gateway, name)
    tokens = token(gateway, client["client_id"], client["client_secret"]).json()
    for call in calls:
        assert [call().status_code for _ in range(4)] == [200] * 4
    assert is_active(gateway, client, tokens["access_token"])
    banned = operator("ban", "add", account=name, reason="spam")
    assert (banned["banned"], banned["ban_reason"], banned["banned_until"]) == (True, "spam", None)
    a_second_later()
    for call in calls:
        assert [call().status_code for _ in range(4)] == [403] * 4
    for call in calls:
        answers = [call() for _ in range(10)]
        assert {answer.status_code for answer in answers} == {403}
        assert "banned" in answers[0].text
    assert token(gateway, client["client_id"], client["client_secret"]).status_code == 401
    assert banned in operator("ban", "list")
    freed = operator("ban", "remove", account=name)
    assert not freed["banned"] and freed["ban_reason"] is None
    for call in calls:
        wait_until(lambda call=call: call().status_code == 200, 3, "the ban has ended")
    assert name not in {row["name"] for row in operator("ban", "list")}
    assert "not banned" in operator.refusal("ban", "remove", account=name)


def is_active(gateway, client, access):
    answer = requests.post(gateway.url + "/oauth/introspect", auth=(client["client_id"], client["client_secret"]),
                           data={"token": access}, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()["active"]


def test_a_ban_ends_by_itself(operator, gateway):
    name = unique(operator, "short")
    key = operator("key", "create", account=name, surface="session")["key"]

    def status():
        return requests.get(gateway.url + "/session", headers={"X-API-Key": key}, timeout=30).status_code

    banned = operator("ban", "add", account=name, reason="cool down", **{"for": 2})
    assert re.fullmatch(TIME, banned["banned_until"])
    assert status() == 403
    wait_until(lambda: status() == 200, 5, "the ban ends")
    until = operator("ban", "add", account=name, reason="x", until="2999-01-01")
    assert until["banned_until"] == "2999-01-01T00:00:00Z"
    operator("ban", "remove", account=name)


# ---- audit ----


def test_the_record_says_who_did_what_from_where(operator, gateway):
    name = unique(operator, "audited")
    headers = {"X-Request-Id": "an-id-of-mine"}
    key = operator("key", "create", account=name, surface="session")
    if operator.name == "api":
        answer = gateway.operator("ban", "add", {"account": name, "reason": "x"}, headers=headers)
        assert answer.status_code == 200
    else:
        operator("ban", "add", account=name, reason="x")
    operator("ban", "remove", account=name)
    rows = operator("audit", "list", account=name)
    assert [row["action"] for row in rows] == ["account.unban", "account.ban", "key.create", "account.create"]
    ban = rows[1]
    assert re.fullmatch(TIME, ban["at"])
    assert ban | {"actor": "operator", "account": name, "address": operator.actor_address,
                  "request_id": "an-id-of-mine" if operator.name == "api" else None} == ban
    assert rows[2]["object"] == key["ref"]
    assert set(ban) == {"id", "at", "actor", "action", "object", "account", "address", "request_id"}
    assert operator("audit", "list", account=name, action="key.*") == [rows[2]]
    assert operator("audit", "list", action="key.create", actor="operator", object=key["ref"]) == [rows[2]]
    assert operator("audit", "list", account=name, actor="nobody") == []
    assert operator("audit", "list", account=name, since="2999-01-01") == []
    assert operator("audit", "list", account=name, since="2020-01-01", limit=1) == rows[:1]
    assert operator("audit", "list", account=name, limit=2, cursor=rows[0]["id"]) == rows[1:3]


CHANGING = {
    "account create": dict(name="all"), "key create": dict(account="all", surface="session"),
    "key rotate": None, "key revoke": None, "client create": dict(account="all", name="c"), "client rotate": None,
    "client revoke": None, "plan set": dict(account="all", surface="gpu", plan="pro"),
    "plan limit": dict(account="all", name="gpu-minute", most=5, burst=7),
    "plan spend": dict(account="all", most="5"), "ledger credit": dict(account="all", amount="100"),
    "ledger debit": dict(account="all", amount="1"), "plan subscribe": dict(account="all", plan="basic"),
    "ledger refund": dict(deposit="all"), "ban add": dict(account="all", reason="r"), "ban remove": dict(account="all"),
    "account password": dict(account="all@example.com", password=PASSWORD), "jobs redrive": dict(kind="ping"),
    "provider set": dict(provider="audited", base_url="http://127.0.0.1:9"), "model set": dict(model="audited", routes="audited"),
    "model delete": dict(model="audited"), "provider delete": dict(provider="audited"),
    "webhook disable": dict(webhook="all"), "webhook enable": dict(webhook="all")}


def test_every_change_is_recorded_once(operator, gateway):
    """By the statement that makes it: none of the changing verbs is without a record, and a refused one has none."""
    assert {f"{noun} {verb}" for noun, verb in verbs_by("POST")} == set(CHANGING)
    gateway.sql("INSERT INTO job (kind, queue, tenant, state, run_at, ring_at) "
                "VALUES ('ping', 'ping', '1', 'dead', now(), now())")
    made = {}

    def newest():
        return gateway.sql("SELECT coalesce(max(id), 0) FROM audit")[0][0]

    for name, arguments in CHANGING.items():
        noun, verb = name.split()
        if arguments is None:
            arguments = {noun: made[noun]}
        arguments = {key: unique(operator, value) if value == "all" else value.replace("all@", f"all{operator.name}@")
                     if isinstance(value, str) else value for key, value in arguments.items()}
        if name == "account create":
            arguments["email"] = f"all{operator.name}@example.com"
        if name == "ledger refund":
            gateway.sql("SELECT ledger_move(id, 'deposit', 1, 'dep_' || name) FROM account WHERE name = %s", arguments["deposit"])
            arguments = {"deposit": gateway.sql(
                "INSERT INTO deposit (id, account_id, driver, driver_ref, amount, currency, credited) "
                "SELECT 'dep_' || name, id, 'sandbox', 'x', 1, 'USD', 1 FROM account WHERE name = %s RETURNING id",
                arguments["deposit"])[0][0]}
        if noun == "webhook":
            arguments = {"webhook": made.get("webhook") or gateway.make_webhook(unique(operator, "all"))}
            made["webhook"] = arguments["webhook"]
        before = newest()
        answer = operator(noun, verb, **arguments)
        if noun in ("key", "client") and verb != "revoke":
            made[noun] = answer.get("ref") or answer["client_id"]
        added = gateway.sql(f"SELECT actor, action FROM audit WHERE id > {before}")
        assert [row[0] for row in added] == ["operator"], (name, added)
        if name == "plan limit":
            row = limit_of(answer, "gpu-minute")
            assert (row["most"], row["burst"], row["own"]) == (5, 7, True)
    before = newest()
    operator.refusal("key", "revoke", key=made["key"])
    operator.refusal("account", "create", name=unique(operator, "all"))
    operator.refusal("provider", "set", provider="refused")
    operator.refusal("provider", "delete", provider="refused")
    operator.refusal("model", "set", model="refused", routes="refused")
    assert newest() == before


# ---- webhooks ----


def test_webhooks_are_seen_disabled_and_enabled(operator, gateway):
    name = unique(operator, "hooked")
    operator("account", "create", name=name)
    first = gateway.make_webhook(name)
    second = gateway.make_webhook(name, surfaces=["gpu"], ordered=True)
    rows = operator("webhook", "list", account=name)
    assert [row["ref"] for row in rows] == [second, first]
    assert rows[0]["surfaces"] == ["gpu"] and rows[0]["ordered"] and rows[1]["surfaces"] is None
    assert not any("secret" in member for row in rows for member in row)
    assert operator("webhook", "list", account=name, limit=1, cursor=rows[0]["id"]) == rows[1:]
    assert operator("webhook", "list", limit=1) == rows[:1]
    shown = operator("webhook", "show", webhook=first)
    assert shown | rows[1] == shown and shown["enabled"] and shown["last_attempt_at"] is None
    assert (shown["pending"], shown["recent_attempts"]) == (0, 0)

    disabled = operator("webhook", "disable", webhook=first)
    assert not disabled["enabled"] and disabled["disabled_reason"] == "operator" and re.fullmatch(TIME, disabled["disabled_at"])
    assert [row["ref"] for row in operator("webhook", "list", account=name, disabled="true")] == [first]
    enabled = operator("webhook", "enable", webhook=first)
    assert enabled["enabled"] and enabled["disabled_reason"] is None
    assert operator("webhook", "list", account=name, disabled="true") == []


def test_a_webhooks_attempts_are_summed_up(operator, gateway):
    name = unique(operator, "summed")
    operator("account", "create", name=name)
    ref = gateway.make_webhook(name)
    gateway.sql("UPDATE webhook_endpoint SET failures = 2, failing_since = '2026-01-31T12:00:00Z' WHERE ref = %s RETURNING 1", ref)
    gateway.sql(
        "WITH w AS (SELECT id FROM webhook_endpoint WHERE ref = %s), d AS (INSERT INTO webhook_delivery "
        "(endpoint_id, event_id, surface, name, body) SELECT w.id, 'evt_' || n, 'gpu', 'job.failed', '{}' "
        "FROM w, generate_series(1, 120) AS n RETURNING id, endpoint_id), "
        "due AS (INSERT INTO webhook_due (delivery_id, endpoint_id, next_at) SELECT id, endpoint_id, "
        "timestamptz '2999-01-31 12:00:00Z' + id * interval '1 second' FROM (SELECT * FROM d ORDER BY id LIMIT 3) AS early), "
        "last AS (SELECT max(id) AS id FROM d) "
        "INSERT INTO webhook_attempt (delivery_id, number, at, ms, ok, status, error) "
        "SELECT d.id, 1, timestamptz '2026-01-31 12:00:00Z' + d.id * interval '1 millisecond', 7, true, 200, NULL FROM d "
        "UNION ALL SELECT last.id, 2, '2026-02-28 12:00:00Z', 900, false, 500, 'Status 500' FROM last RETURNING 1", ref)
    shown = operator("webhook", "show", webhook=ref)
    assert shown["failures"] == 2 and shown["failing_since"] == "2026-01-31T12:00:00Z"
    assert shown["pending"] == 3 and shown["next_attempt_at"].startswith("2999-")
    assert (shown["recent_attempts"], shown["recent_failed"], shown["recent_slowest_ms"]) == (101, 1, 900)
    assert (shown["last_attempt_at"], shown["last_status"], shown["last_error"]) == ("2026-02-28T12:00:00Z", 500, "Status 500")


# ---- jobs ----


def test_dead_jobs_are_seen_and_redriven(operator, gateway):
    ids = [gateway.sql("INSERT INTO job (kind, queue, tenant, state, run_at, ring_at, tries, last_error) "
                       "VALUES ('ping', 'ping', '1', 'dead', now(), now(), 3, 'broken') RETURNING id")[0][0]
           for _ in range(3)]
    dead = operator("jobs", "dead")
    assert [row["id"] for row in dead] == ids
    assert dead[0] | {"kind": "ping", "tenant": "1", "key": None, "tries": 3, "crashes": 0,
                      "last_error": "broken"} == dead[0]
    assert operator("jobs", "dead", limit=1, cursor=ids[0]) == dead[1:2]
    counted = [row for row in operator("jobs", "counts") if row["state"] == "dead"]
    assert counted and counted[0] | {"kind": "ping", "count": 3} == counted[0]
    assert operator("jobs", "redrive", job=ids[0]) == {"redriven": 1}
    assert operator("jobs", "redrive", kind="ping") == {"redriven": 2}
    wait_until(lambda: operator("jobs", "counts") == [], 20, "all is done")
    assert operator.refusal("jobs", "redrive", job=ids[0]) == "no such job is dead"
    assert "kind" in operator.refusal("jobs", "redrive", kind="none")
    assert "job or kind" in operator.refusal("jobs", "redrive")
    assert "job or kind" in operator.refusal("jobs", "redrive", job=1, kind="ping")


# ---- the same both ways ----


def verbs_by(method):
    """The API's routes as nouns and verbs."""
    return [tuple(row[2].split("/")[3:]) for row in routes() if row[0] == "operator" and row[1] == method]


def test_what_reads_answers_the_same_both_ways(gateway):
    gateway.admin("key", "create", "--account", "both", "--surface", "session")
    gateway.admin("client", "create", "--account", "both", "--name", "c")
    webhook = gateway.make_webhook("both")
    gateway.admin("ban", "add", "both", "--reason", "x")
    assert {row[3] for row in routes() if row[0] == "operator"} == {"admin"}
    reading = verbs_by("GET")
    assert {verb for _, verb in reading} == set(READS) and len(reading) == 19, reading
    for noun, verb in reading:
        name, value = {"provider": ("provider", "sandbox"), "model": ("model", "gpt-4"),
                       "webhook": ("webhook", webhook)}.get(noun, ("account", "both"))
        of_one = verb == "show" or noun == "ledger"
        words = [value] if of_one else []
        arguments = {name: value} if of_one else {}
        assert gateway.admin(noun, verb, *words) == gateway.operator(noun, verb, arguments).json(), (noun, verb)
    gateway.admin("ban", "remove", "both")


def test_what_is_local_has_no_route(gateway):
    for noun, verb in (("vault", "rotate"), ("vault", "forget"), ("demo", "credentials"), ("jobs", "ping")):
        assert gateway.operator(noun, verb).status_code == 404


def test_an_idempotency_key_makes_one_key(gateway):
    arguments = {"account": "repeats", "surface": "session"}
    answers = [gateway.operator("key", "create", arguments, headers={"Idempotency-Key": "once"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.text for answer in answers}) == 1
    assert len(gateway.admin("key", "list", "repeats")) == 1


# ---- what is asked wrongly ----

WRONG = [
    ("account", "create", {}, "name"), ("account", "create", {"name": "12"}, "number"),
    ("account", "create", {"name": "user_x"}, "user_"), ("account", "create", {"name": "a@b.example"}, "@"),
    ("account", "create", {"name": "x" * 101}, "100"), ("account", "create", {"name": "x", "email": "x"}, "e-mail"),
    ("account", "create", {"name": "x", "email": "x@example.com", "password": "short"}, "12"),
    ("account", "create", {"name": "x", "password": PASSWORD}, "email"),
    ("account", "create", {"name": "x", "organization": "x" * 201}, "200"),
    ("account", "show", {"account": "nobody-at-all"}, "nobody-at-all"), ("account", "show", {}, "account"),
    ("account", "list", {"limit": 0}, "limit"), ("account", "list", {"limit": 1001}, "limit"),
    ("account", "list", {"cursor": "x"}, "cursor"),
    ("account", "password", {"account": "wrong", "password": PASSWORD}, "e-mail"),
    ("key", "create", {"account": "wrong"}, "surface"), ("key", "create", {"surface": "session"}, "account"),
    ("key", "create", {"account": "wrong", "surface": "none"}, "none"),
    ("key", "create", {"account": "wrong", "surface": "session", "scopes": "ai:call"}, "session:read"),
    ("key", "create", {"account": "wrong", "surface": "session", "allow_from": "10.0.0.1/8"}, "10.0.0.1/8"),
    ("key", "create", {"account": "wrong", "surface": "session", "allow_from": " ".join(["10.0.0.1"] * 17)}, "16"),
    ("key", "create", {"account": "wrong", "surface": "session", "expires_in": 0}, "expires_in"),
    ("key", "create", {"account": "wrong", "surface": "session", "expires_in": 1.5}, "expires_in"),
    ("key", "create", {"account": "wrong", "surface": "session", "expires_in": 2 ** 63 - 1}, "expires_in"),
    ("key", "create", {"account": "wrong", "surface": "session", "name": "x" * 101}, "100"),
    ("key", "create", {"account": "99999999", "surface": "session"}, "99999999"),
    ("key", "create", {"account": "user_none", "surface": "session"}, "user_none"),
    ("key", "revoke", {"key": "key_none"}, "key"), ("key", "revoke", {"key": 999999}, "key"),
    ("key", "revoke", {}, "key"),
    ("key", "rotate", {"key": "key_none"}, "key"), ("key", "rotate", {"key": 1, "overlap": 99999999}, "overlap"),
    ("key", "list", {"account": "nobody-at-all"}, "nobody-at-all"),
    ("client", "create", {"account": "wrong"}, "name"),
    ("client", "create", {"account": "wrong", "name": "x", "redirect_uri": "http://example.com/x"}, "redirect_uri"),
    ("client", "create", {"account": "wrong", "name": "x", "redirect_uri": "https://example.com/#x"}, "redirect_uri"),
    ("client", "create", {"account": "wrong", "name": "x", "scopes": "session:read"}, "provision:read"),
    ("client", "revoke", {"client": "cli_none"}, "cli_none"), ("client", "rotate", {"client": "cli_none"}, "cli_none"),
    ("plan", "show", {"account": "nobody-at-all"}, "nobody-at-all"),
    ("plan", "set", {"account": "wrong", "surface": "session", "plan": "pro"}, "session"),
    ("plan", "set", {"account": "wrong", "surface": "gpu", "plan": "free"}, "starter pro enterprise"),
    ("plan", "set", {"account": "nobody-at-all", "surface": "gpu", "plan": "pro"}, "nobody-at-all"),
    ("plan", "limit", {"account": "wrong", "name": "none", "most": 1}, "none"),
    ("plan", "limit", {"account": "wrong", "name": "gpu-minute"}, "most"),
    ("plan", "limit", {"account": "wrong", "name": "gpu-minute", "most": 1000000001}, "1000000000"),
    ("plan", "spend", {"account": "wrong", "most": "0"}, "most"), ("plan", "spend", {"account": "wrong"}, "most"),
    ("plan", "subscribe", {"account": "wrong", "plan": "enterprise"}, "enterprise"),
    ("plan", "subscribe", {"account": "wrong", "plan": "pro"}, "costs"),
    ("ledger", "credit", {"account": "wrong", "amount": "-1"}, "amount"), ("ledger", "credit", {"account": "wrong"}, "amount"),
    ("ledger", "credit", {"account": "wrong", "amount": "1234567890"}, "amount"),
    ("ledger", "credit", {"account": "wrong", "amount": "1", "ref": "x" * 101}, "100"),
    ("ledger", "debit", {"account": "wrong", "amount": "1"}, "more than"),
    ("ledger", "debit", {"account": "nobody-at-all", "amount": "1"}, "nobody-at-all"),
    ("ledger", "refund", {"deposit": "dep_none"}, "dep_none"), ("ledger", "refund", {"deposit": "x", "amount": "x"}, "amount"),
    ("ledger", "show", {"account": "nobody-at-all"}, "nobody-at-all"),
    ("ledger", "list", {"account": "wrong", "limit": 0}, "limit"), ("ledger", "check", {"account": "nobody-at-all"}, "nobody-at-all"),
    ("ban", "add", {"account": "wrong"}, "reason"), ("ban", "add", {"account": "wrong", "reason": "x" * 501}, "500"),
    ("ban", "add", {"account": "wrong", "reason": "x", "until": "2020-01-01"}, "past"),
    ("ban", "add", {"account": "wrong", "reason": "x", "until": "tomorrow"}, "until"),
    ("ban", "add", {"account": "wrong", "reason": "x", "for": 0}, "for"),
    ("ban", "add", {"account": "wrong", "reason": "x", "for": 9, "until": "2999-01-01"}, "for"),
    ("ban", "remove", {"account": "nobody-at-all"}, "nobody-at-all"), ("ban", "remove", {"account": "wrong"}, "banned"),
    ("audit", "list", {"since": "2026-02-30"}, "since"),
    ("audit", "list", {"account": "nobody-at-all"}, "nobody-at-all"),
    ("webhook", "list", {"account": "nobody-at-all"}, "nobody-at-all"), ("webhook", "list", {"limit": 0}, "limit"),
    ("webhook", "show", {"webhook": "we_none"}, "we_none"), ("webhook", "disable", {"webhook": "we_none"}, "we_none"),
    ("webhook", "enable", {"webhook": "we_none"}, "we_none"), ("webhook", "show", {}, "webhook"),
    ("jobs", "redrive", {"job": "x"}, "job"),
]


@pytest.fixture(scope="module", name="wrong")
def wrong_account(gateway):
    return gateway.admin("account", "create", "wrong")


@pytest.mark.parametrize("noun,verb,arguments,words", WRONG,
                         ids=[f"{row[0]}-{row[1]}-{row[3]}-{i}" for i, row in enumerate(WRONG)])
def test_what_is_asked_wrongly_is_one_line_that_names_it(operator, gateway, wrong, noun, verb, arguments, words):
    before = gateway.sql("SELECT (SELECT count(*) FROM account), (SELECT count(*) FROM api_key), "
                         "(SELECT count(*) FROM oauth_client), (SELECT count(*) FROM audit)")
    assert words in operator.refusal(noun, verb, **arguments)
    assert before == gateway.sql("SELECT (SELECT count(*) FROM account), (SELECT count(*) FROM api_key), "
                                 "(SELECT count(*) FROM oauth_client), (SELECT count(*) FROM audit)")


def test_a_name_that_is_taken(operator, gateway):
    operator("account", "create", name=unique(operator, "taken"), email=f"taken{operator.name}@example.com")
    assert "already" in operator.refusal("account", "create", name=unique(operator, "taken"))
    assert "already" in operator.refusal("account", "create", name=unique(operator, "other"),
                                         email=f"TAKEN{operator.name}@example.com")


def test_statuses_of_refusals(gateway, wrong):
    assert gateway.operator("account", "create", {"name": "wrong"}).status_code == 409
    assert gateway.operator("account", "show", {"account": "none"}).status_code == 404
    assert gateway.operator("account", "create", {}).status_code == 400


@pytest.mark.parametrize("body", [{"name": 1.5, "account": 1}, {"name": True}, {"name": {}}, {"name": ["x"]},
                                  {"other": 1}, {"name": "a\0b"}, {"name": ""}, {"account": None}])
def test_bodies_of_the_wrong_shape(gateway, body):
    answer = gateway.operator("account", "create", body)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_parameter", answer.text


def test_parameters_of_the_wrong_shape(gateway):
    for query in ("limi=1", "limit=1&limit=2", "limit=%zz", "limit", "limit=%00"):
        answer = requests.get(f"{gateway.url}/admin/v1/account/list?{query}", headers=bearer(ADMIN_TOKEN), timeout=30)
        assert answer.status_code == 400, query
    answer = requests.get(f"{gateway.url}/admin/v1/account/list?&limit=1&", headers=bearer(ADMIN_TOKEN), timeout=30)
    assert answer.status_code == 200


@pytest.mark.parametrize("words", [
    ["none"], ["key"], ["key", "none"], ["create", "key"], ["key", "list", "a", "b"], ["key", "list", "--none", "1"],
    ["key", "create", "--account"], ["account", "password", "x", "--password", "y"], ["vault", "rotate"],
    ["account", "password", "x"], ["jobs", "ping", "--count", "x"]])
def test_wrong_words_are_one_line_and_status_2(gateway, words):
    done = run("admin", *words, "--env-file", gateway.env_file)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1, done
    assert done.stderr.startswith("wakegate admin: ")


# ---- who may ----


def test_only_the_token_opens_the_api(gateway):
    key = gateway.key()
    for token_given in (None, "wrong", ADMIN_TOKEN + "x", ADMIN_TOKEN[:-1], key, ""):
        for noun, verb in (("account", "list"), ("account", "create")):
            answer = gateway.operator(noun, verb, {}, token=token_given)
            assert answer.status_code == 401, token_given
            assert set(answer.json()["error"]) == {"code", "message"}
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    url = gateway.url + "/admin/v1/account/list"
    for options in ({"params": {"token": ADMIN_TOKEN}}, {"headers": {"X-API-Key": ADMIN_TOKEN}},
                    {"auth": ("", ADMIN_TOKEN)}, {"headers": {"Authorization": ADMIN_TOKEN}}):
        assert requests.get(url, timeout=30, **options).status_code in (400, 401)
    assert requests.get(url, headers={"Authorization": f"bearer {ADMIN_TOKEN}"}, timeout=30).status_code == 200
    assert requests.post(url, headers=bearer(ADMIN_TOKEN), timeout=30).status_code == 405
    assert requests.get(gateway.url + "/admin/v1/none/list", headers=bearer(ADMIN_TOKEN), timeout=30).status_code == 404


def test_without_a_token_in_the_settings_nobody_is_let_in(start_gateway):
    gateway = start_gateway({"ADMIN_TOKEN": ""}, works=0)
    for token_given in (None, "", "x", ADMIN_TOKEN):
        assert gateway.operator("account", "list", token=token_given).status_code == 401


def test_a_short_token_stops_the_start(gateway):
    done = run("serve", env={**gateway.settings, "ADMIN_TOKEN": "short-one"})
    assert done.returncode == 2 and "ADMIN_TOKEN" in done.stderr and "short-one" not in done.stderr


# ---- for people ----


def text(gateway, *words, env=None):
    done = run("admin", *words, "--env-file", gateway.env_file, env=env)
    assert done.returncode == 0, done.stderr
    return done


def test_text_for_people(gateway):
    made = text(gateway, "key", "create", "--account", "people", "--surface", "session", "--name", "laptop")
    key = re.search(r"^key: +(wgs_\w{49})$", made.stdout, re.MULTILINE)
    assert key and "not shown again" in made.stderr
    number = re.search(r"^id: +(\d+)$", made.stdout, re.MULTILINE)[1]
    listed = text(gateway, "key", "list", "people").stdout.splitlines()
    assert len(listed) == 2 and listed[0].split()[:4] == ["id", "ref", "account", "surface"]
    assert listed[0].index("surface") == listed[1].index("session") and listed[1].split()[0] == number
    assert key[1] not in "\n".join(listed)
    shown = text(gateway, "plan", "show", "people").stdout
    assert re.search(r"^plans: +.*gpu=starter", shown, re.MULTILINE)
    assert re.search(r"^inference +free +inference-minute +- +account +10 +60 +0 +no$", shown, re.MULTILINE)
    assert text(gateway, "ban", "list").stdout == "none\n"
    audit = text(gateway, "audit", "people").stdout
    assert "key.create" in audit and "operator" in audit


def test_a_users_name_can_not_write_to_the_terminal(gateway):
    evil = "\x1b[2J\x1b]0;x\x07evil\r\nid: 1"
    answer = requests.post(gateway.url + "/api/auth/register", timeout=30,
                           json={"email": "evil@example.com", "organization": evil, "password": PASSWORD})
    if answer.status_code == 400:
        gateway.operator("account", "create", {"name": "evil", "email": "evil@example.com", "organization": evil})
    for words in (("account", "list"), ("account", "show", "evil@example.com")):
        shown = text(gateway, *words).stdout
        assert "evil" in shown and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", shown)
    done = run("admin", "account", "show", "\x1b[2J\nx", "--env-file", gateway.env_file)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "\x1b" not in done.stderr


def test_help_names_every_verb_with_its_arguments():
    shown = run("admin", "--help")
    assert shown.returncode == 0 and shown.stderr == ""
    alone = run("admin")
    assert alone.returncode == 2 and alone.stdout == shown.stdout
    for line in ("key revoke KEY", "account create NAME [--email EMAIL]", "audit list [ACCOUNT]",
                 "vault rotate $NEW_ENCRYPTION_KEY", "account password ACCOUNT $WAKEGATE_PASSWORD",
                 "jobs ping [--count COUNT]", "[--since TIME]", "--allow-from",
                 "[--public]", "rotate-encryption-key", "--json", "--env-file"):
        assert line in shown.stdout, line
    for noun, verb in verbs_by("GET") + verbs_by("POST"):
        assert f"  {noun} {verb}" in shown.stdout
        one = run("admin", noun, verb, "--help")
        assert one.returncode == 0 and f"{noun} {verb}" in one.stdout
    assert "--require-signature" in run("admin", "key", "create", "--help").stdout


def test_an_outage_is_one_line(gateway):
    env = {**gateway.settings, "REDIS_URL": "redis://127.0.0.1:1", "DATABASE_URL": "postgresql://127.0.0.1:1/x"}
    done = run("admin", "key", "list", env=env)
    plain = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == 1 and len(plain) == 1 and "does not answer" in plain[0]


def test_demo_credentials_are_those_asked_for(gateway):
    made = gateway.admin("demo", "credentials")
    assert set(made) == {"SESSION_API_KEY", "FABSTIR_API_KEY", "DUMONT_API_KEY", "FABSTIR_EMAIL", "FABSTIR_PASSWORD",
                         "SELF_CLIENT_ID", "SELF_CLIENT_SECRET"}
    assert login(gateway, made["FABSTIR_EMAIL"], made["FABSTIR_PASSWORD"]).status_code == 200
    assert get(gateway, "/api/v1/whoami", made["FABSTIR_API_KEY"]).status_code == 200
    assert get(gateway, "/api/v1/account", made["FABSTIR_API_KEY"]).json()["balance"] == "100.0"
    assert token(gateway, made["SELF_CLIENT_ID"], made["SELF_CLIENT_SECRET"]).status_code == 200
    again = gateway.admin("demo", "credentials", "--names", "DUMONT_API_KEY FABSTIR_PASSWORD")
    assert set(again) == {"DUMONT_API_KEY", "FABSTIR_EMAIL", "FABSTIR_PASSWORD"}
    assert again["FABSTIR_EMAIL"] == made["FABSTIR_EMAIL"] and again["DUMONT_API_KEY"] != made["DUMONT_API_KEY"]
    assert login(gateway, made["FABSTIR_EMAIL"], made["FABSTIR_PASSWORD"]).status_code == 401


def test_no_secret_that_was_shown_is_in_a_log(gateway):
    made = gateway.operator("key", "create", {"account": "quiet", "surface": "session", "signing": True}).json()
    email = gateway.operator("account", "create", {"name": "quieter", "email": "quieter@example.com"}).json()
    client = gateway.operator("client", "create", {"account": "quiet", "name": "c"}).json()
    serve = gateway.serves[0]
    wait_until(lambda: serve.log().count("/admin/v1/client/create") > 0, 10, "the log")
    for secret in (made["key"], made["signing_secret"], email["password"], client["client_secret"], ADMIN_TOKEN,
                   PASSWORD):
        assert all(secret not in part.log() for part in gateway.parts)


# ---- another ENCRYPTION_KEY while servers run ----

NEW_KEY = "another-test-only-secret-of-the-operator-9876543210"


class Traffic:
    """Requests without a pause, signed and with an Idempotency-Key: each goes to two servers, which give one answer."""

    def __init__(self, gateway):
        made = gateway.admin("key", "create", "--account", "traffic", "--surface", "session", "--require-signature")
        self.key, self.secret = made["key"], made["signing_secret"]
        self.failures = []
        self.done = 0
        self.stopping = threading.Event()
        self.urls = [serve.url() for serve in gateway.serves]
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(2)]

    def _send(self, url, number):
        body, timestamp = b'{"user_id":"traffic"}', str(int(time.time()))
        signed = "\n".join(("POST", "/session/create", timestamp, hashlib.sha256(body).hexdigest()))
        signature = hmac.new(self.secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        return requests.post(url + "/session/create", data=body, timeout=30, headers={
            "X-API-Key": self.key, "Content-Type": "application/json", "Idempotency-Key": f"traffic-{number}",
            "X-Wakegate-Timestamp": timestamp, "X-Wakegate-Signature": f"v1={signature}"})

    def _run(self, number):
        while not self.stopping.is_set():
            number += 2
            urls = self.urls
            try:
                answers = [self._send(urls[(number // 2 + i) % len(urls)], number) for i in range(2)]
                if [answer.status_code for answer in answers] != [201, 201] or answers[0].json() != answers[1].json():
                    self.failures.append((number, *((answer.status_code, answer.text) for answer in answers)))
            except requests.RequestException as error:
                self.failures.append((number, repr(error)))
            self.done += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def go_on(self, count=20):
        """Until so many more were answered, and no longer one by a server that is no more in `urls`."""
        wanted = self.done + count
        wait_until(lambda: self.done >= wanted or self.failures, 60, "the traffic")
        assert self.failures == []

    def restart(self, part):
        """As behind a load balancer: it gets nothing more, is stopped, started, and asked again."""
        if part.kind == "serve":
            self.urls = [url for url in self.urls if url != part.url()]
            self.go_on()
        assert part.stop() == 0
        part.start().wait_ready()
        if part.kind == "serve":
            self.urls = [*self.urls, part.url()]
        self.go_on()


def test_the_encryption_key_is_changed_while_servers_run_and_no_request_fails(start_gateway):
    gateway = start_gateway(serves=2)
    before = gateway.key("before")
    with Traffic(gateway) as traffic:
        traffic.go_on()
        done = run("admin", "rotate-encryption-key", "--env-file", gateway.env_file, "--json",
                   env={"NEW_ENCRYPTION_KEY": NEW_KEY})
        assert done.returncode == 0, done.stderr
        rotated = json.loads(done.stdout)
        assert rotated["values"] > 0 and rotated["keys"] >= 2
        traffic.go_on()
        gateway.settings["ENCRYPTION_KEY"] = NEW_KEY
        gateway.write_settings()
        for part in gateway.parts:
            traffic.restart(part)
        assert gateway.admin("vault", "forget")["removed"] > 0
        assert {row["action"] for row in gateway.admin("audit", "list", "--action", "vault.*")} == {"vault.rotate", "vault.forget"}
        traffic.go_on()
        # What was sealed and hashed before is still known, and so is what begins now.
        assert gateway.client("before").list().status_code == 200 and gateway.key("before") == before
        traffic.restart(gateway.serves[0])
        key = gateway.admin("key", "create", "--account", "after", "--surface", "session")["key"]
        assert requests.get(gateway.url + "/session", headers={"X-API-Key": key}, timeout=30).status_code == 200
    for words in (("serve",), ("work",), ("admin", "key", "list")):
        refused = run(*words, env={**gateway.settings, "ENCRYPTION_KEY": ENCRYPTION_KEY})
        plain = [line for line in refused.stderr.splitlines() if not line.startswith("{")]
        assert refused.returncode != 0 and len(plain) == 1 and "ENCRYPTION_KEY" in plain[0], refused.stderr
        assert ENCRYPTION_KEY not in refused.stderr
    for part in gateway.parts:
        assert ENCRYPTION_KEY not in part.log() and NEW_KEY not in part.log()


@pytest.mark.parametrize("new_key", ["short", ENCRYPTION_KEY, ""])
def test_a_new_encryption_key_that_is_none(gateway, new_key):
    done = run("admin", "rotate-encryption-key", "--env-file", gateway.env_file, env={"NEW_ENCRYPTION_KEY": new_key})
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1, done
    assert new_key == "" or new_key not in done.stderr


def test_secrets_are_not_on_the_command_line_of_a_running_verb(gateway):
    """The process as `ps` shows it, while it waits for a lock."""
    gateway.admin("account", "create", "locked", "--email", "locked@example.com")
    words = [BINARY, "admin", "account", "password", "locked", "--env-file", gateway.env_file]
    connection = gateway.stores.postgres.connect(gateway.database)
    connection.autocommit = False
    cursor = connection.cursor()
    cursor.execute("SELECT 1 FROM account WHERE name = 'locked' FOR UPDATE")
    process = subprocess.Popen(words, env=environment({"WAKEGATE_PASSWORD": PASSWORD}), stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: gateway.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND "
                                       "datname = current_database()"), 30, "it waits")
        with open(f"/proc/{process.pid}/cmdline", "rb") as file:
            line = file.read().decode()
        assert "password" in line and PASSWORD not in line and ENCRYPTION_KEY not in line
        connection.rollback()
        assert process.wait(30) == 0
    finally:
        connection.close()
        process.kill()
        process.wait()
    assert login(gateway, "locked@example.com", PASSWORD).status_code == 200

"""Accounts: registering, and what an account is told of itself."""

import json
import subprocess
import time

import pytest

from accounts import PASSWORD, SETTINGS, Account, call, error_of, refresh
from fixtures import run_gateway
from stores import wait_until

ISO = "%Y-%m-%dT%H:%M:%SZ"


@pytest.fixture(scope="module")
def gateway(stores):
    yield from run_gateway(stores, SETTINGS, works=0)


def register(gateway, **body):
    return call(gateway, "POST", "/api/auth/register", json=body)


def test_registering_as_the_seed_does_it_shows_key_and_password_once(gateway):
    answer = register(gateway, email="user@example.com", organization="ACME Corp")
    assert answer.status_code == 201 and answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert set(body) == {"id", "email", "organization", "created_at", "api_key", "key_id", "password"}
    assert body["id"].startswith("user_") and body["api_key"].startswith("fsk-") and body["key_id"].startswith("key_")
    assert (body["email"], body["organization"]) == ("user@example.com", "ACME Corp")
    assert abs(time.time() - time.mktime(time.strptime(body["created_at"], ISO)) + time.timezone) < 60
    assert len(body["password"]) >= 12
    for prefix in ("/api/v1", "/v1"):
        shown = call(gateway, "GET", f"{prefix}/account", body["api_key"])
        assert shown.status_code == 200 and shown.json()["id"] == body["id"]
        for secret in (body["api_key"], body["password"]):
            assert secret not in shown.text
    login = call(gateway, "POST", "/api/auth/login", json={"email": "User@Example.com", "password": body["password"]})
    assert login.status_code == 200 and body["password"] not in login.text


def curl(*words):
    done = subprocess.run(["curl", "-sS", "--noproxy", "*", *words], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("content_type", ["Content-Type: application/json", "Content-Type:"], ids=["named", "missing"])
def test_registering_and_looking_with_curl(gateway, content_type):
    email = f"curl-{len(content_type)}@example.com"
    body = curl(f"{gateway.url}/api/auth/register", "-H", content_type, "-d",
                json.dumps({"email": email, "organization": "ACME Corp"}))
    assert curl(f"{gateway.url}/v1/account", "-H", f"Authorization: Bearer {body['api_key']}")["email"] == email


def test_a_password_of_ones_own_is_not_shown(gateway):
    answer = register(gateway, email="own@example.com", organization="ACME", password=PASSWORD)
    assert answer.status_code == 201 and PASSWORD not in answer.text and "password" not in answer.json()


def test_a_taken_address_is_409_however_it_is_spelled(gateway):
    first = register(gateway, email="taken@example.com", organization="ACME")
    assert first.status_code == 201
    for email in ("taken@example.com", "TAKEN@Example.COM"):
        error_of(register(gateway, email=email, organization="Other"), 409, "already_exists")
    assert call(gateway, "GET", "/v1/account", first.json()["api_key"]).json()["organization"] == "ACME"
    assert gateway.sql("SELECT count(*) FROM account WHERE email = 'taken@example.com'") == [(1,)]


FINE = {"email": "fine@example.com", "organization": "ACME", "password": PASSWORD}


@pytest.mark.parametrize("change", [
    {"email": None}, {"email": ""}, {"email": 7}, {"email": "nobody"}, {"email": "a@b"}, {"email": "a b@example.com"},
    {"email": "a@example.com\n"}, {"email": "a\u0000@example.com"}, {"email": "a" * 65 + "@example.com"},
    {"email": ["a@example.com"]}, {"email": "ä@example.com"},
    {"organization": None}, {"organization": ""}, {"organization": "x" * 201}, {"organization": "a\r\nb"},
    {"organization": "a\u0085b"}, {"organization": "a\u0000b"}, {"organization": {}},
    {"password": "eleven char"}, {"password": ""}, {"password": "x" * 1025}, {"password": 123456789012},
], ids=repr)
def test_what_is_no_registration_is_400_and_makes_nothing(gateway, change):
    error_of(register(gateway, **{**FINE, **change}), 400, "invalid_parameter")
    assert gateway.sql("SELECT count(*) FROM account WHERE email = 'fine@example.com'") == [(0,)]


def test_errors_are_as_sdks_read_them(gateway):
    account = Account(gateway)
    error_of(call(gateway, "GET", "/v1/account"), 401, "unauthorized")
    error_of(call(gateway, "GET", "/v1/account", "fsk-wrong"), 401, "invalid_api_key")
    error_of(call(gateway, "GET", "/v1/account", account.key[:-1]), 401, "invalid_api_key")
    error_of(account.call("GET", "/v1/nothing"), 404, "not_found")
    answer = account.call("PUT", "/v1/account")
    error_of(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET"
    error_of(call(gateway, "POST", "/api/auth/login", data="{", headers={"Content-Type": "application/json"}), 400,
             "invalid_json")
    error_of(call(gateway, "POST", "/api/auth/login", data="a=b", headers={"Content-Type": "text/plain"}), 415,
             "unsupported_media_type")
    error_of(call(gateway, "POST", "/api/auth/login", json={"email": "a" * (1 << 20), "password": "x"}), 413,
             "body_too_large")


def test_the_account_says_its_plan_and_what_is_left(gateway):
    account = Account(gateway, plan=None)
    answer = account.call("GET", "/api/v1/account")
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"id", "email", "organization", "created_at", "balance", "usage", "subscription", "limits"}
    assert body["balance"] == "0.0" and body["usage"] == {"current_month": "0.0", "last_month": "0.0", "today": "0.0"}
    assert body["id"] == account.id and body["email"] == account.email
    limits = body["limits"]
    assert limits["plan"] == "free" and limits["rate_limit"] == 10 and limits["daily_spend"] == "10.0"
    windows = {window["name"]: window for window in limits["windows"]}
    assert windows["inference-minute"]["limit"] == 10 and windows["inference-day"]["limit"] == 100
    assert windows["inference-day"]["remaining"] == 99
    reset = time.mktime(time.strptime(windows["inference-minute"]["reset"], ISO)) - time.timezone
    assert reset == int(answer.headers["X-RateLimit-Reset"]) and 0 <= reset - time.time() <= 61
    assert account.call("GET", "/api/v1/account").json()["limits"]["windows"] != limits["windows"]
    gateway.sql("INSERT INTO account_plan (account_id, surface, plan) SELECT id, 'inference', 'pro' FROM account "
                "WHERE ref = %s", account.id)

    def is_pro():
        shown = account.call("GET", "/v1/account").json()["limits"]
        return (shown["plan"], shown["rate_limit"]) == ("pro", 1000)
    wait_until(is_pro, 1.5, "the new plan counts", 0.2)


def test_a_free_account_has_ten_requests_a_minute(gateway):
    account = Account(gateway, plan=None)
    wait_until(lambda: time.time() % 60 < 50, 15, "the next minute", 0.2)
    assert [account.status() for _ in range(11)] == [200] * 10 + [429]
    error_of(account.call("GET", "/v1/account"), 429, "rate_limit_exceeded")
    # Another key of the account's changes nothing, and neither does its log-in.
    assert account.status(account.logged_in()["token"]) == 429


def test_a_banned_account_is_refused_within_a_second(gateway):
    account = Account(gateway)
    logged_in = account.logged_in()
    token = logged_in["token"]
    assert account.status() == 200 and account.status(token) == 200
    gateway.sql("UPDATE account SET banned_at = now(), ban_reason = 'spam' WHERE ref = %s", account.id)
    banned = time.monotonic()
    wait_until(lambda: account.status() == 403 and account.status(token) == 403, 1, "the ban counts")
    assert time.monotonic() - banned <= 1
    error_of(account.call("GET", "/v1/account"), 403, "account_banned")
    error_of(account.login(), 403, "account_banned")
    error_of(account.login(password="the wrong password"), 401, "invalid_credentials")
    error_of(refresh(gateway, logged_in["refresh_token"]), 401, "invalid_token")


def test_who_is_let_in_nowhere_is_limited_too(start_gateway):
    gateway = start_gateway({**SETTINGS, "ADDRESS_RATE_PER_MINUTE": "12"}, works=0)
    account, banned = Account(gateway), Account(gateway)
    elsewhere = account.make_key(allow_from=["192.0.2.1"])["key"]
    gateway.sql("UPDATE account SET banned_at = now() WHERE ref = %s", banned.id)
    statuses = [account.status(token) for token in (banned.key, elsewhere) * 12]
    assert set(statuses) == {403, 429} and statuses[-1] == 429


def test_registrations_are_counted_for_each_address(start_gateway):
    gateway = start_gateway({**SETTINGS, "REGISTER_RATE_PER_HOUR": "3", "TRUSTED_PROXIES": "127.0.0.1"}, works=0)

    def try_from(address, number):
        return call(gateway, "POST", "/api/auth/register", headers={"X-Forwarded-For": address},
                    json={"email": f"n{number}@example.com", "organization": "ACME", "password": PASSWORD})
    assert [try_from("192.0.2.1", number).status_code for number in range(4)] == [201, 201, 201, 429]
    refused = try_from("192.0.2.1", 5)
    error_of(refused, 429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["Retry-After"]) <= 3600
    assert try_from("192.0.2.2", 6).status_code == 201


def test_every_change_is_recorded_with_who_and_from_where(gateway):
    account = Account(gateway)
    answer = account.call("POST", "/v1/api-keys", json={"name": "x"}, headers={"X-Request-Id": "record-me"})
    assert answer.status_code == 201
    number, = gateway.sql("SELECT id FROM api_key WHERE ref = %s", account.key_id)[0]
    assert gateway.sql("SELECT actor, action, object, address FROM audit WHERE request_id = 'record-me'") == [
        (f"key {number}", "key.create", answer.json()["id"], "127.0.0.1")]
    assert gateway.sql("SELECT actor, action, address FROM audit WHERE object = %s", account.id) == [
        ("anonymous", "account.register", "127.0.0.1")]

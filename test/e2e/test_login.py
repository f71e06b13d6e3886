"""Log-ins: passwords, tokens, and what a guesser learns."""

import base64
import concurrent.futures
import contextlib
import json
import statistics
import time

import pytest
import requests

from accounts import PASSWORD, SETTINGS, Account, call, error_of, refresh
from fixtures import run_gateway
from stores import wait_until


@pytest.fixture(scope="module")
def gateway(stores):
    yield from run_gateway(stores, SETTINGS, works=0)


@pytest.fixture
def account(gateway):
    return Account(gateway)


def logout(account, token):
    return account.call("POST", "/api/auth/logout", token)


def part_of(token, number):
    text = token.split(".")[number]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


# ---- the way of a log-in ----

def test_a_login_gives_a_key_a_token_and_the_account(account):
    answer = account.login()
    assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert set(body) == {"api_key", "key_id", "token", "token_type", "expires_in", "refresh_token", "account"}
    assert (body["token_type"], body["expires_in"]) == ("Bearer", 3600)
    assert body["account"]["id"] == account.id and body["account"]["email"] == account.email
    claims = part_of(body["token"], 1)
    assert part_of(body["token"], 0)["alg"] == "HS256"
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("wakegate", "wakegate-api", account.id)
    assert claims["exp"] - claims["iat"] == 3600 and abs(claims["iat"] - time.time()) < 30
    assert account.status(body["token"]) == 200 and account.status(body["api_key"]) == 200
    named = account.call("GET", f"/v1/api-keys/{body['key_id']}", body["token"]).json()
    assert named["name"].startswith("login 20") and named["expires_at"] and body["api_key"] not in json.dumps(named)


def test_a_refresh_token_is_exchanged_for_the_next_pair(gateway, account):
    first = account.logged_in()
    answer = refresh(gateway, first["refresh_token"])
    assert answer.status_code == 200 and answer.headers["Cache-Control"] == "no-store"
    second = answer.json()
    assert set(second) == {"token", "token_type", "expires_in", "refresh_token"}
    assert second["refresh_token"] != first["refresh_token"]
    assert part_of(second["token"], 1)["sid"] == part_of(first["token"], 1)["sid"]
    assert account.status(second["token"]) == 200
    assert refresh(gateway, second["refresh_token"]).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "again"}], ids=["plain", "idempotent"])
def test_a_refresh_token_that_comes_again_ends_the_log_in(gateway, account, headers):
    first = account.logged_in()
    second = refresh(gateway, first["refresh_token"]).json()
    assert account.status(second["token"]) == 200
    error_of(refresh(gateway, first["refresh_token"], headers=headers), 401, "invalid_token")
    reused = time.monotonic()
    wait_until(lambda: account.status(second["token"]) == 401, 1, "the token is refused")
    assert time.monotonic() - reused <= 1
    error_of(refresh(gateway, second["refresh_token"]), 401, "invalid_token")
    # Another log-in of the account's goes on.
    assert account.status(account.logged_in()["token"]) == 200


def test_of_many_that_refresh_at_once_one_succeeds(gateway, account):
    token = account.logged_in()["refresh_token"]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        statuses = [answer.status_code for answer in pool.map(lambda _: refresh(gateway, token), range(32))]
    assert sorted(statuses) == [200] + [401] * 31


@pytest.mark.parametrize("text", ["", "x", "wgr_" + "a" * 49, "eyJhbGciOiJub25lIn0.e30."])
def test_what_is_no_refresh_token_is_refused(gateway, text):
    answer = refresh(gateway, text)
    error_of(answer, *((401, "invalid_token") if text else (400, "invalid_parameter")))


def test_logging_out_ends_token_and_refresh_token(gateway, account):
    body, stays = account.logged_in(), account.logged_in()
    assert account.status(body["token"]) == 200
    assert logout(account, body["token"]).status_code == 204
    ended = time.monotonic()
    wait_until(lambda: account.status(body["token"]) == 401, 1, "the token is refused")
    assert time.monotonic() - ended <= 1
    error_of(account.call("GET", "/v1/account", body["token"]), 401, "invalid_api_key")
    error_of(refresh(gateway, body["refresh_token"]), 401, "invalid_token")
    assert account.status(stays["token"]) == 200
    error_of(logout(account, account.key), 403, "forbidden")
    error_of(call(gateway, "POST", "/api/auth/logout"), 401, "unauthorized")


def test_no_other_token_is_a_log_ins(account):
    token = account.logged_in()["token"]
    head, claims, signature = token.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
    other = base64.urlsafe_b64encode(json.dumps({**part_of(token, 1), "sub": "user_0"}).encode()).decode().rstrip("=")
    for wrong in (f"{none}.{claims}.", f"{none}.{claims}.{signature}", f"{head}.{other}.{signature}",
                  f"{head}.{claims}.", f"{head}.{claims}.{signature[:-2]}", f"{head}.{claims}.{signature}.x",
                  f"{head}..{signature}", "ey..", "ey" + "a" * 6000 + ".a.b"):
        assert account.status(wrong) == 401, wrong
    assert account.status(token) == 200


def test_edd_sa_tokens_by_setting(start_gateway):
    gateway = start_gateway({**SETTINGS, "JWT_ALGORITHM": "EdDSA", "JWT_SECRET": "a secret for tokens, 32 and more"},
                            works=0)
    account = Account(gateway)
    token = account.logged_in()["token"]
    assert part_of(token, 0)["alg"] == "EdDSA" and account.status(token) == 200
    assert account.status(token[:-4] + "AAAA") == 401


def test_log_ins_leave_only_their_newest_keys(gateway, account):
    first = account.logged_in()
    for _ in range(20):
        last = account.logged_in()
    held = gateway.sql("SELECT count(*) FROM api_key k JOIN account a ON a.id = k.account_id WHERE a.ref = %s "
                       "AND k.revoked_at IS NULL AND k.name LIKE 'login %%'", account.id)
    assert held == [(20,)]
    wait_until(lambda: account.status(first["api_key"]) == 401, 1, "the oldest key is refused")
    assert account.status(last["api_key"]) == 200 and account.status() == 200
    assert account.status(first["token"]) == 200


# ---- passwords ----

def test_a_new_password_ends_what_the_old_one_gave(gateway, account):
    body = account.logged_in()

    def change(old, new, token=body["token"]):
        return account.call("POST", "/api/auth/password", token, json={"old_password": old, "new_password": new})
    error_of(change("not the old password", "a new and longer one"), 401, "invalid_credentials")
    error_of(change(PASSWORD, "short"), 400, "invalid_parameter")
    assert account.status(body["token"]) == 200
    assert change(PASSWORD, "a new and longer one").status_code == 204
    wait_until(lambda: account.status(body["token"]) == account.status(body["api_key"]) == 401, 1, "both are refused")
    error_of(refresh(gateway, body["refresh_token"]), 401, "invalid_token")
    error_of(account.login(), 401, "invalid_credentials")
    assert account.login("a new and longer one").status_code == 200
    assert account.status() == 200  # a key that was made by hand


def test_a_new_password_that_comes_again_is_answered_as_the_first_time(gateway, account):
    """The old one is right only once; a repetition is no guess."""
    def change(key, old, new="a new and longer one"):
        return account.call("POST", "/api/auth/password", json={"old_password": old, "new_password": new},
                            headers={"Idempotency-Key": key})
    for key, old, status in (("wrong", "not the old password", 401), ("right", PASSWORD, 204)):
        answers = [change(key, old) for _ in range(8)]  # more than there are tries
        assert [answer.status_code for answer in answers] == [status] * 8
        assert ["Idempotent-Replayed" in answer.headers for answer in answers] == [False] + [True] * 7
    assert change("right", PASSWORD, "another long one").status_code == 422
    assert account.login("a new and longer one").status_code == 200


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "idempotent"])
def test_of_two_new_passwords_at_once_one_is_set(gateway, account, keyed):
    def change(number):
        return account.call("POST", "/api/auth/password", fresh=True,
                            json={"old_password": PASSWORD, "new_password": f"a new one, number {number}"},
                            headers={"Idempotency-Key": f"new {number}"} if keyed else {})
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(change, range(3)))
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(204) == 1 and set(statuses) <= {204, 401, 429}
    assert account.login(f"a new one, number {statuses.index(204)}").status_code == 200


@pytest.fixture
def transaction(gateway):
    with contextlib.closing(gateway.stores.postgres.connect(gateway.database)) as connection:
        connection.autocommit = False
        yield connection


def waits_for_lock(gateway, transaction):
    pid = transaction.info.backend_pid
    wait_until(lambda: gateway.sql("SELECT 1 FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))", pid), 20,
               "a statement waits for ours")


def test_a_log_in_does_not_outlive_the_password_that_changes_meanwhile(gateway, account, transaction):
    with concurrent.futures.ThreadPoolExecutor(1) as pool, transaction.cursor() as cursor:
        cursor.execute("UPDATE account SET password = 'another' WHERE ref = %s", (account.id,))
        answer = pool.submit(account.login, fresh=True)
        waits_for_lock(gateway, transaction)
        transaction.commit()
        error_of(answer.result(), 401, "invalid_credentials")


def test_a_new_password_ends_a_log_in_that_begins_meanwhile(gateway, account, transaction):
    token = account.logged_in()["token"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool, transaction.cursor() as cursor:
        cursor.execute("SELECT id FROM account WHERE ref = %s FOR NO KEY UPDATE", (account.id,))
        cursor.execute("INSERT INTO login (ref, account_id, refresh_hash, expires_at) SELECT 'login_' || id, id, "
                       "sha256(ref::bytea), now() + interval '1 day' FROM account WHERE ref = %s", (account.id,))
        answer = pool.submit(account.call, "POST", "/api/auth/password", token, fresh=True,
                             json={"old_password": PASSWORD, "new_password": "a new and longer one"})
        waits_for_lock(gateway, transaction)
        transaction.commit()
        assert answer.result().status_code == 204
    assert gateway.sql("SELECT count(*) FROM login l JOIN account a ON a.id = l.account_id WHERE a.ref = %s "
                       "AND l.revoked_at IS NULL", account.id) == [(0,)]


def test_a_wrong_address_and_a_wrong_password_have_the_same_answer(gateway, account):
    def answer(email, password):
        got = call(gateway, "POST", "/api/auth/login", json={"email": email, "password": password})
        error_of(got, 401, "invalid_credentials")
        varying = ("Date", "X-Request-Id", "X-RateLimit-Remaining", "X-RateLimit-Reset")
        return got.text, {name: value for name, value in got.headers.items() if name not in varying}
    wrong = answer(account.email, "the wrong password")
    for email in ("nobody@example.com", "no address at all", "n\u00f6body@example.com", account.email + "x"):
        assert answer(email, PASSWORD) == wrong


def test_a_wrong_address_and_a_wrong_password_take_the_same_time(start_gateway):
    gateway = start_gateway({**SETTINGS, "PASSWORD_HASHES": "1"}, works=0)
    accounts = [Account(gateway) for _ in range(3)]
    times = {"password": [], "address": [], "form": []}
    for number in range(24):
        emails = {"password": accounts[number % 3].email, "address": f"nobody{number % 3}@example.com",
                  "form": f"nobody{number % 3}"}
        for kind, email in emails.items():
            begun = time.perf_counter()
            answer = call(gateway, "POST", "/api/auth/login", json={"email": email, "password": "the wrong password"})
            times[kind].append(time.perf_counter() - begun)
            assert answer.status_code == 401, answer.text
    medians = {kind: statistics.median(taken) for kind, taken in times.items()}
    assert min(medians.values()) > 0.005, medians  # a hash was made each time
    assert max(medians.values()) < 1.5 * min(medians.values()), medians


@pytest.mark.parametrize("body", [
    {}, {"email": "a@example.com"}, {"password": "x"}, {"email": 7, "password": "x"},
    {"email": "a@example.com", "password": 7},
    {"email": "a@example.com", "password": ""}, {"email": "a@example.com", "password": "x" * 1025},
    {"email": "a" * 300, "password": "x"},
], ids=lambda body: json.dumps(body)[:40])
def test_what_is_no_login_is_400(gateway, body):
    error_of(call(gateway, "POST", "/api/auth/login", json=body), 400, "invalid_parameter")


# ---- guessing ----

def test_an_account_is_guessed_at_ten_times_at_most(gateway, account):
    """In a quarter of an hour, from wherever; and an address that is nobody's no differently."""
    wait_until(lambda: time.time() % 900 < 850, 60, "a new window", 0.5)
    other = Account(gateway)
    for email in (account.email, f"nobody-{account.id}@example.com"):
        for _ in range(10):
            error_of(call(gateway, "POST", "/api/auth/login", json={"email": email, "password": "wrong"}), 401,
                     "invalid_credentials")
        for spelling in (email, email.upper()):
            refused = call(gateway, "POST", "/api/auth/login", json={"email": spelling, "password": PASSWORD})
            error_of(refused, 429, "rate_limit_exceeded")
            assert 1 <= int(refused.headers["Retry-After"]) <= 900
            # Told once, and of the limit that refuses.
            assert (refused.headers["X-RateLimit-Limit"], refused.headers["X-RateLimit-Remaining"]) == ("10", "0")
    # Nor by the route that changes the password.
    changed = account.call("POST", "/api/auth/password", json={"old_password": PASSWORD, "new_password": "x" * 12})
    error_of(changed, 429, "rate_limit_exceeded")
    assert other.login().status_code == 200


def test_a_right_password_takes_its_own_try_back(gateway, account):
    wait_until(lambda: time.time() % 900 < 850, 60, "a new window", 0.5)
    for _ in range(12):
        assert account.login().status_code == 200
    for _ in range(9):
        assert account.login("wrong password").status_code == 401
    assert account.login().status_code == 200


def test_log_ins_are_counted_for_each_address(start_gateway):
    gateway = start_gateway({**SETTINGS, "LOGIN_RATE_PER_MINUTE": "5", "TRUSTED_PROXIES": "127.0.0.1"}, works=0)
    account = Account(gateway)
    wait_until(lambda: time.time() % 60 < 50, 15, "the next minute", 0.2)

    def try_from(address):
        return account.login(headers={"X-Forwarded-For": address})
    assert [try_from("192.0.2.1").status_code for _ in range(5)] == [200] * 5
    refused = try_from("192.0.2.1")
    error_of(refused, 429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert try_from("192.0.2.2").status_code == 200
    # The whole /64 is one client.
    assert [try_from(f"2001:db8::{number}").status_code for number in range(1, 7)] == [200] * 5 + [429]


def peak_kb(part):
    """The most memory that the process has had."""
    with open(f"/proc/{part.process.pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM:"))


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "idempotent"])
def test_fifty_logins_at_once_are_hashed_one_by_one_and_the_rest_refused(start_gateway, keyed):
    # Who waits for the hash must not have the one connection for transactions meanwhile.
    gateway = start_gateway({**SETTINGS, "PASSWORD_HASHES": "1", "REACTORS": "1", "PG_POOL_SIZE": "1"}, works=0)
    account = Account(gateway)
    part = gateway.serves[0]
    url = gateway.url

    def log_in(number):
        return requests.post(f"{url}/api/auth/login", json={"email": account.email, "password": PASSWORD}, timeout=60,
                             headers={"Idempotency-Key": f"log-in {number}"} if keyed else {})
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        # As many clients as there will be.
        list(pool.map(lambda _: requests.get(f"{url}/livez", timeout=60), range(50)))
        assert log_in("first").status_code == 200
        before_kb = peak_kb(part)
        answers = list(pool.map(log_in, range(50)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {200, 429} and len(statuses) == 50
    for answer in answers:
        if answer.status_code == 429:
            error_of(answer, 429, "rate_limit_exceeded")
            assert int(answer.headers["Retry-After"]) >= 1
    # A second hash at the same time would take 19 MiB more.
    assert peak_kb(part) - before_kb < 19 * 1024, (before_kb, peak_kb(part))
    # None of those who were refused has used up a guess.
    assert account.login().status_code == 200
